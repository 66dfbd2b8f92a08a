"""A bounded part of a storage on this machine's disk."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

from neurotrain.storage.base import Storage, StorageError
from neurotrain.storage.disk_cache import DiskCache
from neurotrain.storage.layered import Check, LayeredStorage

_WHOLE_FOR_A_PART = 8 << 20
"""Largest object that is read and checked whole, where it is kept whole, to answer for a part of it."""


class CachedStorage(LayeredStorage):
    """Reads that were read before come from a folder on disk, as long as their object has the same etag.

    Any number of processes may share the folder, and any of them may be killed: see :class:`DiskCache`. Whole objects
    and single ranges are kept alike, so that members of tar shards that are read by range are entries of their own.
    Objects without an etag are read through and not kept.

    Args:
        storage: what is read through.
        folder: of the cache; one cache may serve several storages.
        max_bytes: of all files in the folder.
        check: ``"always"`` asks for an object's etag at each read that does not say it; ``"once"`` trusts the first
            answer for the life of the process.
        concurrency: reads at once in :meth:`read_many`.

    Raises:
        ValueError: if an argument is out of range or none of its choices.

    Example:
        >>> from neurotrain.storage import MemoryStorage
        >>> inner = MemoryStorage(name="cached")
        >>> _ = inner.write("a", b"123")
        >>> cached = CachedStorage(storage=inner, folder="cache", max_bytes=1 << 20)
        >>> [cached.read("a") for _ in range(3)] == [b"123"] * 3
        True
        >>> cached.statistics().cache_hits, cached.statistics().reads
        (2, 1)
    """

    def __init__(
        self,
        *,
        storage: Storage,
        folder: Path | str,
        max_bytes: int,
        check: Check = "always",
        concurrency: int = 16,
    ) -> None:
        super().__init__(storage=storage, check=check, concurrency=concurrency)
        self.cache = DiskCache(Path(folder), max_bytes=max_bytes)

    def _kept(self, key: str, start: int, length: int | None, etag: str) -> bytes | None:
        with self._errors():
            data = self.cache.get(self._name(key, start, length, etag))
            if data is not None or (start == 0 and length is None):
                return data
            whole = self.cache.get(self._name(key, 0, None, etag), most=_WHOLE_FOR_A_PART)
            return None if whole is None else whole[start : None if length is None else start + length]

    def _keep(self, key: str, start: int, length: int | None, etag: str, data: bytes) -> None:
        with self._errors():
            self.cache.put(self._name(key, start, length, etag), data)

    def _name(self, key: str, start: int, length: int | None, etag: str) -> str:
        return repr((self.identity, key, etag, start, length))

    @contextlib.contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"file://{self.cache.folder}", f"the cache: {error.strerror or error}") from None
