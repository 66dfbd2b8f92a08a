"""The newest whole checkpoint is found, and a disk that is full costs none of those that are there."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from callback_toys import ToyLoader, ToyTask, make_trainer, seed
from lightning.pytorch import Trainer

from neurotrain.callbacks import DiskFullError, RunCheckpoint, checkpoint_writing, find_last
from neurotrain.callbacks.checkpoint_marks import damage, mark, marker, unmark


def _fit(folder: Path, *, epochs: int = 3, keep: int = 3, on_disk_full: str = "continue") -> Trainer:
    seed()
    checkpoint = RunCheckpoint(keep=keep, on_disk_full=on_disk_full)  # pyright: ignore[reportArgumentType]
    trainer = make_trainer(folder, [checkpoint], max_epochs=epochs)
    trainer.fit(ToyTask(), ToyLoader(batches=2))
    return trainer


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def _lose_half_the_marker(path: Path) -> None:
    marker(path).write_text(marker(path).read_text()[:40])


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (_truncate, "bytes instead of"),
    (_flip, "was altered"),
    (unmark, "no completeness marker"),
    (_lose_half_the_marker, "unreadable completeness marker"),
]


@pytest.mark.parametrize(("damaged", "reason"), DAMAGES)
def test_the_newest_whole_one_is_found(
    damaged: Callable[[Path], None], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _fit(tmp_path)
    folder = tmp_path / "checkpoints"
    damaged(folder / "step-00000006.ckpt")  # last.ckpt is the same file
    _truncate(folder / "step-00000004.ckpt")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert find_last(folder) == folder / "step-00000002.ckpt"
    (record,) = caplog.records
    said = record.getMessage()
    assert "step-00000006.ckpt" in said
    assert reason in said
    assert "step-00000004.ckpt has" in said
    assert said.endswith("step-00000002.ckpt is the newest whole one")


def test_nothing_whole_is_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _fit(tmp_path, epochs=1)
    _flip(tmp_path / "checkpoints" / "step-00000002.ckpt")
    assert find_last(tmp_path / "checkpoints") is None
    assert "there is no whole one" in caplog.text


def test_a_lone_copy_without_a_marker_is_taken_if_its_own_checksums_fit(tmp_path: Path) -> None:
    _fit(tmp_path, epochs=1)
    (tmp_path / "copy").mkdir()
    last = tmp_path / "copy" / "last.ckpt"
    last.write_bytes((tmp_path / "checkpoints" / "last.ckpt").read_bytes())
    assert find_last(tmp_path / "copy") == last
    _flip(last)
    assert find_last(tmp_path / "copy") is None


def test_a_checkpoint_of_several_files_is_whole_or_not(tmp_path: Path) -> None:
    folder = tmp_path / "step-00000001.ckpt"
    (folder / "shards").mkdir(parents=True)
    for name in ("meta", "shards/0", "shards/1"):
        (folder / name).write_text(name)
    mark(folder)
    assert damage(folder) is None
    (folder / "shards" / "1").write_text("shards/2")
    assert damage(folder) == "was altered in shards/1: its digest is not the one that was written"
    (folder / "shards" / "1").unlink()
    assert damage(folder) == "lacks shards/1"


class Disk:
    """Has room for ``room`` bytes, then for none."""

    def __init__(self, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = room
        self._write = os.write
        monkeypatch.setattr(checkpoint_writing.os, "write", self.write)

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(descriptor, data[: self.room])
        self.room -= written
        return written


def test_a_full_disk_keeps_the_old_ones_and_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _fit(tmp_path / "size", epochs=1)
    size = (tmp_path / "size" / "checkpoints" / "last.ckpt").stat().st_size
    disk = Disk(size + size // 2, monkeypatch)
    with pytest.raises(DiskFullError, match="step 6 is not saved"):  # a run's very end must not get lost in silence
        _fit(tmp_path)
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == [
        "last.ckpt",
        "step-00000002.ckpt",
        "step-00000002.ckpt.whole",
    ]
    assert find_last(folder) == folder / "step-00000002.ckpt"
    said = [record.getMessage() for record in caplog.records if "not saved" in record.getMessage()]
    assert len(said) == 2  # at steps 4 and 6, after which the end of training is one more try
    assert said[0].startswith(f"step 4 is not saved: the disk is full at {folder}: ")
    assert disk.room == 0
    assert ", 0 free" not in said[0]  # of the real disk
    assert "bytes needed" in said[0]
    needed = int(said[0].split(": ")[2].split(" bytes")[0].replace(",", ""))
    assert abs(needed - size) < size // 10


def test_a_run_goes_on_once_there_is_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(100, monkeypatch)

    class FreeAtStep(RunCheckpoint):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: ToyTask) -> None:
            disk.room = 100 if trainer.global_step < 4 else 1 << 30
            super().on_train_epoch_end(trainer, pl_module)

    trainer = make_trainer(tmp_path, [FreeAtStep(keep=5)], max_epochs=3)
    trainer.fit(ToyTask(), ToyLoader(batches=2))
    steps = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*.ckpt"))
    assert steps == ["step-00000004.ckpt", "step-00000006.ckpt"]


def test_a_full_disk_ends_the_run_if_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(100, monkeypatch)
    with pytest.raises(DiskFullError, match=r"step 2 is not saved: the disk is full at .*: [\d,]+ bytes needed, "):
        _fit(tmp_path, on_disk_full="stop")
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_other_errors_of_writing_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint_writing.os, "write", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        _fit(tmp_path)
    assert not isinstance(caught.value, DiskFullError)


def test_what_is_written_is_what_was_given(tmp_path: Path) -> None:
    writer = checkpoint_writing.CheckpointWriter()
    state = {"weight": torch.arange(100_000.0), "name": "a", "none": None}
    writer.save_checkpoint(state, tmp_path / "new" / "one.ckpt")
    back = torch.load(tmp_path / "new" / "one.ckpt", weights_only=True)
    assert torch.equal(back["weight"], state["weight"])
    assert writer.bytes == (tmp_path / "new" / "one.ckpt").stat().st_size
    with pytest.raises(TypeError, match="storage_options"):
        writer.save_checkpoint(state, tmp_path / "one.ckpt", storage_options={})
