"""Agreement between processes that share a folder; the kernel forgets a lock with the process that held it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

_HELD_BY_ANOTHER = (errno.EACCES, errno.EAGAIN)


@contextmanager
def exclusive(path: Path, *, wait: bool = True) -> Generator[bool]:
    """Hold a lock file alone.

    Args:
        path: created where absent.
        wait: for whoever holds it; otherwise go on without it.

    Yields:
        Whether it is held.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        yield _locked(descriptor, wait=wait)
    finally:
        os.close(descriptor)


def try_hold(descriptor: int) -> bool:
    """Lock an open file until it is closed, unless another process holds it."""
    return _locked(descriptor, wait=False)


class Claims:
    """Who works on which key: a lock on one byte of a file each, beyond its end, free again when its holder dies.

    They only spare work. Where a file system has no locks every claim is granted, and two processes may do the same.

    Args:
        path: of the file; created where absent.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        self._held: set[bytes] = set()

    def take(self, key: bytes) -> bool:
        """Claim a key; False where another process has it."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(key))
        except OSError as error:
            return error.errno not in _HELD_BY_ANOTHER
        self._held.add(key)
        return True

    def release(self, keys: Iterable[bytes]) -> None:
        """Give keys back."""
        for key in keys:
            if key in self._held:
                self._held.discard(key)
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _place(key))

    def close(self) -> None:
        """Give all back."""
        self._held.clear()
        os.close(self._descriptor)


def _locked(descriptor: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            return False
        raise
    return True


def _place(key: bytes) -> int:
    return int.from_bytes(key[:8]) >> 2  # offsets of a file are signed 64-bit numbers
