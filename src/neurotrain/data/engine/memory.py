"""Memory of batches: shared by file descriptor, without a name that could be left behind, reused for ever.

Fresh pages cost more than the decoding of small images: the kernel zeroes and maps each of them at its first touch. So
every batch is written into memory that was used before.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import reduction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes: arrays begin where vector instructions and caches like it."""

_GRAIN = 1 << 16
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, which the mmap module does not name


class Arena(Protocol):
    """Where the arrays of one batch are made."""

    def array(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An uninitialised array."""
        ...


class SharedBytes:
    """Memory that several processes map: grows, never shrinks, and is gone with the last process that has it.

    It is a file without a name (``memfd``), so a killed run leaves nothing in ``/dev/shm``, and the size limit that
    containers put on ``/dev/shm`` does not apply. Sent to a process at its start, it arrives as a descriptor.

    Args:
        size: bytes to begin with.
    """

    def __init__(self, *, size: int = 0) -> None:
        self._fd = _nameless_file()
        self._map: mmap.mmap | None = None
        if size:
            self.reserve(size)

    @property
    def size(self) -> int:
        """Bytes that this process has mapped."""
        return 0 if self._map is None else len(self._map)

    @property
    def map(self) -> mmap.mmap:
        """The memory; arrays of an earlier, smaller map stay valid and show the same bytes."""
        assert self._map is not None, "nothing was reserved"
        return self._map

    def reserve(self, size: int) -> None:
        """Have at least ``size`` bytes mapped, growing the file for everybody where it is shorter."""
        if size <= self.size:
            return
        wanted = -(-size // _GRAIN) * _GRAIN
        there = os.fstat(self._fd).st_size
        if there < wanted:
            os.ftruncate(self._fd, wanted)
        self._map = mmap.mmap(self._fd, max(there, wanted))
        prefault(self._map)

    def close(self) -> None:
        """Give the descriptor back; what is mapped stays so for those who hold it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles while a process is being started only."""
        return _attach, (reduction.DupFd(self._fd), self.size)


class SharedArena:
    """Makes the arrays of one batch after the other in one shared slot.

    Args:
        memory: the slot.
    """

    def __init__(self, memory: SharedBytes) -> None:
        self._memory = memory
        self._used = 0
        self._maps: list[tuple[int, mmap.mmap]] = []

    @property
    def used(self) -> int:
        """Bytes of the present batch."""
        return self._used

    def begin(self) -> None:
        """Forget the batch before."""
        self._used = 0
        del self._maps[:-1]

    def array(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An uninitialised array in the slot, which grows where it is full."""
        offset = self._take(dtype.itemsize * int(np.prod(shape, dtype=np.int64)))
        return np.ndarray(shape, dtype, buffer=self._memory.map, offset=offset)

    def place(self, part: NDArray[np.uint8]) -> int:
        """Offset of some bytes in the slot; they are copied there if they lie elsewhere."""
        address = part.ctypes.data
        for start, known in self._maps:
            if start <= address < start + len(known):
                return address - start
        offset = self._take(part.nbytes)
        np.frombuffer(self._memory.map, np.uint8, part.nbytes, offset)[:] = part
        return offset

    def _take(self, size: int) -> int:
        offset = -(-self._used // ALIGNMENT) * ALIGNMENT
        self._used = offset + max(size, 1)
        if self._used > self._memory.size:
            # A little more than asked for: batches differ by some bytes of text.
            self._memory.reserve(self._used + self._used // 16)
        if not self._maps or self._maps[-1][1] is not self._memory.map:
            start = np.frombuffer(self._memory.map, np.uint8).ctypes.data
            self._maps.append((start, self._memory.map))
        return offset


class FreshArena:
    """Arrays of their own, for a process that shares with nobody."""

    def array(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An uninitialised array."""
        return np.empty(shape, dtype)


def prefault(memory: mmap.mmap) -> None:
    """Let the kernel provide all pages now, large ones where it can, instead of one by one at their first touch."""
    if sys.platform == "linux":
        # Only faster: a kernel without these says EINVAL, and the pages come when they are touched.
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
        with contextlib.suppress(OSError):
            memory.madvise(_POPULATE_WRITE)


def _nameless_file() -> int:
    if sys.platform == "linux":
        return os.memfd_create("neurotrain-batch", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _attach(duplicate: Any, size: int) -> SharedBytes:  # noqa: ANN401 - multiprocessing does not name its type
    memory = SharedBytes.__new__(SharedBytes)
    memory._fd = duplicate.detach()  # pyright: ignore[reportPrivateUsage] - made here
    memory._map = None  # pyright: ignore[reportPrivateUsage]
    memory.reserve(size)
    return memory
