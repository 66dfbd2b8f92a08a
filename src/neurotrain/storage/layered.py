"""What storages in front of another storage share."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from neurotrain.storage.base import ChangedError, ObjectInfo, Storage, StorageError
from neurotrain.storage.keys import check_range
from neurotrain.storage.statistics import Counter, Statistics

Check = Literal["always", "once"]
Item = TypeVar("Item")
Result = TypeVar("Result")


class LayeredStorage(Storage):
    """A storage that answers reads from something faster where it can; everything else is the inner one's.

    What is kept belongs to one etag, so that nothing stale is ever returned for a known one. A read that does not say
    which etag it expects asks the inner storage: each time, or once for each object and process.

    Args:
        storage: what is read through.
        check: ``"always"`` asks for an object's etag at each read that does not say it; ``"once"`` trusts the first
            answer for the life of the process.
        concurrency: reads at once in :meth:`read_many`.

    Raises:
        ValueError: if an argument is none of its choices.
    """

    def __init__(self, *, storage: Storage, check: Check, concurrency: int) -> None:
        if check not in ("always", "once"):
            raise ValueError(f"check={check!r}: 'always' or 'once'")
        if concurrency < 1:
            raise ValueError(f"concurrency={concurrency}: at least 1")
        self.storage = storage
        self.check = check
        self.concurrency = concurrency
        self._counter = Counter()
        self._etags: dict[str, str] = {}

    @property
    def uri(self) -> str:
        """The inner storage's."""
        return self.storage.uri

    @property
    def identity(self) -> str:
        """The inner storage's."""
        return self.storage.identity

    def uri_of(self, key: str) -> str:
        """The inner storage's."""
        return self.storage.uri_of(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Ask the inner storage."""
        yield from self.storage.list(prefix)

    def stat(self, key: str) -> ObjectInfo:
        """Ask the inner storage."""
        return self.storage.stat(key)

    def write(self, key: str, data: bytes | Path) -> ObjectInfo:
        """Write to the inner storage; what is kept of the earlier object has another etag."""
        self._etags.pop(key, None)
        return self.storage.write(key, data)

    def delete(self, key: str) -> None:
        """Delete from the inner storage."""
        self._etags.pop(key, None)
        self.storage.delete(key)

    def read(self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None) -> bytes:
        """Read an object, or a part of it: see :meth:`Storage.read`."""
        check_range(start, length)
        known = etag or self._etags.get(key) or self.storage.stat(key).etag
        mine = self._counter.mine()
        if known is not None and length != 0:
            if self.check == "once":
                self._etags[key] = known
            data = self._kept(key, start, length, known)
            if data is not None:
                mine.cache_hits += 1
                return data
        mine.cache_misses += 1
        return self._read_through(key, start, length, expected=etag, known=known)

    def _read_through(
        self, key: str, start: int, length: int | None, *, expected: str | None, known: str | None
    ) -> bytes:
        """Read and keep; ``expected`` is what the caller insists on, ``known`` what is believed."""
        try:
            data = self.storage.read(key, start=start, length=length, etag=known)
        except ChangedError:
            if expected is not None:
                raise
            info, data = self.storage.fetch(key, start=start, length=length)
            known = info.etag
            self._etags.pop(key, None)
        if known is not None:  # without, nothing would tell later whether what is kept is still right
            self._keep(key, start, length, known, data)
        return data

    def read_many(self, keys: Iterable[str]) -> Iterator[bytes | StorageError]:
        """Read several objects at once, in order; ``concurrency`` at most, those not yet taken included."""
        yield from in_order(self._read_or_error, keys, concurrency=self.concurrency)

    def _read_or_error(self, key: str) -> bytes | StorageError:
        try:
            return self.read(key)
        except StorageError as error:
            return error

    def statistics(self) -> Statistics:
        """What this layer and the inner storage did in this process; reads and bytes are the inner storage's."""
        return self._counter.total() + self.storage.statistics()

    def download(self, key: str, path: Path, *, part_bytes: int = 16 << 20) -> ObjectInfo:
        """Ask the inner storage: what is a file of its own needs no second copy."""
        return self.storage.download(key, path, part_bytes=part_bytes)

    def __getstate__(self) -> dict[str, Any]:
        """Settings, without what this process was told of objects."""
        return {**self.__dict__, "_etags": {}}

    def close(self) -> None:
        """Close the inner storage's connections."""
        self.storage.close()

    @abstractmethod
    def _kept(self, key: str, start: int, length: int | None, etag: str) -> bytes | None:
        """What is kept of an object; None where nothing is."""

    @abstractmethod
    def _keep(self, key: str, start: int, length: int | None, etag: str, data: bytes) -> None:
        """Keep what was read, if there is room."""


def in_order(function: Callable[[Item], Result], items: Iterable[Item], *, concurrency: int) -> Iterator[Result]:
    """Call a function on each item, several at once in threads, and yield the results in the order of the items.

    Args:
        function: called in threads.
        items: consumed only as fast as the results are taken.
        concurrency: calls under way, or results waiting to be taken.

    Example:
        >>> list(in_order(str.upper, "abc", concurrency=2))
        ['A', 'B', 'C']
    """
    coming, waiting = iter(items), deque[Future[Result]]()
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="neurotrain-read")
    try:
        while True:
            waiting.extend(pool.submit(function, item) for item in islice(coming, concurrency - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
