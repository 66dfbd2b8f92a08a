"""Which entries of a source take part: all, a list, or a fold; none of them listed where a formula will do."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from neurotrain.data.mixture.permutation import Indices, permuted


class Entries(ABC):
    """A selection of a source's entries.

    Attributes:
        size: how many.
    """

    size: int

    @abstractmethod
    def at(self, places: Indices) -> Indices:
        """Entries at some places of the selection, which has some fixed order."""

    @abstractmethod
    def array(self) -> Indices:
        """All of them, ascending."""


class AllEntries(Entries):
    """Everything that the source has.

    Args:
        length: of the source.
    """

    def __init__(self, *, length: int) -> None:
        self.size = length

    def at(self, places: Indices) -> Indices:
        """The places themselves."""
        return places

    def array(self) -> Indices:
        """0, 1, 2 and so on."""
        return np.arange(self.size, dtype=np.int64)


class ListedEntries(Entries):
    """Entries by a list.

    Args:
        entries: integers, ascending.
    """

    def __init__(self, *, entries: Indices) -> None:
        self.size = len(entries)
        # Half the memory where it suffices: lists of ten million entries are common.
        narrow = self.size == 0 or int(entries[-1]) < 2**31
        self._entries = entries.astype(np.int32 if narrow else np.int64)

    def at(self, places: Indices) -> Indices:
        """Looked up."""
        return self._entries[places].astype(np.int64)

    def array(self) -> Indices:
        """The list."""
        return self._entries.astype(np.int64)


class FoldEntries(Entries):
    """One stretch of a seeded permutation of the source, or everything but that stretch.

    Args:
        length: of the source.
        first: where the stretch begins.
        last: where it ends.
        outside: take what lies outside it.
        seed: of the permutation.
    """

    def __init__(self, *, length: int, first: int, last: int, outside: bool, seed: int) -> None:
        self._length, self._first, self._held, self._outside, self._seed = length, first, last - first, outside, seed
        self.size = length - self._held if outside else self._held

    def at(self, places: Indices) -> Indices:
        """Where the permutation sends them."""
        behind = np.where(places >= self._first, places + self._held, places)
        places = behind if self._outside else places + self._first
        return permuted(places, length=self._length, seed=self._seed)

    def array(self) -> Indices:
        """All of the fold, ascending."""
        return np.sort(self.at(np.arange(self.size, dtype=np.int64)))
