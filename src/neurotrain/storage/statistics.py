"""What a storage did in this process: a few numbers that cost next to nothing to keep."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from threading import get_ident


@dataclass(slots=True, kw_only=True)
class Statistics:
    """Counts of operations; sums are made with ``+``.

    Attributes:
        reads: reads that succeeded.
        bytes_read: bytes that they returned.
        writes: writes that succeeded.
        bytes_written: bytes of them.
        retries: attempts beyond the first one, of any operation.
        errors: operations that failed in the end.
        cache_hits: reads that a cache answered.
        cache_misses: reads that a cache passed on.
        wait_seconds: time in which reads and writes kept their caller, or their place in a queue of reads, waiting.

    Example:
        >>> both = Statistics(reads=1, bytes_read=5) + Statistics(reads=2)
        >>> both.reads, both.bytes_read
        (3, 5)
    """

    reads: int = 0
    bytes_read: int = 0
    writes: int = 0
    bytes_written: int = 0
    retries: int = 0
    errors: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    wait_seconds: float = 0.0

    def __add__(self, other: Statistics) -> Statistics:
        """Both together."""
        total = Statistics()
        total.include(self)
        total.include(other)
        return total

    def include(self, other: Statistics) -> None:
        """Add another one's counts to these."""
        for name in _NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_NAMES = tuple(field.name for field in fields(Statistics))


class Counter:
    """Counts of one storage in one process, without a lock: each thread adds to numbers of its own.

    A copy that travels to another process by pickling or forking starts at zero, so that sums over processes are right.

    Example:
        >>> counter = Counter()
        >>> counter.mine().reads += 1
        >>> counter.total().reads
        1
    """

    __slots__ = ("_by_thread", "_process")

    def __init__(self) -> None:
        self._process = os.getpid()
        self._by_thread: dict[int, Statistics] = {}

    def __reduce__(self) -> tuple[type[Counter], tuple[()]]:
        """A pickled counter arrives empty."""
        return Counter, ()

    def mine(self) -> Statistics:
        """Numbers of the calling thread, to be changed in place."""
        if self._process != os.getpid():
            self._process, self._by_thread = os.getpid(), {}
        held = self._by_thread.get(get_ident())
        if held is None:
            held = self._by_thread.setdefault(get_ident(), Statistics())
        return held

    def total(self) -> Statistics:
        """Sum over all threads of this process."""
        total = Statistics()
        if self._process == os.getpid():
            for part in tuple(self._by_thread.values()):
                total.include(part)
        return total
