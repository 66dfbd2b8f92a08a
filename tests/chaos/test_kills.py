"""Killed at twenty seeded steps, a run goes on to the same end; a loader that loses a worker says so."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from killing import EPOCHS, SAVE_EVERY, STEPS_PER_EPOCH, assert_runs_equal, killed_at, run, small_drive

LAST = STEPS_PER_EPOCH * EPOCHS
KILLS = 20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    assert run("drive_unet", small_drive(data, run_dir, workers=0)) == 0
    return run_dir


def _kills() -> list[tuple[int, bool, int]]:
    """Steps at random, a third of them inside the step; workers 0, 1 and 2 in turn."""
    draw = random.Random(3)
    return [(draw.randrange(1, LAST), index % 3 == 2, index % 3) for index in range(KILLS)]


def test_enough_kills_come_in_mid_epoch_after_a_checkpoint() -> None:
    middle = [step for step, _, _ in _kills() if step > SAVE_EVERY and step % STEPS_PER_EPOCH and step % SAVE_EVERY]
    assert len(middle) >= 5


@pytest.mark.all_kills
@pytest.mark.parametrize(("step", "inside", "workers"), _kills())
def test_ends_bit_equal(
    step: int, inside: bool, workers: int, whole: Path, data: Path, tmp_path: Path, tried: Callable[..., None]
) -> None:
    tried("SIGKILL at a random step, bit-equal end")
    run_dir = tmp_path / "run"
    overrides = small_drive(data, run_dir, workers)
    assert run("drive_unet", [*overrides, *killed_at(step, inside=inside)]) == -signal.SIGKILL
    assert run("drive_unet", [*overrides, "resume=last"]) == 0
    assert_runs_equal(run_dir, whole, steps=LAST)


def test_a_worker_of_the_loader_is_killed(data: Path, tmp_path: Path, tried: Callable[..., None]) -> None:
    tried("loader worker killed")
    run_dir = tmp_path / "run"
    kill = ["callbacks.kill._target_=killing.KillWorkerAt", "callbacks.kill.step=5"]
    assert run("drive_unet", [*small_drive(data, run_dir, 2), *kill]) == 1
    told = (run_dir / "log.txt").read_text()
    assert told.count("WorkerDiedError: worker") == 1
    assert "killed by signal 9 (SIGKILL" in told
    assert not list(run_dir.glob("summary.json"))
