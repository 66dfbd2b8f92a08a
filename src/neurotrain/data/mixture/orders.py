"""In which order the entries of one source come: pass after pass, each a pure function of a seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.mixture.checks import digest
from neurotrain.data.mixture.entries import AllEntries, Entries
from neurotrain.data.mixture.permutation import Indices, passes, permuted_each, scattered
from neurotrain.data.plan import mix_seed

_LOT = 3  # a word that keeps the seeds of a pass's lot apart from those of its permutation


class Drawer(ABC):
    """The endless sequence of draws from one selection of entries.

    Attributes:
        size: draws of one pass.
    """

    size: int

    @abstractmethod
    def draw(self, first: int, last: int, *, seed: int) -> Indices:
        """Draws ``[first, last)``; the cost does not depend on ``first``.

        Args:
            first: from 0.
            last: end of the stretch.
            seed: of the sequence.

        Returns:
            int64 ``(last - first,)``: entries of the source.
        """


class Sampler(ABC):
    """How entries are drawn within a source."""

    @abstractmethod
    def drawer(self, entries: Entries) -> Drawer:
        """The sequence of draws from a selection of the source."""

    @abstractmethod
    def told(self) -> str:
        """The sampler and its settings, on one line; part of a plan's identity."""

    def entries(self, length: int) -> Entries:
        """Which entries of a source of ``length`` take part."""
        return AllEntries(length=length)

    def problems(self, length: int) -> list[str]:
        """What does not fit a source of ``length`` entries."""
        del length
        return []


@dataclass(frozen=True, kw_only=True)
class Shuffled(Sampler):
    """Every pass is a permutation of its own: each entry once, then all anew."""

    def drawer(self, entries: Entries) -> Drawer:
        """Permutations of the entries."""
        return _Passes(entries)

    def told(self) -> str:
        """Its name."""
        return "shuffled"


@dataclass(frozen=True, kw_only=True)
class Sequential(Sampler):
    """Every pass is the source's own order."""

    def drawer(self, entries: Entries) -> Drawer:
        """The entries in order."""
        return _InOrder(entries)

    def told(self) -> str:
        """Its name."""
        return "sequential"


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassBalanced(Sampler):
    """Every class equally often, whatever its size: with C classes, each C draws hold each class once.

    A class's entries come in permutations, each anew: none comes twice before all of its class have come.

    Args:
        labels: integers ``(length,)``: class of each entry.

    Example:
        >>> drawer = ClassBalanced(labels=np.array([0, 0, 0, 1])).drawer(AllEntries(length=4))
        >>> (drawer.draw(0, 8, seed=0) == 3).sum().item()
        4
    """

    labels: NDArray[Any]

    def drawer(self, entries: Entries) -> Drawer:
        """Rounds over the classes."""
        return _Rounds(entries.array(), np.asarray(self.labels))

    def told(self) -> str:
        """Name and labels' digest."""
        return f"class-balanced {digest(self.labels)}"

    def problems(self, length: int) -> list[str]:
        """Labels that are not one integer an entry."""
        labels = np.asarray(self.labels)
        if labels.shape != (length,) or labels.dtype.kind not in "iub":
            return [f"labels of shape {labels.shape} and type {labels.dtype} must be {length} integers"]
        return []


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighted(Sampler):
    """Entries in proportion to a column: one of n comes ``n * weight / sum(weights)`` times a pass, rounded up or down.

    Systematic sampling: a pass looks at n equidistant points of the cumulative column, shifted by one random number,
    in random order.

    Args:
        column: numbers ``(length,)``, finite and not negative; an entry of weight 0 never comes.

    Reference:
        Madow, 1949, "On the theory of systematic sampling, II".

    Example:
        >>> drawer = Weighted(column=np.array([3.0, 1.0, 0.0, 0.0])).drawer(AllEntries(length=4))
        >>> sorted(drawer.draw(0, 4, seed=5).tolist())
        [0, 0, 0, 1]
    """

    column: NDArray[Any]

    def drawer(self, entries: Entries) -> Drawer:
        """Points of the cumulative column."""
        return _Systematic(entries.array(), np.asarray(self.column))

    def told(self) -> str:
        """Name and the column's digest."""
        return f"weighted {digest(self.column)}"

    def problems(self, length: int) -> list[str]:
        """A column that is not one weight an entry."""
        column = np.asarray(self.column)
        if column.shape != (length,) or column.dtype.kind not in "iubf":
            return [f"column of shape {column.shape} and type {column.dtype} must be {length} numbers"]
        bad = np.flatnonzero(~(np.isfinite(column) & (column >= 0)))
        if bad.size:
            return [f"column[{bad[0]}]={column[bad[0]]} must be finite and at least 0"]
        return [] if column.any() else ["column must have a positive sum"]


