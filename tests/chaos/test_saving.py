"""Killed while it saves, or without room to save: what is there stays whole, and the newest whole one is found."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from ranks_apart import Ranks, Slowly

from neurotrain.callbacks import find_last
from neurotrain.callbacks.checkpoint_marks import damage

STEPS_WAITED = 2


def _none(rank: int) -> list[Callback]:
    return []


def _kill_while_saving(folder: Path, times: int) -> tuple[int, int]:
    """Kills a run that does little but save, goes on from what is found, and kills again.

    Returns:
        How often what was found was whole and no older than before, and how many kills left a file half written.
    """
    draw = random.Random(7)
    good = torn = newest = 0
    for _ in range(times):
        found = find_last(folder / "checkpoints")
        run = Ranks(
            folder,
            _none,
            world_size=1,
            max_epochs=-1,
            saving={"every_n_steps": 1, "keep": 3},
            resume=None if found is None else str(found),
        )
        _wait_for_step(folder, newest + STEPS_WAITED)
        time.sleep(draw.uniform(0, 0.02))
        os.kill(run.pid(), signal.SIGKILL)
        assert run.end() == [-signal.SIGKILL], run.said()
        torn += _is_torn(folder / "checkpoints")
        found = find_last(folder / "checkpoints")
        assert found is not None
        state = torch.load(found, weights_only=True)
        good += state["global_step"] >= newest + STEPS_WAITED and found.name == f"step-{state['global_step']:08d}.ckpt"
        newest = state["global_step"]
    return good, torn


def _wait_for_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    names = [folder / "checkpoints" / f"step-{late:08d}.ckpt.whole" for late in range(step, step + 5)]
    while not any(name.exists() for name in names):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _is_torn(folder: Path) -> bool:
    """Whether the kill left something half done."""
    return bool(list(folder.glob(".*.tmp"))) or any(damage(path) for path in folder.glob("step-*.ckpt"))


def test_killed_while_saving(tmp_path: Path, tried: Callable[..., None]) -> None:
    good, _ = _kill_while_saving(tmp_path, 3)
    tried("SIGKILL while saving", times=3, survived=good)
    assert good == 3


@pytest.mark.all_kills
def test_killed_while_saving_two_hundred_times(tmp_path: Path, tried: Callable[..., None]) -> None:
    good, torn = _kill_while_saving(tmp_path, 197)
    tried("SIGKILL while saving", times=197, survived=good)
    assert good == 197
    assert torn > 20  # else the kills missed what they aim at


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 160 kB: room for some checkpoints of the tiny task; skips where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Filling(Callback):
    """Leaves no room once two checkpoints are there."""

    def on_train_batch_start(self, trainer: object, pl_module: object, batch: object, batch_idx: int) -> None:
        folder = Path(trainer.default_root_dir)  # type: ignore[attr-defined]
        if len(list(folder.glob("checkpoints/*.whole"))) == 2 and not (folder / "filler").exists():
            with (folder / "filler").open("wb", buffering=0) as file:
                try:
                    while file.write(b"x" * 4096):
                        pass
                except OSError:
                    os.truncate(folder / "filler", max(0, file.tell() - 4096))


def _filling(rank: int) -> list[Callback]:
    return [Filling()]


def test_a_disk_that_fills_up(small_disk: Path, tried: Callable[..., None]) -> None:
    tried("disk full (a small file system)")
    run = Ranks(small_disk, _filling, world_size=1, max_epochs=1, saving={"every_n_steps": 1, "keep": 9})
    codes = run.end()
    said = run.said()
    assert codes == [1], said  # all steps were trained, but their end could not be saved
    assert said.count("the disk is full at") >= 3
    assert "bytes needed" in said
    assert "DiskFullError: step 6 is not saved" in said
    found = find_last(small_disk / "checkpoints")
    assert found is not None
    assert found.name == "step-00000002.ckpt"


class SmallFiles(Callback):
    """Allows no file as large as a checkpoint from the third step to the fifth."""

    def on_train_batch_start(self, trainer: object, pl_module: object, batch: object, batch_idx: int) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000 if batch_idx in (2, 3, 4) else hard, hard))


def _small_files(rank: int) -> list[Callback]:
    return [SmallFiles(), Slowly(seconds=0.0)]


def test_files_that_may_not_be_large(tmp_path: Path, tried: Callable[..., None]) -> None:
    tried("disk full (a limit for files)")
    run = Ranks(tmp_path, _small_files, world_size=1, max_epochs=1, saving={"every_n_steps": 1, "keep": 9})
    assert run.end() == [0], run.said()
    assert run.said().count("a file of that size is not allowed") == 3
    steps = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*.ckpt"))
    assert steps == [f"step-{step:08d}.ckpt" for step in (1, 2, 6)]


def test_two_ranks_go_on_without_room(tmp_path: Path, tried: Callable[..., None]) -> None:
    tried("disk full, two ranks")
    run = Ranks(tmp_path, _small_files, world_size=2, max_epochs=1, saving={"every_n_steps": 1, "keep": 9})
    assert run.end() == [0, 0], run.said() + run.said(1)
    assert run.said().count("a file of that size is not allowed") == 3
    assert "not allowed" not in run.said(1)
