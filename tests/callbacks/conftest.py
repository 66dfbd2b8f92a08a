"""Lightning's advice that does not apply to runs of a few batches."""

from __future__ import annotations

import warnings

import pytest


@pytest.fixture(autouse=True)
def _no_advice() -> None:
    for message in (
        "You defined a `validation_step` but have no `val_dataloader`",
        "GPU available but not used",
        "The number of training batches .* is smaller than the logging interval",
    ):
        warnings.filterwarnings("ignore", message=message)
