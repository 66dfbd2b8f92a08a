"""The order of units that keeps every stream closest to its target: merges in merges, or else a walk by deadlines.

A merge of many streams at once is the tighter the more alike they are: ``(1 + v * (C - 2)) / 2`` is large for a large
share ``v`` among many. So the streams are grouped, and a merge of groups decides whose turn it is; its error reaches a
stream by its share in the group only. Of some groupings the one with the smallest proven bound is taken.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.mixture.curves import Curves
from neurotrain.data.mixture.merge import Floats, Indices, Merge, Merged
from neurotrain.data.mixture.walk import Walk

_FINELY = 64  # knots up to which a bound looks at each piece of the curves
_ALL_GROUPINGS = 4  # streams up to which all groupings are tried: 26 for four, 236 for five
_MOST = 30  # groupings that are tried of more streams

Flags = NDArray[np.bool_]

Group = int | tuple["Group", ...]
"""A stream, or streams that are merged by themselves first."""


class Order(Protocol):
    """Units of some streams, one after the other, with random access."""

    def block(self, first: int, last: int) -> Merged:
        """The places ``[first, last)``."""
        ...

    def counts(self, place: int) -> Indices:
        """Units of each stream before a place."""
        ...


class Ordered(NamedTuple):
    """An order and what is proven of it.

    Attributes:
        order: of the units.
        length: places that it has.
        bound: units by which a stream can be off its target at any prefix, for each stream.
    """

    order: Order
    length: int
    bound: Floats


def ordered(curves: Curves, *, limit: int | None, allowed: float) -> Ordered:
    """The order of streams with piecewise linear targets.

    Args:
        curves: of each stream.
        limit: places that will be asked for at most; None: until the streams that end the epoch are empty.
        allowed: units that a stream may be off. Where no grouping is proven to be as good, the order is walked through
            once, by deadlines, which takes time and memory in proportion to its length and is never off by more than 1.

    Returns:
        Order and bounds.
    """
    time, targets = curves.time, curves.targets
    best = min(_candidates(curves, allowed), key=lambda found: found[1].max())
    order: Order
    if best[1].max() <= _enough(allowed):
        order, bound = Tree(time=time, targets=targets, live=curves.live, group=best[0]), best[1]
    else:
        most = int(time[-1] + 1e-6)
        order = Walk(time=time, targets=targets, length=most if limit is None else min(limit, most))
        bound = np.ones(len(targets))
    length = _emptied(order, curves, limit) if curves.exhausted else limit
    assert length is not None, "an epoch without a limit ends with its streams"
    return Ordered(order, length, bound)


def _emptied(order: Order, curves: Curves, limit: int | None) -> int:
    """The first place by which streams that have ended have given everything; cut off at a limit."""
    time, targets = curves.time, curves.targets
    over = max(curves.ended.values())
    ended = list(curves.ended)
    given = np.round(targets[ended, -1]).astype(np.int64)
    margin = len(targets) + 3
    # The order ends with the curves' last whole unit, where all streams are empty with them.
    most = int(min(time[-1] + 1e-6, over + margin))
    most = most if limit is None else min(most, limit)
    least = max(0, int(over) - margin)
    places = range(least, most)
    return least + bisect_left(places, True, key=lambda place: bool((order.counts(place)[ended] >= given).all()))


class Tree:
    """Merges in merges.

    Args:
        time: float64 ``(K + 1,)``: knots.
        targets: float64 ``(C, K + 1)``.
        live: bool ``(C,)``: streams that go on behind the last knot.
        group: of all streams.
    """

    def __init__(self, *, time: Floats, targets: Floats, live: Flags, group: Group) -> None:
        self._streams = len(targets)
        self._members = group if isinstance(group, tuple) else (group,)
        sums = np.stack([targets[_streams(member)].sum(axis=0) for member in self._members])
        self._merge = Merge(time=time, targets=sums)
        self._inner = [_inner(targets, live, member) for member in self._members]
        self._flat = self._members == tuple(range(self._streams))

    def block(self, first: int, last: int) -> Merged:
        """The places ``[first, last)``."""
        merged = self._merge.block(first, last)
        if self._flat:
            return merged
        child, before = np.empty_like(merged.child), np.zeros(self._streams, np.int64)
        counts = np.bincount(merged.child, minlength=len(self._members)).tolist()
        for number, (member, inner) in enumerate(zip(self._members, self._inner, strict=True)):
            begun = int(merged.first[number])
            places = merged.child == number
            if inner is None:
                assert isinstance(member, int)
                child[places], before[member] = member, begun
            else:
                own = inner.block(begun, begun + counts[number])
                child[places] = own.child
                before += own.first
        return Merged(child, before)

    def counts(self, place: int) -> Indices:
        """Units of each stream before a place."""
        return self.block(place, place).first


def _inner(targets: Floats, live: Flags, member: Group) -> Tree | None:
    if isinstance(member, int):
        return None
    time, targets = _own_curves(targets, live, member)
    return Tree(time=time, targets=targets, live=live, group=member)


def _own_curves(targets: Floats, live: Flags, group: Group) -> tuple[Floats, Floats]:
    """Targets of a group's streams over the group's own count.

    The group counts by rounding its sum, so it may ask for a unit more than its streams have due in the end: those that
    go on do so behind the last knot; where none does, what is begun is completed.
    """
    members = _streams(group)
    last = np.where(live, targets[:, -1] - targets[:, -2], 0.0)
    beyond = np.zeros(len(targets))
    if last[members].any():
        beyond = targets[:, -1] + last * ((len(members) + 3) / last[members].sum())
        straight = not (~live & (targets[:, -1] > targets[:, -2]))[members].any()
        targets = np.column_stack([targets[:, :-1] if straight else targets, beyond])
    else:
        beyond[members] = np.ceil(targets[members, -1] - 1e-6) - targets[members, -1]
        if (beyond > 1e-6).any():
            targets = np.column_stack([targets, targets[:, -1] + np.maximum(beyond, 0)])
    return targets[members].sum(axis=0), targets


def _candidates(curves: Curves, allowed: float) -> Iterator[tuple[Group, Floats]]:
    """Groupings with their bounds, until one is good enough."""
    time, targets, streams = curves.time, curves.targets, len(curves.targets)
    if streams <= _ALL_GROUPINGS:
        groups: Iterable[Group] = _trees(tuple(range(streams)))
    else:
        groups = itertools.islice(_likely(targets[:, -1]), _MOST)
    for group in groups:
        found = np.zeros(streams)
        _bounds(group, time, targets, curves.live, 0.0, found)
        yield group, found
        if found.max() <= _enough(allowed):
            return


def _enough(allowed: float) -> float:
    """The bound that is good enough; a walk is no better than 1, and 1 may come out rounded."""
    return max(allowed, 1.0) + 1e-9


def _trees(streams: tuple[int, ...]) -> Iterator[Group]:
    """All groupings, the flat one first."""
    if len(streams) == 1:
        yield streams[0]
        return
    for parts in sorted(_partitions(streams), key=len, reverse=True):
        if len(parts) > 1:
            yield from itertools.product(*(tuple(_trees(part)) for part in parts))


def _partitions(streams: tuple[int, ...]) -> Iterator[list[tuple[int, ...]]]:
    if len(streams) == 1:
        yield [streams]
        return
    for parts in _partitions(streams[1:]):
        yield [streams[:1], *parts]
        for number, part in enumerate(parts):
            yield [*parts[:number], (streams[0], *part), *parts[number + 1 :]]


def _likely(sizes: Floats) -> Iterator[Group]:
    """The flat grouping, then those with some large streams taken out and some small ones paired."""
    by_size = np.argsort(-sizes, kind="stable").tolist()
    yield tuple(range(len(sizes)))
    for peeled in range(len(sizes) - 1):
        for joined in range(len(sizes) - peeled - 1):
            if (peeled, joined) != (0, 0):
                yield _grouping(by_size, sizes, peeled, joined)


def _grouping(by_size: list[int], sizes: Floats, peeled: int, joined: int) -> Group:
    """The largest streams each against all that are smaller, the smallest ones in pairs."""
    rest: list[tuple[float, Group]] = [(float(sizes[stream]), stream) for stream in by_size[peeled:]]
    for _ in range(joined):
        rest.sort(key=lambda sized: sized[0])
        (small, first), (other, second), *rest = rest
        rest.append((small + other, (first, second)))
    group: Group = tuple(member for _, member in rest) if len(rest) > 1 else rest[0][1]
    for stream in reversed(by_size[:peeled]):
        group = (stream, group)
    return group


def _bounds(group: Group, time: Floats, targets: Floats, live: Flags, off: float, found: Floats) -> None:
    """Bound of each stream of a group whose own count is ``off``, into ``found``."""
    if isinstance(group, int):
        found[group] = off
        return
    if len(group) == 1:
        _bounds(group[0], time, targets, live, off, found)
        return
    sums = np.stack([targets[_streams(member)].sum(axis=0) for member in group])
    moved = np.concatenate([[True], np.diff(time) > 0])  # the group's own time may stand still
    if not moved[1:].any():
        return
    time, sums = time[moved], sums[:, moved]
    slopes = np.diff(sums, axis=1) / np.diff(time)
    errors = merge_bound(time, sums, slopes)
    for number, member in enumerate(group):
        inner_time, inner = _own_curves(targets, live, member)
        _bounds(member, inner_time, inner, live, float(errors[number] + slopes[number].max() * off), found)


def merge_bound(time: Floats, targets: Floats, slopes: Floats) -> Floats:
    """Units by which each child of a merge can be off, by the formula of ``merge``.

    Children that stand still at a whole number (not yet begun, or ended) count without error. Slopes are taken over all
    pieces that the moment of counting and the prefix may lie in.

    Args:
        time: float64 ``(K + 1,)``.
        targets: float64 ``(C, K + 1)``.
        slopes: float64 ``(C, K)``: of the targets.

    Returns:
        float64 ``(C,)``.
    """
    whole = np.abs(targets[:, :-1] - np.round(targets[:, :-1])) < 1e-6
    live = ~(whole & (slopes == 0))
    if len(time) > _FINELY:
        count, steepest = live.sum(axis=0).max(), slopes.max(axis=1)
        return np.maximum(0.5, (1 + steepest * (count - 2)) / 2)
    bounds = np.zeros(len(targets))
    for piece in range(len(time) - 1):
        count = int(live[:, piece].sum())
        begin = int(np.searchsorted(time[1:], time[piece] - count / 2))
        end = int(np.searchsorted(time[:-1], time[piece + 1] + count / 2, side="right"))
        around = slopes[:, begin:end]
        steepest, flattest = around.max(axis=1), around.min(axis=1)
        others = count - live[:, piece]
        own = live[:, piece] * (1 - np.where(others > 1, steepest, flattest)) / 2
        bounds = np.maximum(bounds, own + steepest * others / 2)
    return bounds


def _streams(group: Group) -> list[int]:
    return [group] if isinstance(group, int) else [stream for member in group for stream in _streams(member)]
