"""When each entry was last used, for all processes together: a small shared table that nobody has to flush.

An entry's time is at the place that its key gives; two entries in one place share the later time, so one of them stays
longer than it should. It only ever decides what is evicted first.
"""

from __future__ import annotations

import logging
import mmap
import os
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

FILE = "recency.bin"
SLOTS = 2**20
_BYTES = 8 * SLOTS


class Recency:
    """The shared table, or nothing where it cannot be had.

    Args:
        folder: of the cache.
        create: make it where absent.
    """

    def __init__(self, folder: Path, *, create: bool) -> None:
        self._times = _mapped(folder / FILE, create=create)

    @property
    def is_there(self) -> bool:
        """Whether use is recorded."""
        return self._times is not None

    def touch(self, key: bytes) -> None:
        """Note that an entry is used now."""
        if self._times is not None:
            self._times[int.from_bytes(key[:8]) % SLOTS] = time.time_ns()

    def touch_at(self, high: NDArray[np.uint64], when: NDArray[np.int64]) -> None:
        """Note earlier uses, by the first halves of keys, for entries that move to another file."""
        if self._times is not None:
            times: NDArray[Any] = np.asarray(self._times)
            np.maximum.at(times, high % np.uint64(SLOTS), when)

    def last_use(self, high: NDArray[np.uint64], written: NDArray[np.int64]) -> NDArray[np.int64]:
        """Nanoseconds since 1970 at which entries were used last; when they were written, where none is known."""
        if self._times is None:
            return written
        times = np.asarray(self._times)[high % np.uint64(SLOTS)]
        return np.where(times > 0, times, written)


def _mapped(path: Path, *, create: bool) -> memoryview | None:
    try:
        if create and not path.exists():
            _create(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if create:
            log.warning("use of entries is not recorded in %s: %s", path.parent, error)
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != _BYTES:
            log.warning("%s is not a table of times: use of entries is not recorded", path)
            return None
        return memoryview(mmap.mmap(descriptor, _BYTES)).cast("q")
    finally:
        os.close(descriptor)


def _create(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        # All of it now: a write into a hole of a mapped file kills the process when the disk is full.
        os.posix_fallocate(descriptor, 0, _BYTES)
        # A link, not a rename: of two processes that make the table at once, the second must not replace the first's.
        with suppress(FileExistsError):
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)
