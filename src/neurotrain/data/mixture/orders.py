"""In which order the entries of one source come: pass after pass, each a pure function of a seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from neurotrain.data.mixture.permutation import Indices, passes


class Drawer(ABC):
    """The endless sequence of draws from one pool of entries.

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
    def drawer(self, length: int) -> Drawer:
        """Its sequence over a source of ``length`` entries."""

    @abstractmethod
    def told(self) -> str:
        """The sampler and its settings, on one line; part of a plan's identity."""


@dataclass(frozen=True, kw_only=True)
class Shuffled(Sampler):
    """Every pass is a permutation of its own: each entry once, then all anew."""

    def drawer(self, length: int) -> Drawer:
        """Permutations of the entries."""
        return _Passes(length)

    def told(self) -> str:
        """Its name."""
        return "shuffled"


@dataclass(frozen=True, kw_only=True)
class Sequential(Sampler):
    """Every pass is the source's own order."""

    def drawer(self, length: int) -> Drawer:
        """The entries in order."""
        return _InOrder(length)

    def told(self) -> str:
        """Its name."""
        return "sequential"


class _Passes(Drawer):
    def __init__(self, size: int) -> None:
        self.size = size

    def draw(self, first: int, last: int, *, seed: int) -> Indices:
        return passes(first, last, length=self.size, seed=seed)


class _InOrder(Drawer):
    def __init__(self, size: int) -> None:
        self.size = size

    def draw(self, first: int, last: int, *, seed: int) -> Indices:
        del seed
        return np.arange(first, last, dtype=np.int64) % self.size
