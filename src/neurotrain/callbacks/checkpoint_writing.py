"""One checkpoint as one file, straight onto the disk; a disk that is full is told, not raised."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import Strategy

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "a file of that size is not allowed",
}


class DiskFullError(OSError):
    """There is no room for a checkpoint."""


class CheckpointWriter(TorchCheckpointIO):
    """Writes what a strategy hands over, and remembers that there was no room instead of raising.

    Lightning's own collects the whole state in memory, writes it to the folder of temporary files and copies it from
    there. This one streams it to where it belongs. That one rank fails must not be an exception within the strategy:
    the others would wait for it there.

    Attributes:
        bytes: size of the last checkpoint, also of one that did not fit.
        error: why the last one could not be written; None if it was.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.error: OSError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write one file, synced; raises whatever is no lack of room.

        Args:
            checkpoint: what ``torch.save`` takes.
            path: of the file.
            storage_options: none are known.

        Raises:
            TypeError: if there are storage options.
        """
        if storage_options is not None:
            raise TypeError(f"storage_options={storage_options!r}: a local file has none")
        self.bytes, self.error = 0, None
        with _Sink(Path(path)) as sink:
            torch.save(checkpoint, cast(IO[bytes], sink))  # of which torch only writes and flushes
        self.bytes, self.error = sink.bytes, sink.error
        if self.error is not None and not is_lack_of_room(self.error):
            raise self.error

    @contextmanager
    def used_by(self, strategy: Strategy) -> Generator[None]:
        """Let a strategy write through this for as long as the context lasts."""
        usual = strategy.checkpoint_io
        strategy.checkpoint_io = self
        try:
            yield
        finally:
            strategy.checkpoint_io = usual


class _Sink:
    """A file that swallows what comes after its first error: torch's writer ends the process when it meets one."""

    def __init__(self, path: Path) -> None:
        self.bytes = 0
        self.error: OSError | None = None
        self._descriptor: int | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            self.error = error

    def __enter__(self) -> _Sink:
        """The sink itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sync and close; file systems may only then say that there was no room."""
        if self._descriptor is None:
            return
        for last in (os.fsync, os.close):
            try:
                last(self._descriptor)
            except OSError as late:
                self.error = self.error or late

    def write(self, data: bytes | memoryview) -> int:
        """Write all of it, or note why not."""
        rest = memoryview(data).cast("B")
        size = rest.nbytes
        self.bytes += size
        try:
            while self.error is None and rest.nbytes:
                assert self._descriptor is not None
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self.error = error
        return size

    def flush(self) -> None:
        """Nothing is held back."""


def is_lack_of_room(error: OSError) -> bool:
    """Whether an error says that the disk, the quota or the allowed size of a file is used up."""
    return error.errno in _FULL


def lack_of_room(error: OSError, *, folder: Path, needed: int) -> str:
    """One line for people: what is used up, and how much was asked of how much.

    Args:
        error: of which :func:`is_lack_of_room` holds.
        folder: where the file was to be; what was left of it is removed by now.
        needed: bytes.
    """
    assert error.errno is not None
    free = shutil.disk_usage(folder).free
    return f"{_FULL[error.errno]} at {folder}: {needed:,} bytes needed, {free:,} free"
