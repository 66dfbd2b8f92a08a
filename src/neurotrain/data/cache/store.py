"""A content-addressed store of tensors on disk: what is there is right, or it is not there."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurotrain.data.cache.compaction import compact, entry_cost, least_used
from neurotrain.data.cache.folder import CacheFolder
from neurotrain.data.cache.index import Index
from neurotrain.data.cache.keys import KEY_BYTES
from neurotrain.data.cache.layout import EntrySpec, checksum, pack, unpack
from neurotrain.data.cache.locks import exclusive
from neurotrain.data.cache.manifest import save_manifest
from neurotrain.data.cache.recency import Recency
from neurotrain.data.cache.shard import (
    CacheFormatError,
    CacheFullError,
    Entry,
    MappedShard,
    ShardNames,
    write_shard,
)

log = logging.getLogger(__name__)

LOW_WATER = 0.9
"""Share of the budget that eviction goes down to, so that not every write evicts."""

SHARDS_PER_BUDGET = 8
"""A file is at most this part of the budget: eviction in larger lumps would empty small caches."""

WORTH_A_MANIFEST = 16
"""Files without a manifest that :meth:`TensorCache.close` leaves behind, at most."""


@dataclass
class CacheStatistics:
    """What one cache object did in this process.

    Attributes:
        hits: entries found.
        misses: entries asked for and not found.
        corrupt: entries that did not have their checksum; each is also a miss.
        stored: entries written.
        evicted: entries removed to keep to the budget.
        bytes_read: of entries found.
        bytes_written: of entries written.
        seconds_writing: spent on writing and evicting.
    """

    hits: int = 0
    misses: int = 0
    corrupt: int = 0
    stored: int = 0
    evicted: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    seconds_writing: float = 0.0


class TensorCache:
    """Dictionaries of tensors by key, shared by any number of processes.

    Entries are gathered in memory and written as one safetensors file at a time, which appears under its name complete
    or not at all; a killed process loses what it had not written. Any process may read, write and evict at any time.
    Every entry has a checksum, which is compared when a process first touches it: a damaged one is a miss, and what is
    stored in its place counts from then on.

    Pickled, it opens the same folder anew. After ``fork`` a child reads on, and writes files of its own.

    Args:
        folder: created where absent; must be empty or a cache.
        max_bytes: budget for the files of ``shards/`` (a manifest of about 40 bytes an entry comes on top); the least
            recently used entries are evicted to keep to it, and use is recorded. None: no limit, nothing is recorded.
        shard_bytes: size of a file; an eighth of ``max_bytes`` where that is less.
        flush_seconds: longest time that a stored entry waits for its file to fill up.

    Raises:
        CacheFormatError: if the folder holds something else.
        ValueError: if a number is not positive.

    Example:
        >>> cache = TensorCache(folder="latents")
        >>> cache.put(bytes(16), {"mean": torch.zeros(4, 8, 8)})
        >>> cache.flush()
        >>> TensorCache(folder="latents").get(bytes(16))["mean"].shape
        torch.Size([4, 8, 8])
    """

    def __init__(
        self,
        *,
        folder: Path | str,
        max_bytes: int | None = None,
        shard_bytes: int = 64 * 2**20,
        flush_seconds: float = 30.0,
    ) -> None:
        for name, value in (("max_bytes", max_bytes), ("shard_bytes", shard_bytes), ("flush_seconds", flush_seconds)):
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value}: must be above 0")
        self.path = Path(folder).absolute()
        self.max_bytes = max_bytes
        self.shard_bytes = shard_bytes
        self.flush_seconds = flush_seconds
        self.statistics = CacheStatistics()
        self._folder = CacheFolder(self.path, create=True)
        self._recency = Recency(self.path, create=True) if max_bytes is not None else None
        self._maps: dict[str, MappedShard] = {}
        self._index = self._folder.load()
        self._begin()
        _OPEN.add(self)

    def __len__(self) -> int:
        """Entries on disk, as far as this process knows."""
        return len(self._index)

    def __contains__(self, key: bytes) -> bool:
        """Whether there is an entry; its bytes are not looked at."""
        return self._find(key) >= 0 or key in self._pending

    def __enter__(self) -> TensorCache:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """What the constructor was given: a copy elsewhere opens the folder anew."""
        names = ("max_bytes", "shard_bytes", "flush_seconds")
        return {"folder": self.path, **{name: self.__dict__[name] for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the folder."""
        TensorCache.__init__(self, **state)

    @property
    def pending(self) -> int:
        """Entries that wait to be written."""
        return len(self._pending)

    def is_waiting(self, key: bytes) -> bool:
        """Whether an entry waits to be written."""
        return key in self._pending

    @property
    def nbytes(self) -> int:
        """Bytes of the files, as far as this process knows."""
        return self._index.nbytes

    @property
    def folder(self) -> CacheFolder:
        """Where the files are."""
        return self._folder

    def keys(self) -> Iterator[bytes]:
        """Keys on disk, in order."""
        index = self._index
        return (index.key(row) for row in range(len(index)))

    def get(self, key: bytes, *, copy: bool = True) -> dict[str, Tensor] | None:
        """An entry, or None where there is none that is sound.

        Args:
            key: 16 bytes.
            copy: own memory. Without it the tensors are views of the mapped file: half the time, but whoever writes
                into one changes what this process reads there from then on (the file stays as it is).
        """
        index = self._index
        row = index.find(key)
        if row < 0:
            row = self._find(key)
            if row < 0:
                return self._waiting(key, copy=copy)
            index = self._index
        found = self._read(index, row, key)
        if found is None:
            self.statistics.misses += 1
            return None
        self.statistics.hits += 1
        return {name: tensor.clone() for name, tensor in found.items()} if copy else found

    def put(self, key: bytes, tensors: Mapping[str, Tensor]) -> None:
        """Store an entry; it is written with others, see :meth:`flush`. One that is there already is replaced.

        Args:
            key: 16 bytes.
            tensors: at least one, on any device; names of letters, digits, ``_``, ``.`` and ``-``.

        Raises:
            CacheFullError: if there is no room for what waited; see :meth:`flush`.
            ValueError: if the key or a tensor cannot be stored.
        """
        if len(key) != KEY_BYTES:
            raise ValueError(f"key={key!r}: {KEY_BYTES} bytes")
        spec = EntrySpec.of(tensors)
        payload = pack(spec, tensors)
        with self._lock:
            self._pending[key] = Entry(key, spec, checksum(key, spec, payload), payload)
            self._pending_bytes += spec.nbytes
            _UNWRITTEN.add(self)
            self._oldest = self._oldest or time.monotonic()
            full = self._pending_bytes >= self._shard_bytes
            if full or time.monotonic() - self._oldest > self.flush_seconds:
                self.flush()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            CacheFullError: if there is no room on the disk or in the budget. What waited is given up, what was stored
                before is kept, and later entries are tried again.
        """
        with self._lock:
            entries = list(self._pending.values())
            self._pending.clear()
            self._pending_bytes, self._oldest = 0, 0.0
            _UNWRITTEN.discard(self)
            if not entries:
                return
            started = time.perf_counter()
            try:
                with exclusive(self._folder.lock) if self.max_bytes is not None else nullcontext():
                    self._write(entries)
            finally:
                self.statistics.seconds_writing += time.perf_counter() - started

    def refresh(self) -> None:
        """See what other processes have stored or removed."""
        with self._lock:
            self._index = self._folder.update(self._index)
            self._names.last = max([self._names.last, *(shard.written for shard in self._index.shards)])
            for name in self._maps.keys() - self._index.names:
                del self._maps[name]

    def close(self) -> None:
        """Write what waits, and a manifest where many files have none."""
        self.flush()
        with self._lock:
            if len(self._index.names - self._listed) >= WORTH_A_MANIFEST:
                self.write_manifest()
            self._maps.clear()

    def write_manifest(self) -> None:
        """Gather the headers of all files, so that the next process opens the cache at once."""
        with self._lock, exclusive(self._folder.lock, wait=False) as held:
            if not held:
                return
            self.refresh()
            try:
                save_manifest(self.path, self._index)
            except OSError as error:
                log.warning("%s: no manifest was written, opening takes longer: %s", self.path, error)
                return
            self._listed = self._index.names

    def _begin(self) -> None:
        """The state of one process."""
        self._lock = threading.RLock()
        self._pending: dict[bytes, Entry] = {}
        self._pending_bytes, self._oldest = 0, 0.0
        self._names = ShardNames(max((shard.written for shard in self._index.shards), default=0))
        self._listed = self._index.names
        limit = self.shard_bytes if self.max_bytes is None else self.max_bytes // SHARDS_PER_BUDGET
        self._shard_bytes = min(self.shard_bytes, limit)

    def after_fork(self) -> None:
        """Begin anew in a child: what waits is the parent's to write, and its lock may be held by a lost thread."""
        self._begin()
        self.statistics = CacheStatistics()

    def _find(self, key: bytes) -> int:
        row = self._index.find(key)
        if row < 0 and self._folder.has_changed():
            self.refresh()
            row = self._index.find(key)
        return row

    def _read(self, index: Index, row: int, key: bytes) -> dict[str, Tensor] | None:
        info = index.shards[index.shard[row]]
        mapped = self._maps.get(info.name)
        if mapped is None:
            try:
                mapped = self._maps[info.name] = MappedShard(self._folder.shards, info)
            except (FileNotFoundError, CacheFormatError):  # collected or rewritten by another process
                return self._moved(key)
        spec = index.specs[index.spec[row]]
        if not index.is_checked[row]:
            if not mapped.is_sound(index.located(row)):
                return self._damaged(key, info.name)
            index.is_checked[row] = True
        if self._recency is not None:
            self._recency.touch(key)
        self.statistics.bytes_read += spec.nbytes
        return mapped.tensors(spec, index.start[row])

    def _moved(self, key: bytes) -> dict[str, Tensor] | None:
        before = self._index.names
        self.refresh()
        row = self._index.find(key)
        return None if row < 0 or self._index.names == before else self._read(self._index, row, key)

    def _damaged(self, key: bytes, shard: str) -> None:
        log.warning("%s: entry %s in %s is damaged and counts as missing", self.path, key.hex(), shard)
        self.statistics.corrupt += 1
        with self._lock:
            stays = ~self._index.rows_of([key])
            self._index = self._index.keeping(stays)

    def _waiting(self, key: bytes, *, copy: bool) -> dict[str, Tensor] | None:
        entry = self._pending.get(key)
        if entry is None:
            self.statistics.misses += 1
            return None
        self.statistics.hits += 1
        self.statistics.bytes_read += entry.spec.nbytes
        raw = torch.frombuffer(entry.payload, dtype=torch.uint8)
        # Views too: an entry's bytes are never written again, and live as long as a view does.
        found = unpack(entry.spec, {place.dtype: raw.view(place.dtype) for place in entry.spec.places}, 0)
        return {name: tensor.clone() for name, tensor in found.items()} if copy else found

    def _write(self, entries: list[Entry]) -> None:
        self.refresh()
        if self.max_bytes is not None:
            self._make_room(entries)
        info, located = write_shard(self._folder.shards, self._names.next(), entries)
        self._index = self._index.with_shards([(info, located)])
        if self._recency is not None:
            for entry in entries:
                self._recency.touch(entry.key)
        self.statistics.stored += len(entries)
        self.statistics.bytes_written += info.nbytes

    def _make_room(self, entries: list[Entry]) -> None:
        """Evict what was used least, so that these fit; the folder's lock is held."""
        assert self.max_bytes is not None
        assert self._recency is not None
        need = sum(entry_cost(entry.spec) for entry in entries)
        if need > self.max_bytes:
            raise CacheFullError(errno.ENOSPC, f"{need} bytes do not fit max_bytes={self.max_bytes} of {self.path}")
        self._folder.remove_refused()
        if self._index.nbytes + need <= self.max_bytes:
            return
        index, target = self._index, max(0, int(self.max_bytes * LOW_WATER) - need)
        stays = least_used(index, np.ones(len(index), np.bool_), target=target, recency=self._recency)
        self._index, removed = compact(
            self._folder,
            index,
            stays,
            names=self._names,
            recency=self._recency,
            target=target,
            shard_bytes=self._shard_bytes,
        )
        self.statistics.evicted += removed.entries


_OPEN: weakref.WeakSet[TensorCache] = weakref.WeakSet()
_UNWRITTEN: set[TensorCache] = set()
"""Keeps caches alive whose entries wait, until they are written, at the latest when Python ends."""


def _after_fork() -> None:
    _UNWRITTEN.clear()
    for cache in list(_OPEN):
        cache.after_fork()


def _at_exit() -> None:
    for cache in list(_UNWRITTEN):
        try:
            cache.flush()
        except OSError as error:  # no room, or the folder has been removed: nothing can be done for it any more
            log.warning("entries that waited are not stored: %s", error)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
