"""One epoch of a mixture, ready to be asked: who comes at which place, from which pool, for the how-manieth time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neurotrain.data.mixture.curves import Curves, Supply
from neurotrain.data.mixture.order import Ordered, ordered
from neurotrain.data.mixture.permutation import Indices, scattered
from neurotrain.data.mixture.pools import Pools
from neurotrain.data.mixture.source import SourcePlan


class Draws(NamedTuple):
    """A stretch of places.

    Pools are numbered through: those of the first source, then those of the second, and so on.

    Attributes:
        pool: int64 ``(N,)``.
        first: int64 ``(pools,)``: draws of each pool before the stretch; its draws in there follow one by one.
    """

    pool: Indices
    first: Indices


class Leftovers(NamedTuple):
    """What did not fill whole batches of exhausted sources.

    Attributes:
        padded: int64 ``(pools,)``: samples of another pass that filled a batch up.
        left_out: int64 ``(pools,)``: samples that were not drawn.
    """

    padded: Indices
    left_out: Indices


class Schedule(ABC):
    """An epoch.

    Attributes:
        length: positions, over all ranks.
        bounds: samples by which each source can be off its target at any prefix.
        curves: targets, in units.
        unit: samples of a unit.
        leftovers: of batches of one source or shape; None where batches have neither.
    """

    length: int
    bounds: list[float]
    curves: Curves
    unit: int
    leftovers: Leftovers | None = None

    @abstractmethod
    def block(self, first: int, last: int) -> Draws:
        """The global batches ``[first, last)``; the epoch's last one may be cut short."""

    def counts(self, batches: int) -> Indices:
        """Draws of each pool in the epoch's first global batches.

        Args:
            batches: whole ones, at most as many as the epoch has.

        Returns:
            int64 ``(pools,)``.
        """
        return self.block(batches, batches).first


class SampleSchedule(Schedule):
    """Every sample has a source of its own.

    Sources are merged sample by sample; then each global batch is shuffled, so that no rank sees a pattern. A shuffle
    within a batch of G moves no source by more than G/2 from where its counts at both ends of the batch put it.

    Args:
        curves: targets in samples.
        limit: samples; None: until sources have ended.
        batch: samples of a global batch.
        seed: of the shuffles.
    """

    unit = 1

    def __init__(self, *, curves: Curves, limit: int | None, batch: int, seed: int) -> None:
        self.curves, self._batch, self._seed = curves, batch, seed
        self._sources = len(curves.targets)
        found = ordered(curves, limit=limit, allowed=batch - batch // 2)
        self._order, self.length = found.order, found.length
        self.bounds = (found.bound + batch // 2).tolist()

    def block(self, first: int, last: int) -> Draws:
        """The global batches ``[first, last)``."""
        begin = first * self._batch
        merged = self._order.block(begin, max(begin, min(last * self._batch, self.length)))
        source = shuffled(merged.child, begin, kinds=self._sources, batch=self._batch, seed=self._seed)
        return Draws(source, merged.first)


class BatchSchedule(Schedule):
    """Every global batch has one source, and one shape.

    Args:
        curves: targets in batches.
        limit: samples; None: until sources have ended.
        pools: of each source.
        batch: samples of a global batch.
    """

    def __init__(self, *, curves: Curves, limit: int | None, pools: Sequence[Pools], batch: int) -> None:
        self.curves, self._pools, self.unit = curves, pools, batch
        most = None if limit is None else -(-limit // batch)
        found: Ordered = ordered(curves, limit=most, allowed=1.0)
        self._order = found.order
        whole = found.length * batch
        self.length = whole if limit is None else min(limit, whole)
        self.bounds = (found.bound * batch).tolist()
        listed = [pool for its in pools for pool in its.pools]
        padded, left_out = [pool.padded for pool in listed], [pool.left_out for pool in listed]
        self.leftovers = Leftovers(np.array(padded, np.int64), np.array(left_out, np.int64))

    def block(self, first: int, last: int) -> Draws:
        """The global batches ``[first, last)``."""
        merged = self._order.block(first, last)
        counts = np.bincount(merged.child, minlength=len(self._pools)).tolist()
        pool, before, passed = np.empty_like(merged.child), list[Indices](), 0
        for number, (pools, begun) in enumerate(zip(self._pools, merged.first.tolist(), strict=True)):
            own = pools.block(begun, begun + counts[number])
            pool[merged.child == number] = own.child + passed
            before.append(own.first * self.unit)
            passed += len(own.first)
        size = max(0, min(last * self.unit, self.length) - first * self.unit)
        return Draws(np.repeat(pool, self.unit)[:size], np.concatenate(before))


def shuffled(kind: Indices, begin: int, *, kinds: int, batch: int, seed: int) -> Indices:
    """Places in a random order within their global batch, so that no rank sees a pattern.

    Args:
        kind: int64 ``(N,)``: of what stands at each place, below ``kinds``.
        begin: the first place; a global batch begins there.
        kinds: how many there are.
        batch: samples of a global batch.
        seed: of the order.

    Returns:
        int64 ``(N,)``; a function of each batch alone.
    """
    if kinds == 1 or batch == 1:
        return kind
    bits = np.uint64((kinds - 1).bit_length())
    words = scattered(np.arange(begin, begin + len(kind)), seed)
    words = ((words >> bits) << bits) | kind.astype(np.uint64)
    whole = len(words) - len(words) % batch
    words[:whole].reshape(-1, batch).sort(axis=1)
    words[whole:].sort()
    return (words & np.uint64((1 << int(bits)) - 1)).astype(np.int64)


def supplies(sources: Sequence[SourcePlan], pools: Sequence[Pools], *, in_batches: bool) -> list[Supply]:
    """What each source has to give in an epoch.

    Args:
        sources: of the mixture.
        pools: of each.
        in_batches: count whole batches, not samples.

    Returns:
        One for each source.
    """
    found: list[Supply] = []
    for source, its in zip(sources, pools, strict=True):
        units = float("inf")
        if source.bounded:
            units = float(its.batches or 0) if in_batches else float(its.selected * source.rounds)
        found.append(Supply(units, source.exhaustion == "stop"))
    return found
