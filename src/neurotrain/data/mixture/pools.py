"""The pools that a source's samples come from: one, or one for each shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neurotrain.data.mixture.buckets import Shape, merged
from neurotrain.data.mixture.entries import ListedEntries
from neurotrain.data.mixture.merge import Merge, Merged
from neurotrain.data.mixture.orders import Drawer
from neurotrain.data.mixture.source import SourcePlan
from neurotrain.data.plan import mix_seed

_ENDLESS = 2.0**40  # batches; more than any epoch has, few enough for exact halves
_SPLIT = 4  # a word that keeps the seeds of merged left-overs apart from those of orders


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Entries of one source and one shape.

    Attributes:
        shape: that they are brought to; None: the source's only one.
        drawer: their order.
        batches: whole batches that they give until they are exhausted; None: no end.
        padded: samples that the last batch takes from another pass.
        left_out: samples that do not fill a batch and are not drawn.
    """

    shape: Shape | None
    drawer: Drawer
    batches: int | None
    padded: int
    left_out: int


class Pools:
    """A source's pools, and their order when whole batches are drawn from one of them.

    Args:
        source: whose.
        unit: samples of a global batch.
        seed: of the plan.
    """

    def __init__(self, *, source: SourcePlan, unit: int, seed: int) -> None:
        entries = source.sampler.entries(source.length)
        self.selected = entries.size
        self.moved: dict[tuple[Shape, Shape], int] = {}
        self._unit = unit
        if source.buckets is None:
            self.pools = [self._pool(source, None, source.sampler.drawer(entries))]
        else:
            members, shapes = source.buckets.members(entries.array()), source.buckets.shapes
            if source.leftover == "merge":
                members, self.moved = merged(members, shapes, unit=unit, seed=mix_seed(seed, source.seed, _SPLIT))
            self.pools = [
                self._pool(source, shape, source.sampler.drawer(ListedEntries(entries=listed)))
                for shape, listed in zip(shapes, members, strict=True)
                if len(listed)
            ]
        self._merge = self._merged(source)

    @property
    def batches(self) -> int | None:
        """Whole batches of all pools until the source is exhausted; None: no end."""
        counts = [pool.batches for pool in self.pools if pool.batches is not None]
        return sum(counts) if len(counts) == len(self.pools) else None

    def block(self, first: int, last: int) -> Merged:
        """Pools of the source's batches ``[first, last)``, and batches of each before."""
        if self._merge is None:
            return Merged(np.zeros(last - first, np.int64), np.array([first]))
        return self._merge.block(first, last)

    def _pool(self, source: SourcePlan, shape: Shape | None, drawer: Drawer) -> Pool:
        if not source.bounded:
            return Pool(shape=shape, drawer=drawer, batches=None, padded=0, left_out=0)
        whole, rest = divmod(drawer.size * source.rounds, self._unit)
        if source.leftover == "report":
            return Pool(shape=shape, drawer=drawer, batches=whole, padded=0, left_out=rest)
        return Pool(shape=shape, drawer=drawer, batches=whole + (rest > 0), padded=-rest % self._unit, left_out=0)

    def _merged(self, source: SourcePlan) -> Merge | None:
        if len(self.pools) == 1:
            return None
        if source.bounded:
            ends = np.array([float(pool.batches or 0) for pool in self.pools])
        else:
            sizes = np.array([pool.drawer.size for pool in self.pools])
            ends = sizes / sizes.sum() * _ENDLESS
        return Merge(time=np.array([0.0, ends.sum()]), targets=np.stack([np.zeros(len(ends)), ends], axis=1))
