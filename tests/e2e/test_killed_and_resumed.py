"""Promise 1: killed at any step and resumed, a run ends with weights bit-equal to the one never killed."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from killing import EPOCHS, SAVE_EVERY, STEPS_PER_EPOCH, assert_runs_equal, chosen, killed_at, run, small_drive

LAST = STEPS_PER_EPOCH * EPOCHS


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    assert run("drive_unet", small_drive(data, run_dir, workers=0)) == 0
    return run_dir


def _kills() -> list[tuple[int, bool, int]]:
    """Ten seeded steps: some before the first checkpoint, some in mid-epoch after one; workers 0 and 2 in turn."""
    draw = random.Random(20)
    early = [draw.randrange(1, SAVE_EVERY) for _ in range(2)]
    middle = draw.sample([step for step in range(SAVE_EVERY + 1, LAST) if step % STEPS_PER_EPOCH], 8)
    return [(step, index % 3 == 2, 2 * (index % 2)) for index, step in enumerate([*early, *middle])]


@pytest.mark.parametrize(("step", "inside", "workers"), chosen(_kills(), always=(0, 3, 5, 8)))
def test_ends_bit_equal(step: int, inside: bool, workers: int, whole: Path, data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    overrides = small_drive(data, run_dir, workers)
    assert run("drive_unet", [*overrides, *killed_at(step, inside=inside)]) == -signal.SIGKILL
    assert not list(run_dir.glob("summary.json"))
    assert run("drive_unet", [*overrides, "resume=last"]) == 0
    assert_runs_equal(run_dir, whole, steps=LAST)
