"""Where the sources of an epoch in shapes come and go: the counts at those places, from which all others are halved.

Between two edges the same sources take part. At an edge the counts of every source and shape are whole batches of each
shape, as near to the targets as that allows; a source that has ended has given exactly what it has. What it has is
decided here too: where nobody else has samples to fill the last batch of a shape with, it is padded or left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.mixture.curves import Curves
from neurotrain.data.mixture.rounding import Floats, Indices, Tables, rounded

_ROUNDING = 1e-6
_ENDLESS = 2**50  # samples
_FAR = 0.75  # of a batch: within batches a source moves by a quarter of one at most
_STRICT = 4  # tries for each source


class Edge(NamedTuple):
    """A place in an epoch.

    Attributes:
        batch: global batches before it.
        counts: int64 ``(S, C)``: samples before it.
    """

    batch: int
    counts: Indices


class Holdings(NamedTuple):
    """What the sources have, by shape.

    Attributes:
        entries: int64 ``(S, C)``.
        due: int64 ``(S, C)``: samples until a source is exhausted; as entries where it never is.
        endless: bool ``(S,)``: sources that never are.
        leaves: bool ``(S,)``: sources that leave out what does not fill a batch, instead of padding it.
    """

    entries: Indices
    due: Indices
    endless: NDArray[np.bool_]
    leaves: NDArray[np.bool_]


class Shaped(NamedTuple):
    """An epoch's frame.

    Attributes:
        curves: targets, with what the sources give in the end.
        edges: ascending, from the beginning to the end.
        given: int64 ``(S, C)``: as ``Holdings.due``, with what is padded and without what is left out.
    """

    curves: Curves
    edges: list[Edge]
    given: Indices


def framed(holdings: Holdings, integrate: Callable[[Floats], Curves], *, limit: int | None, size: int) -> Shaped:
    """Decide what every source gives, and the counts at all edges.

    A shape that ends without a whole batch changes what a source gives, hence when it ends; so the epoch is laid out
    anew until every shape ends well. What came before the change stays, so each time one place more is settled.

    Args:
        holdings: of the sources.
        integrate: makes targets of the samples that each source gives, infinite where it never ends.
        limit: samples of the epoch; None: until sources have ended.
        size: samples of a global batch.
    """
    given = _completed(holdings, integrate(np.where(holdings.endless, np.inf, holdings.due.sum(axis=1))), size)
    room = Room(late=given.shape[1], more=0, cut=False)
    for tries in itertools.count():
        curves = integrate(np.where(holdings.endless, np.inf, given.sum(axis=1)))
        frame = _Frame(holdings, given, curves, limit=limit, size=size, room=room)
        try:
            return Shaped(curves, frame.edges(strict=tries < _STRICT * len(given)), given)
        except _UnsettledError:
            given = frame.given
        except _CrowdedError:
            room = frame.wider()
    raise AssertionError("unreachable")


class Room(NamedTuple):
    """How far an epoch goes beyond its targets, so that the last samples of all shapes find batches.

    Attributes:
        late: batches behind a source's end by which it has given everything.
        more: batches of the epoch behind the end of its sources.
        cut: whether the limit of the epoch comes before that.
    """

    late: int
    more: int
    cut: bool


def share_of_shapes(entries: Indices, given: Indices, endless: NDArray[np.bool_]) -> Floats:
    """``(S, C)``: part of each source's samples that has each shape; a row sums to 1."""
    counts = np.where(endless[:, None], entries, given).astype(np.float64)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def targets_at(curves: Curves, samples: Floats) -> Floats:
    """``(N, S)``: what each source should have had after each number of samples."""
    return np.stack([np.interp(samples, curves.time, target) for target in curves.targets], axis=1)


class _UnsettledError(Exception):
    """A shape ends without a whole batch; ``given`` has been changed for it."""


class _CrowdedError(Exception):
    """There are fewer batches than what must be given needs."""


