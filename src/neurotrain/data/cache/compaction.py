"""Taking entries out: files are never changed, so what stays of one is written to a new one first."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.cache.folder import CacheFolder
from neurotrain.data.cache.index import Index
from neurotrain.data.cache.layout import EntrySpec
from neurotrain.data.cache.recency import Recency
from neurotrain.data.cache.shard import Entry, MappedShard, ShardInfo, ShardNames, write_shard

log = logging.getLogger(__name__)

_HEADER_PER_TENSOR, _HEADER_PER_ENTRY = 200, 160
"""Bytes that describe a tensor or an entry in a file's header, at most."""


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What a compaction took out.

    Attributes:
        entries: that were evicted, or not wanted any more.
        corrupt: whose bytes did not have their checksum.
        superseded: of which a later copy is kept.
        shards: files removed.
        written: files written in their place.
    """

    entries: int = 0
    corrupt: int = 0
    superseded: int = 0
    shards: int = 0
    written: int = 0


def entry_cost(spec: EntrySpec) -> int:
    """Bytes of a file that an entry takes, at most: its own and those of its description."""
    return spec.nbytes + _HEADER_PER_ENTRY + _HEADER_PER_TENSOR * len(spec.tensors)


def least_used(index: Index, wanted: NDArray[np.bool_], *, target: int, recency: Recency) -> NDArray[np.bool_]:
    """Which of the wanted entries may stay within ``target`` bytes: those that were used last."""
    cost = np.where(wanted, np.array([entry_cost(s) for s in index.specs] or [0])[index.columns["spec"]], 0)
    written = np.array([shard.written for shard in index.shards] or [0], np.int64)[index.columns["shard"]]
    when = recency.last_use(index.columns["high"], written)
    # Files are read front to back, so the start breaks ties of entries written together and not used since.
    latest_first = np.lexsort((index.columns["start"], written, when))[::-1]
    fits = np.empty(len(index), np.bool_)
    fits[latest_first] = np.cumsum(cost[latest_first]) <= target
    return wanted & fits


def compact(
    folder: CacheFolder,
    index: Index,
    stays: NDArray[np.bool_],
    *,
    names: ShardNames,
    recency: Recency,
    target: int | None = None,
    shard_bytes: int,
    merge: bool = False,
) -> tuple[Index, Removed]:
    """Remove every entry that does not stay; the caller holds the folder's lock.

    A file without entries that stay is removed, others are rewritten. Killed in between, a cache holds some entries
    twice, of which the later counts.

    Args:
        folder: of the cache.
        index: what is there now.
        stays: one flag a row of ``index``.
        names: for new files.
        recency: keeps the entries' times when they move.
        target: stop as soon as the files have no more bytes than this, entries of little-used files first; None: all.
        shard_bytes: size up to which files are filled.
        merge: also join files of less than a quarter of ``shard_bytes``.

    Returns:
        What is there afterwards, and what was removed.
    """
    left = _to_rewrite(index, stays, join_below=shard_bytes // 4 if merge else 0, emptiest_first=target is not None)
    known = np.bincount(index.columns["shard"], minlength=len(index.shards))
    removed, total = Removed(), index.nbytes
    while left and (target is None or total > target):
        batch = _batch(left, index, stays, shard_bytes=shard_bytes if target is None else 0)
        left = left[len(batch) :]
        entries, written, corrupt = _rewrite(folder, index, stays, batch, names=names, recency=recency)
        gone = [index.shards[n] for n in batch]
        total += written - sum(shard.nbytes for shard in gone)
        for shard in gone:
            (folder.shards / shard.name).unlink(missing_ok=True)
        removed = replace(
            removed,
            entries=removed.entries + int(known[batch].sum()) - entries - corrupt,
            corrupt=removed.corrupt + corrupt,
            superseded=removed.superseded + sum(shard.entries for shard in gone) - int(known[batch].sum()),
            shards=removed.shards + len(batch),
            written=removed.written + (written > 0),
        )
    return folder.update(index), removed


def _to_rewrite(index: Index, stays: NDArray[np.bool_], *, join_below: int, emptiest_first: bool) -> list[int]:
    """Files with something that goes, and small ones where there is another to join them."""
    staying = np.bincount(index.columns["shard"][stays], minlength=len(index.shards))
    shares = [int(staying[number]) / shard.entries for number, shard in enumerate(index.shards)]
    chosen = [number for number, share in enumerate(shares) if share < 1]
    small = [n for n, shard in enumerate(index.shards) if shares[n] == 1 and shard.nbytes < join_below]
    if len(small) > 1 or chosen:
        chosen += small
    return sorted(chosen, key=lambda number: shares[number]) if emptiest_first else chosen


def _batch(numbers: Sequence[int], index: Index, stays: NDArray[np.bool_], *, shard_bytes: int) -> list[int]:
    """The first files whose staying entries fit one new file together; at least one."""
    sizes = np.bincount(
        index.columns["shard"][stays], weights=index.sizes()[stays].astype(np.float64), minlength=len(index.shards)
    )
    batch: list[int] = []
    filled = 0.0
    for number in numbers:
        if batch and filled + sizes[number] > shard_bytes:
            break
        batch.append(number)
        filled += sizes[number]
    return batch


def _rewrite(
    folder: CacheFolder,
    index: Index,
    stays: NDArray[np.bool_],
    batch: Sequence[int],
    *,
    names: ShardNames,
    recency: Recency,
) -> tuple[int, int, int]:
    """Copy what stays of some files into one; returns entries copied, bytes written, corrupt entries left out."""
    rows = np.flatnonzero(stays & np.isin(index.columns["shard"], batch))
    rows = rows[np.lexsort((index.columns["start"][rows], index.columns["shard"][rows]))]
    written = np.array([index.shards[n].written for n in index.columns["shard"][rows]], np.int64)
    high = index.columns["high"][rows]
    when = recency.last_use(high, written)
    entries = list(_sound(folder, index, [int(row) for row in rows]))
    if not entries:
        return 0, 0, len(rows)
    info, _ = write_shard(folder.shards, names.next(), entries)
    recency.touch_at(high, when)
    return len(entries), info.nbytes, len(rows) - len(entries)


def _sound(folder: CacheFolder, index: Index, rows: Sequence[int]) -> Iterator[Entry]:
    mapped: tuple[ShardInfo, MappedShard] | None = None
    for row in rows:
        info = index.shards[index.shard[row]]
        if mapped is None or mapped[0] != info:
            mapped = info, MappedShard(folder.shards, info)
        entry = index.located(row)
        if mapped[1].is_sound(entry):
            yield Entry(entry.key, entry.spec, entry.checksum, mapped[1].payload(entry.spec, entry.start))
        else:
            log.warning("%s: entry %s in %s is damaged and removed", folder.path, entry.key.hex(), info.name)
