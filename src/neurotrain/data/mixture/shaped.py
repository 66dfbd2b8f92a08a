"""An epoch whose global batches have one shape each and samples of several sources: by halves, from edge to edge.

Which shape comes when, and how many samples of which source are in each batch, follows from the counts of every source
and shape at both ends of a stretch of batches: those in its middle are the targets there, rounded to whole batches of
each shape and never beyond what is at the ends (see ``rounding``). Halved again and again, a stretch ends as one batch.

So nothing is carried from batch to batch: a batch costs as many halvings as the epoch's length has binary digits,
wherever it lies, and no more than the batches beside it cost together with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from neurotrain.data.mixture.buckets import Shape
from neurotrain.data.mixture.curves import Curves
from neurotrain.data.mixture.edges import Edge, Holdings, framed, share_of_shapes, targets_at
from neurotrain.data.mixture.pools import Pools
from neurotrain.data.mixture.rounding import Floats, Indices, halved
from neurotrain.data.mixture.schedule import Draws, Leftovers, Schedule, shuffled
from neurotrain.data.mixture.source import SourcePlan


class ShapedSchedule(Schedule):
    """Every sample has a source of its own, every global batch one shape.

    Args:
        sources: of the mixture.
        pools: of each; one for each of its shapes.
        integrate: makes targets of the samples that each source gives in all, infinite where it never ends.
        limit: samples; None: until sources have ended.
        batch: samples of a global batch.
        seed: of the order within batches.
    """

    unit = 1

    def __init__(
        self,
        *,
        sources: Sequence[SourcePlan],
        pools: Sequence[Pools],
        integrate: Callable[[Floats], Curves],
        limit: int | None,
        batch: int,
        seed: int,
    ) -> None:
        self._batch, self._seed = batch, seed
        shapes: dict[Shape | None, int] = {}
        for its in pools:
            for pool in its.pools:
                shapes.setdefault(pool.shape, len(shapes))
        cells = [(row, shapes[pool.shape]) for row, its in enumerate(pools) for pool in its.pools]
        self._rows, self._columns = (np.array(numbers, np.int64) for numbers in zip(*cells, strict=True))
        sizes = np.array([pool.drawer.size for its in pools for pool in its.pools])
        rounds = np.array([source.rounds if source.bounded else 1 for source in sources])
        holdings = Holdings(
            entries=self._table(sizes, len(sources), len(shapes)),
            due=self._table(sizes * rounds[self._rows], len(sources), len(shapes)),
            endless=np.array([not source.bounded for source in sources]),
            leaves=np.array([source.leftover == "report" for source in sources]),
        )
        frame = framed(holdings, integrate, limit=limit, size=batch)
        self.curves, self._edges = frame.curves, frame.edges
        self._shares = share_of_shapes(holdings.entries, frame.given, holdings.endless)
        whole = self._edges[-1].batch * batch
        self.length = whole if limit is None else min(limit, whole)
        self.bounds = [float(batch)] * len(sources)
        self.leftovers = self._left(holdings)

    def block(self, first: int, last: int) -> Draws:
        """The global batches ``[first, last)``."""
        counts = self._between(first, last)
        drawn = np.diff(counts[:, self._rows, self._columns], axis=0)
        pools = np.repeat(np.tile(np.arange(drawn.shape[1]), len(drawn)), drawn.ravel())
        pools = shuffled(pools, first * self._batch, kinds=drawn.shape[1], batch=self._batch, seed=self._seed)
        size = max(0, min(last * self._batch, self.length) - first * self._batch)
        return Draws(pools[:size], counts[0, self._rows, self._columns])

    def _between(self, first: int, last: int) -> Indices:
        """``(last - first + 1, S, C)``: counts before each of some batches, and behind the last of them."""
        found = np.empty((last - first + 1, *self._edges[0].counts.shape), np.int64)
        for edge in self._edges:
            if first <= edge.batch <= last:
                found[edge.batch - first] = edge.counts
        begins, ends, before, behind = _stretches(self._edges, first, last)
        while begins.size:
            middle = (begins + ends) // 2
            between = behind - before
            halves = halved(
                between,
                between.sum(axis=1) // self._batch,
                middle - begins,
                targets_at(self.curves, (middle * self._batch).astype(np.float64))[:, :, None] * self._shares - before,
                size=self._batch,
            )
            halves += before
            inside = (first <= middle) & (middle <= last)
            found[middle[inside] - first] = halves[inside]
            begins, ends = np.concatenate([begins, middle]), np.concatenate([middle, ends])
            before, behind = np.concatenate([before, halves]), np.concatenate([halves, behind])
            asked = np.maximum(begins + 1, first) <= np.minimum(ends - 1, last)
            begins, ends, before, behind = begins[asked], ends[asked], before[asked], behind[asked]
        return found

    def _table(self, values: Indices, sources: int, shapes: int) -> Indices:
        table = np.zeros((sources, shapes), np.int64)
        table[self._rows, self._columns] = values
        return table

    def _left(self, holdings: Holdings) -> Leftovers:
        """What was padded and left out of sources that have ended within the epoch."""
        end = self._edges[-1]
        over = np.zeros_like(end.counts)
        for source, time in self.curves.ended.items():
            if time <= end.batch * self._batch:
                over[source] = end.counts[source] - holdings.due[source]
        more = over[self._rows, self._columns]
        return Leftovers(padded=np.maximum(more, 0), left_out=np.maximum(-more, 0))


def _stretches(edges: Sequence[Edge], first: int, last: int) -> tuple[Indices, Indices, Indices, Indices]:
    """Stretches from edge to edge that have a place among some batches: their ends, and the counts there."""
    kept = [
        (left, right)
        for left, right in itertools.pairwise(edges)
        if max(left.batch + 1, first) <= min(right.batch - 1, last)
    ]
    empty = np.empty((0, *edges[0].counts.shape), np.int64)
    return (
        np.array([left.batch for left, _ in kept], np.int64),
        np.array([right.batch for _, right in kept], np.int64),
        np.stack([left.counts for left, _ in kept]) if kept else empty,
        np.stack([right.counts for _, right in kept]) if kept else empty,
    )