class _Frame:
    """One try to lay an epoch out."""

    def __init__(
        self,
        holdings: Holdings,
        given: Indices,
        curves: Curves,
        *,
        limit: int | None,
        size: int,
        room: Room,
    ) -> None:
        self.given = given.copy()
        self._holdings, self._curves, self._size = holdings, curves, size
        self._shares = share_of_shapes(holdings.entries, given, holdings.endless)
        over = max(curves.ended.values()) if curves.exhausted else np.inf
        self._cap = np.inf if limit is None else -(-limit // size)
        assert np.isfinite(min(over, self._cap)), "an epoch without a limit ends with its sources"
        self._batches = int(min(np.ceil((over - _ROUNDING) / size) + room.more, self._cap))
        self._room, self._crowded = room, 0
        self._ends = {source: self._end(time, room.late) for source, time in curves.ended.items()}
        if over > self._cap * size or room.cut:
            self._ends = {source: end for source, end in self._ends.items() if end < self._batches}
        self._spans = [self._span(source) for source in range(len(given))]

    def edges(self, *, strict: bool) -> list[Edge]:
        """All edges.

        Args:
            strict: whether a source that is too far off its target at one is an error, too.

        Raises:
            _UnsettledError: if something has to be padded or left out first.
            _CrowdedError: if there are too few batches.
        """
        marks = {0, self._batches, *(mark for spans in self._spans for span in spans for mark in span)}
        places = sorted(mark for mark in marks if mark <= self._batches)
        found = [Edge(0, np.zeros_like(self.given))]
        for place in places[1:]:
            before = found[-1]
            active = np.array([any(a <= before.batch and place <= b for a, b in spans) for spans in self._spans])
            ended = np.array([self._ends.get(source) == place for source in range(len(self.given))])
            tables = self._tables(before, place, active & ~ended, ended)
            if tables.fewest.sum() > tables.batches:
                self._crowded = place
                raise _CrowdedError
            found.append(Edge(place, before.counts + rounded(tables)[0]))
            if strict:
                self._check(found[-1])
        return found

    def _check(self, edge: Edge) -> None:
        """Refuse an edge at which a source is too far from its target, if that can be helped."""
        time = edge.batch * self._size
        off = targets_at(self._curves, np.array([float(time)]))[0] - edge.counts.sum(axis=1)
        if np.abs(off).max() <= _FAR * self._size:
            return
        behind = int(off.argmax())
        if off[behind] > _FAR * self._size and self._curves.ended.get(behind, np.inf) <= time:
            # It waits for others to fill its last batches: no longer.
            rest = (self.given - edge.counts)[behind] % self._size
            shape = int(rest.argmax())
            if rest[shape]:
                own = np.array([behind])
                _settle(self.given, shape, int(rest[shape]), own, holdings=self._holdings, size=self._size)
                raise _UnsettledError
        if edge.batch in self._ends.values() and not self._room.cut:
            self._crowded = edge.batch
            raise _CrowdedError

    def wider(self) -> Room:
        """More room at the place where there was too little."""
        if self._crowded < self._batches:
            return self._room._replace(late=2 * self._room.late)
        if self._batches < self._cap:
            return self._room._replace(more=self._room.more + 1)
        assert not self._room.cut, "nothing has to be given at the end of a limited epoch"
        return self._room._replace(cut=True)

    def _end(self, time: float, late: int) -> int:
        """Batch by which a source that ends at some time has given everything."""
        return min(-int(-(time - _ROUNDING) // self._size) + late, self._batches)

    def _span(self, source: int) -> list[tuple[int, int]]:
        """Batches in which a source takes part: from where it rises to where it stops rising."""
        time, target = self._curves.time, self._curves.targets[source]
        moves = np.concatenate([[False], np.diff(target) > 0, [False]])
        begins = np.flatnonzero(moves[1:] & ~moves[:-1])
        stops = np.flatnonzero(~moves[1:] & moves[:-1])
        spans: list[tuple[int, int]] = []
        for begin, stop in zip(begins.tolist(), stops.tolist(), strict=True):
            first = int((time[begin] + _ROUNDING) // self._size)
            last = min(-int(-(time[stop] - _ROUNDING) // self._size), self._batches)
            if spans and first <= spans[-1][1]:
                first = spans.pop()[0]
            if first < last:
                spans.append((first, last))
        if spans and source in self._ends:
            spans[-1] = (spans[-1][0], self._ends[source])
        return spans

    def _tables(self, before: Edge, place: int, free: NDArray[np.bool_], ended: NDArray[np.bool_]) -> Tables:
        """What is rounded at an edge."""
        holdings, size = self._holdings, self._size
        target = targets_at(self._curves, np.array([float(place * size)]))[0][:, None] * self._shares
        wanted = target - before.counts
        left = np.where(holdings.endless[:, None], _ENDLESS, np.maximum(self.given - before.counts, 0))
        forced = np.where(ended[:, None], left, 0)
        room = np.where(free[:, None] & (holdings.entries > 0), left, 0)
        rest, spare = forced.sum(axis=0) % size, room.sum(axis=0)
        short = (rest > 0) & (spare < size - rest)
        if short.any():
            for shape in np.flatnonzero(short).tolist():
                sources = np.flatnonzero(forced[:, shape])
                _settle(self.given, shape, int(rest[shape]), sources, holdings=holdings, size=size)
            raise _UnsettledError
        hoped = np.maximum(wanted, 0) * free[:, None]
        mix = _mixes(hoped, room > 0, self._shares) * size
        batches = place - before.batch
        hoped = np.ceil(hoped + 2 * mix + 1).astype(np.int64)
        most = forced + np.minimum(room, hoped)
        if (most.sum(axis=0) // size).sum() < batches:
            # Their last samples do not make whole batches: some come once more.
            most = forced + np.where(free[:, None] & (holdings.entries > 0), hoped, 0)
        fewest = -(-forced.sum(axis=0) // size)
        return Tables(
            wanted=np.where((free | ended)[:, None], wanted, 0.0)[None],
            least=forced[None],
            most=most[None],
            fewest=fewest[None],
            largest=np.maximum(most.sum(axis=0) // size, fewest)[None],
            mix=mix[None],
            batches=np.array([batches]),
            size=size,
        )


def _completed(holdings: Holdings, curves: Curves, size: int) -> Indices:
    """What the sources give where shapes that nobody has without end come to whole batches."""
    given = holdings.due.copy()
    there = (holdings.entries > 0) & (curves.targets[:, -1:] > 0)
    for shape in np.flatnonzero(~(there & holdings.endless[:, None]).any(axis=0)).tolist():
        sources = np.flatnonzero(there[:, shape])
        if rest := int(given[sources, shape].sum()) % size:
            _settle(given, shape, rest, sources, holdings=holdings, size=size)
    return given


def _settle(given: Indices, shape: int, rest: int, sources: Indices, *, holdings: Holdings, size: int) -> None:
    """Leave out what does not fill a batch of a shape where its sources say so, or fill the batch up."""
    own = given[:, shape]
    leaving = [int(source) for source in sources if holdings.leaves[source]]
    if own[leaving].sum() >= rest:
        for source in sorted(leaving, key=lambda source: -int(own[source])):
            taken = min(rest, int(own[source]))
            own[source] -= taken
            rest -= taken
        return
    padding = [int(source) for source in sources if not holdings.leaves[source]] or list(map(int, sources))
    own[max(padding, key=lambda source: int(own[source]))] += size - rest


def _mixes(hoped: Floats, there: NDArray[np.bool_], shares: Floats) -> Floats:
    """``(S, C)``: part of each source in a shape, as far as it may still give; by size where nothing is hoped for."""
    weights = np.where(there, hoped + _ROUNDING * np.maximum(shares, _ROUNDING), 0.0)
    return weights / np.maximum(weights.sum(axis=0, keepdims=True), 1e-300)
