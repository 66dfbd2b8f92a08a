"""A bounded part of a storage in this process's memory."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from neurotrain.storage.base import Storage
from neurotrain.storage.layered import Check, LayeredStorage, in_order


class _Entry(NamedTuple):
    etag: str
    data: bytes


class MemoryTier(LayeredStorage):
    """Reads that were read before come from memory, as long as their object has the same etag.

    What a process holds when it forks is shared with its children until they add to it: preload before the workers
    start, and they all read the same memory. A pickled tier arrives empty.

    Args:
        storage: what is read through: a remote storage, or a :class:`CachedStorage` in front of one.
        max_bytes: of the data held.
        policy: ``"lru"`` gives up what was not used for longest; ``"keep"`` holds what came first and reads the rest
            through, which is better where every epoch reads everything and not all of it fits.
        check: ``"always"`` asks for an object's etag at each read that does not say it; ``"once"`` trusts the first
            answer for the life of the process.
        concurrency: reads at once in :meth:`read_many` and :meth:`preload`.

    Raises:
        ValueError: if an argument is out of range or none of its choices.

    Example:
        >>> from neurotrain.storage import MemoryStorage
        >>> inner = MemoryStorage(name="tier")
        >>> etag = inner.write("a", b"123").etag
        >>> tier = MemoryTier(storage=inner, max_bytes=1000)
        >>> [tier.read("a", etag=etag) for _ in range(3)] == [b"123"] * 3
        True
        >>> tier.statistics().cache_hits, tier.statistics().reads
        (2, 1)
    """

    def __init__(
        self,
        *,
        storage: Storage,
        max_bytes: int,
        policy: Literal["lru", "keep"] = "lru",
        check: Check = "always",
        concurrency: int = 16,
    ) -> None:
        super().__init__(storage=storage, check=check, concurrency=concurrency)
        if max_bytes < 1:
            raise ValueError(f"max_bytes={max_bytes}: at least 1")
        if policy not in ("lru", "keep"):
            raise ValueError(f"policy={policy!r}: 'lru' or 'keep'")
        self.max_bytes = max_bytes
        self.policy = policy
        self._reset()

    def preload(self, keys: Iterable[str]) -> int:
        """Read objects into memory, in their order, until they are all there or the next one does not fit.

        Args:
            keys: which.

        Returns:
            How many were loaded. Objects without an etag can't be kept, and are not counted.

        Raises:
            StorageError: if one cannot be read.
        """
        loaded = 0
        for info, data in in_order(self.storage.fetch, keys, concurrency=self.concurrency):
            if self._bytes + len(data) > self.max_bytes:
                break
            if info.etag is not None:
                self._keep(info.key, 0, None, info.etag, data)
                loaded += 1
        return loaded

    @property
    def bytes_held(self) -> int:
        """Bytes of the data held in this process."""
        return self._bytes

    def _kept(self, key: str, start: int, length: int | None, etag: str) -> bytes | None:
        place = (key, start, length)
        with self._own_lock():
            entry = self._held.get(place)
            if entry is None or entry.etag != etag:
                return None
            self._held.move_to_end(place)
            return entry.data

    def _keep(self, key: str, start: int, length: int | None, etag: str, data: bytes) -> None:
        place = (key, start, length)
        with self._own_lock():
            earlier = self._held.pop(place, None)
            self._bytes -= len(earlier.data) if earlier is not None else 0
            room = self.max_bytes - len(data)
            if room < 0 or (self.policy == "keep" and self._bytes > room):
                return
            while self._bytes > room:
                _, given_up = self._held.popitem(last=False)
                self._bytes -= len(given_up.data)
            self._held[place] = _Entry(etag, data)
            self._bytes += len(data)

    def _own_lock(self) -> threading.Lock:
        if self._process != os.getpid():  # a thread of the parent may have held it in the moment of the fork
            self._process, self._lock = os.getpid(), threading.Lock()
        return self._lock

    def _reset(self) -> None:
        self._process, self._lock = os.getpid(), threading.Lock()
        self._held: OrderedDict[tuple[str, int, int | None], _Entry] = OrderedDict()
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Settings without data."""
        left_out = ("_held", "_bytes", "_lock", "_process")
        return {name: value for name, value in super().__getstate__().items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start empty."""
        for name, value in state.items():
            setattr(self, name, value)
        self._reset()
