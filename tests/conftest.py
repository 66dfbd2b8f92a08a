"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real datasets: ``$NEUROTRAIN_DATA``, or ``shared/data`` beside the checkout; skips where absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NEUROTRAIN_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"real data not found: set NEUROTRAIN_DATA or provide {folder}")
    return folder
