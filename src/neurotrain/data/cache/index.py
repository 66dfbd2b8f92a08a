"""Where every entry lies: sorted columns, one row an entry, that are never changed in place."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.cache.layout import ALIGNMENT, EntrySpec
from neurotrain.data.cache.shard import Located, ShardInfo

COLUMNS: Mapping[str, Any] = {
    "high": np.uint64,
    "low": np.uint64,
    "shard": np.uint32,
    "spec": np.uint32,
    "start": np.uint64,
    "checksum": np.uint32,
}
"""A key's two halves, which file, which layout, where in the file, which checksum."""

_NOTHING: Mapping[str, NDArray[Any]] = {name: np.empty(0, dtype) for name, dtype in COLUMNS.items()}


class Index:
    """Entries of some files, each key once; where two files hold a key, the later file counts.

    Args:
        shards: the files, as the column ``shard`` counts them.
        specs: the layouts, as the column ``spec`` counts them.
        columns: those of :data:`COLUMNS`, sorted by key, no key twice.
        checked: bool: whose bytes have met their checksum in this process; None: nobody's.
    """

    def __init__(
        self,
        *,
        shards: Sequence[ShardInfo] = (),
        specs: Sequence[EntrySpec] = (),
        columns: Mapping[str, NDArray[Any]] | None = None,
        checked: NDArray[np.bool_] | None = None,
    ) -> None:
        self.shards = tuple(shards)
        self.specs = tuple(specs)
        self.columns: Mapping[str, NDArray[Any]] = columns if columns is not None else _NOTHING
        self.checked = np.zeros(len(self), np.bool_) if checked is None else checked
        # Elements of a memoryview are plain numbers, and come three times as fast as those of an array.
        views = {name: _view(column) for name, column in self.columns.items()}
        self._high, self._low = views["high"], views["low"]
        self.shard, self.spec = views["shard"], views["spec"]
        self.start, self.checksum = views["start"], views["checksum"]
        self.is_checked = _view(self.checked)

    def __len__(self) -> int:
        """Number of entries."""
        return len(self.columns["high"])

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the files."""
        return frozenset(shard.name for shard in self.shards)

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(shard.nbytes for shard in self.shards)

    def find(self, key: bytes) -> int:
        """Row of a key; -1 where it has none."""
        high, low = int.from_bytes(key[:8]), int.from_bytes(key[8:])
        highs = self._high
        row = bisect_left(highs, high)
        while row < len(highs) and highs[row] == high:
            if self._low[row] == low:
                return row
            row += 1
        return -1

    def key(self, row: int) -> bytes:
        """Key of a row."""
        return self._high[row].to_bytes(8) + self._low[row].to_bytes(8)

    def located(self, row: int) -> Located:
        """Everything about a row."""
        return Located(self.key(row), self.specs[self.spec[row]], self.checksum[row], self.start[row])

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of every entry."""
        return np.array([spec.nbytes for spec in self.specs] or [0], np.int64)[self.columns["spec"]]

    def rows_of(self, keys: Iterable[bytes]) -> NDArray[np.bool_]:
        """Which rows have one of these keys."""
        chosen = np.zeros(len(self), np.bool_)
        for key in keys:
            row = self.find(key)
            if row >= 0:
                chosen[row] = True
        return chosen

    def with_shards(self, added: Sequence[tuple[ShardInfo, Sequence[Located]]]) -> Index:
        """These entries and those of more files."""
        if not added:
            return self
        specs, numbers = list(self.specs), {spec: number for number, spec in enumerate(self.specs)}
        rows: list[tuple[int, ...]] = []
        for number, (_, entries) in enumerate(added, start=len(self.shards)):
            for key, spec, checksum, start in entries:
                if spec not in numbers:
                    numbers[spec] = len(specs)
                    specs.append(spec)
                rows.append((int.from_bytes(key[:8]), int.from_bytes(key[8:]), number, numbers[spec], start, checksum))
        shards = [*self.shards, *(info for info, _ in added)]
        fresh = {
            name: np.array(values, dtype)
            for (name, dtype), values in zip(COLUMNS.items(), zip(*rows, strict=True), strict=True)
        }
        columns, checked = _merged(shards, {**self.columns, "": self.checked}, fresh)
        return Index(shards=shards, specs=specs, columns=columns, checked=checked)

    def without(self, names: Collection[str]) -> Index:
        """The entries of all other files."""
        gone = np.array([shard.name in names for shard in self.shards], np.bool_)
        if not gone.any():
            return self
        return self.keeping(~gone[self.columns["shard"]], shard_stays=lambda shard: shard.name not in names)

    def keeping(self, rows: NDArray[np.bool_], *, shard_stays: Callable[[ShardInfo], bool] = lambda _: True) -> Index:
        """The entries of some rows; all of a file's rows must go before the file may."""
        stays = [shard_stays(shard) for shard in self.shards]
        numbers = np.cumsum(stays, dtype=np.uint32) - np.uint32(1) if stays else np.empty(0, np.uint32)
        columns: dict[str, NDArray[Any]] = {name: column[rows] for name, column in self.columns.items()}
        columns["shard"] = numbers[columns["shard"]].astype(np.uint32)
        kept = [shard for shard, stay in zip(self.shards, stays, strict=True) if stay]
        return Index(shards=kept, specs=self.specs, columns=columns, checked=self.checked[rows])


