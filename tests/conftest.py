"""Fixtures that every test may use."""

from __future__ import annotations

import os

# Before torch is imported: test processes share the cores, and threads that wait for each other would spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