def shuffled() -> Sampler:
    """The usual order."""
    return Shuffled()


@dataclass(frozen=True, kw_only=True, eq=False)
class Ordered(Sampler):
    """A selection of entries in some order; see its subclasses.

    Args:
        order: of the selected entries.
    """

    order: Sampler = field(default_factory=shuffled)

    def drawer(self, entries: Entries) -> Drawer:
        """As the order says."""
        return self.order.drawer(entries)

    def problems(self, length: int) -> list[str]:
        """Of the order; a selection of a selection is refused."""
        if isinstance(self.order, Ordered):
            return [f"order={type(self.order).__name__} selects entries again: it must be an order only"]
        return self.order.problems(length)


class _Passes(Drawer):
    def __init__(self, entries: Entries) -> None:
        self.size, self._entries = entries.size, entries

    def draw(self, first: int, last: int, *, seed: int) -> Indices:
        return self._entries.at(passes(first, last, length=self.size, seed=seed))


class _InOrder(Drawer):
    def __init__(self, entries: Entries) -> None:
        self.size = entries.size
        # A range needs no list; anything else has its own order and must be sorted.
        self._list = None if isinstance(entries, AllEntries) else entries.array()

    def draw(self, first: int, last: int, *, seed: int) -> Indices:
        del seed
        places = np.arange(first, last, dtype=np.int64) % self.size
        return places if self._list is None else self._list[places]


class _Rounds(Drawer):
    def __init__(self, entries: Indices, labels: NDArray[Any]) -> None:
        self.size = len(entries)
        present, counts = np.unique(labels[entries], return_counts=True)
        self._members = entries[np.argsort(labels[entries], kind="stable")]
        self._classes, self._counts = len(present), counts.astype(np.int64)
        self._starts = np.cumsum(self._counts) - self._counts

    def draw(self, first: int, last: int, *, seed: int) -> Indices:
        label = passes(first, last, length=self._classes, seed=seed)
        turn = np.arange(first, last, dtype=np.int64) // self._classes
        count = self._counts[label]
        number, place = np.divmod(turn, count)
        # One sequence a class: its seed is the class's, its permutation the number of times it was gone through.
        seeds = scattered(label, mix_seed(seed, _LOT)) + scattered(number, seed)
        return self._members[self._starts[label] + permuted_each(place, lengths=count, seeds=seeds)]


class _Systematic(Drawer):
    def __init__(self, entries: Indices, column: NDArray[Any]) -> None:
        self.size, self._entries = len(entries), entries
        cumulative = np.cumsum(column[entries], dtype=np.float64)
        self._cumulative = cumulative / cumulative[-1]
        self._largest = int(np.searchsorted(self._cumulative, 1.0))

    def draw(self, first: int, last: int, *, seed: int) -> Indices:
        number = np.arange(first, last, dtype=np.int64) // self.size
        lot = (scattered(number, mix_seed(seed, _LOT)) >> np.uint64(11)) * 2.0**-53
        point = (passes(first, last, length=self.size, seed=seed) + lot) / self.size
        found = np.searchsorted(self._cumulative, point, side="right")
        return self._entries[np.minimum(found, self._largest)]