def check_columns(shards: Sequence[ShardInfo], specs: Sequence[EntrySpec], columns: Mapping[str, NDArray[Any]]) -> None:
    """Refuse columns that point anywhere but into their files.

    Raises:
        ValueError: says which does.
    """
    high, low = columns["high"], columns["low"]
    if len(high) and (not len(shards) or not len(specs)):
        raise ValueError("entries without files or layouts")
    for name, limit in (("shard", len(shards)), ("spec", len(specs))):
        if len(high) and int(columns[name].max()) >= limit:
            raise ValueError(f"{name} {int(columns[name].max())}, there are {limit}")
    ascending = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))
    if not bool(ascending.all()):
        raise ValueError("keys are not in order")
    if len(high):
        files = np.array([shard.nbytes for shard in shards], np.uint64)[columns["shard"]]
        sizes = np.array([spec.nbytes for spec in specs], np.uint64)[columns["spec"]]
        start = columns["start"]
        inside = (start <= files) & (sizes <= files - np.minimum(start, files)) & (start % np.uint64(ALIGNMENT) == 0)
        if not bool(inside.all()):
            raise ValueError("an entry lies outside its file")


def _view(column: Any) -> memoryview:  # noqa: ANN401 - numpy's arrays are buffers, which their types do not tell
    return memoryview(column)


def _merged(
    shards: Sequence[ShardInfo], columns: Mapping[str, NDArray[Any]], fresh: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """Rows in the order of their keys, with new ones among them; of equal keys the one in the latest file stays.

    The column without a name says which rows were checked; the new ones were not.
    """
    high, new = columns["high"], np.lexsort((fresh["low"], fresh["high"]))
    fresh = {**fresh, "": np.zeros(len(new), np.bool_)}
    place = np.searchsorted(high, fresh["high"][new])
    beside = high[np.minimum(place, len(high) - 1)] if len(high) else np.zeros(0, np.uint64)
    ordered = fresh["high"][new]
    if bool((ordered[1:] == ordered[:-1]).any()) or bool((beside == ordered[: len(beside)]).any()):
        merged = {name: np.concatenate([columns[name], fresh[name]]) for name in fresh}
        order = _latest(shards, merged)
        picked = {name: np.ascontiguousarray(column[order]) for name, column in merged.items()}
    else:  # no key twice, as almost always: a hundred times faster in a large index
        picked = {name: np.insert(columns[name], place, fresh[name][new]) for name in fresh}
    return picked, picked.pop("")


def _latest(shards: Sequence[ShardInfo], columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Order of the keys, each once, as it is in the latest file."""
    age = np.argsort(np.argsort([shard.name for shard in shards]))[columns["shard"]]
    order = np.lexsort((age, columns["low"], columns["high"]))
    high, low = columns["high"][order], columns["low"][order]
    latest = np.ones(len(order), np.bool_)
    latest[:-1] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return order[latest]
