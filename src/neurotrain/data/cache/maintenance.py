"""What is done to a cache from outside a run: look, check, clean up."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neurotrain.data.cache.compaction import Removed, compact, least_used
from neurotrain.data.cache.folder import CacheFolder
from neurotrain.data.cache.index import Index
from neurotrain.data.cache.locks import exclusive, try_hold
from neurotrain.data.cache.manifest import load_manifest, manifests, save_manifest
from neurotrain.data.cache.recency import Recency
from neurotrain.data.cache.shard import CacheFormatError, MappedShard, ShardNames, read_header

SHARD_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class FolderStatistics:
    """What lies in a cache.

    Attributes:
        entries: keys.
        shards: files.
        nbytes: of the files.
        superseded: copies of entries of which a later one counts.
        layouts: number of entries by names, dtypes and shapes, the most frequent first.
        oldest: seconds since 1970 at which the first file was begun; None where there is none.
        newest: the same of the last file.
    """

    entries: int
    shards: int
    nbytes: int
    superseded: int
    layouts: dict[str, int]
    oldest: float | None
    newest: float | None


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What checking every byte of a cache found.

    Attributes:
        entries: sound entries.
        shards: files that were read.
        nbytes: of those.
        corrupt: file and key of entries without their checksum.
        refused: files that could not be read, and why.
        manifests: damaged manifests, and why; they cost time, not entries.
        unfinished: files that a killed process left, or that another one writes just now.
        repaired: whether what was damaged has been removed, so that it is made anew when it is next needed.
    """

    entries: int
    shards: int
    nbytes: int
    corrupt: tuple[tuple[str, str], ...] = ()
    refused: dict[str, str] = field(default_factory=dict[str, str])
    manifests: dict[str, str] = field(default_factory=dict[str, str])
    unfinished: tuple[str, ...] = ()
    repaired: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged; unfinished files are not damage."""
        return not (self.corrupt or self.refused or self.manifests)


@dataclass(frozen=True, kw_only=True)
class GcReport:
    """What a collection removed and left.

    Attributes:
        entries: left.
        nbytes: of the files left.
        freed: bytes of files fewer than before.
        removed: what was taken out.
        unfinished: leftovers of killed processes that were removed.
        refused: unreadable files that were removed.
    """

    entries: int
    nbytes: int
    freed: int
    removed: Removed
    unfinished: int
    refused: int


def stats(folder: Path | str) -> FolderStatistics:
    """Count what lies in a cache, without reading entries.

    Raises:
        FileNotFoundError: if the folder is no cache.
    """
    index = CacheFolder(folder).load()
    layouts: dict[str, int] = {}
    counts = np.bincount(index.columns["spec"], minlength=len(index.specs))
    for number in np.argsort(-counts, kind="stable"):
        if counts[number]:
            tensors = (f"{name} {code} {list(shape)}" for name, code, shape in index.specs[number].tensors)
            layouts[", ".join(tensors)] = int(counts[number])
    times = [shard.written / 1e9 for shard in index.shards]
    return FolderStatistics(
        entries=len(index),
        shards=len(index.shards),
        nbytes=index.nbytes,
        superseded=sum(shard.entries for shard in index.shards) - len(index),
        layouts=layouts,
        oldest=min(times, default=None),
        newest=max(times, default=None),
    )


def verify(folder: Path | str, *, repair: bool = False) -> VerifyReport:
    """Read every byte of a cache and compare every checksum; headers are read from the files, not from a manifest.

    Args:
        folder: of the cache.
        repair: remove what is damaged.

    Raises:
        FileNotFoundError: if the folder is no cache.
    """
    opened = CacheFolder(folder)
    damaged = _damaged_manifests(opened.path)
    sound = shards = nbytes = 0
    corrupt: list[tuple[str, str]] = []
    refused: dict[str, str] = {}
    for name in sorted(opened.scan()):
        try:
            info, entries = read_header(opened.shards, name)
            mapped = MappedShard(opened.shards, info)
        except FileNotFoundError:  # collected by another process since
            continue
        except CacheFormatError as error:
            refused[name] = str(error)
            continue
        bad = [entry for entry in entries if not mapped.is_sound(entry)]
        corrupt.extend((name, entry.key.hex()) for entry in bad)
        shards, nbytes, sound = shards + 1, nbytes + info.nbytes, sound + len(entries) - len(bad)
    if repair and (corrupt or refused or damaged):
        _repair(opened, corrupt, damaged)
    return VerifyReport(
        entries=sound,
        shards=shards,
        nbytes=nbytes,
        corrupt=tuple(corrupt),
        refused=refused,
        manifests=damaged,
        unfinished=tuple(path.name for path in opened.unfinished()),
        repaired=repair,
    )


def gc(
    folder: Path | str,
    *,
    max_bytes: int | None = None,
    live_keys: Collection[bytes] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> GcReport:
    """Remove what nobody needs: leftovers of killed processes, unreadable files, second copies, entries without a use.

    Small files are joined, and a manifest is written. Other processes may read and write meanwhile.

    Args:
        folder: of the cache.
        max_bytes: evict the least recently used entries until the files have no more bytes; use is recorded by caches
            that are opened with a budget, otherwise the time of writing counts. None: no limit.
        live_keys: keep these entries only, for instance :meth:`LatentCache.live_keys`; None: all.
        shard_bytes: size up to which files are filled.

    Raises:
        FileNotFoundError: if the folder is no cache.
        ValueError: if ``max_bytes`` is negative.
    """
    if max_bytes is not None and max_bytes < 0:
        raise ValueError(f"max_bytes={max_bytes}: must be at least 0")
    opened = CacheFolder(folder)
    with exclusive(opened.lock):
        index = opened.load()
        before = sum(opened.scan().values())
        unfinished, refused = _remove_unfinished(opened), opened.remove_refused()
        stays = np.ones(len(index), np.bool_) if live_keys is None else index.rows_of(live_keys)
        recency = Recency(opened.path, create=False)
        if max_bytes is not None:
            stays = least_used(index, stays, target=max_bytes, recency=recency)
        names = ShardNames(max((shard.written for shard in index.shards), default=0))
        index, removed = compact(
            opened, index, stays, names=names, recency=recency, shard_bytes=shard_bytes, merge=True
        )
        save_manifest(opened.path, index)
    return GcReport(
        entries=len(index),
        nbytes=index.nbytes,
        freed=before - index.nbytes,
        removed=removed,
        unfinished=unfinished,
        refused=refused,
    )


def _damaged_manifests(folder: Path) -> dict[str, str]:
    damaged: dict[str, str] = {}
    for path in manifests(folder):
        try:
            load_manifest(path)
        except CacheFormatError as error:
            damaged[path.name] = str(error)
        except FileNotFoundError:  # superseded since
            continue
    return damaged


def _repair(opened: CacheFolder, corrupt: list[tuple[str, str]], damaged: Collection[str]) -> None:
    with exclusive(opened.lock):
        for name in damaged:
            (opened.path / name).unlink(missing_ok=True)
        index = opened.update(Index())
        opened.remove_refused()
        bad = {(name, bytes.fromhex(key)) for name, key in corrupt}
        stays = np.ones(len(index), np.bool_)
        for _, key in bad:
            row = index.find(key)
            if row >= 0 and (index.shards[index.shard[row]].name, key) in bad:
                stays[row] = False
        names = ShardNames(max((shard.written for shard in index.shards), default=0))
        recency = Recency(opened.path, create=False)
        index, _ = compact(opened, index, stays, names=names, recency=recency, shard_bytes=SHARD_BYTES)
        save_manifest(opened.path, index)


def _remove_unfinished(opened: CacheFolder) -> int:
    """Delete unfinished files that no living process holds."""
    removed = 0
    for path in opened.unfinished():
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:  # finished since
            continue
        try:
            if try_hold(descriptor):
                path.unlink(missing_ok=True)
                removed += 1
        finally:
            os.close(descriptor)
    return removed
