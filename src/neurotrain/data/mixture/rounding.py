"""Whole batches of one shape out of fractions of samples: a rounding that keeps every source close to its target.

A *table* has a row for each source and a column for each shape; a cell counts the samples of one source and one shape.
What a table should be is known in fractions (share of the source times share of the shape within it). Rounded, every
column must hold whole batches, as a batch has one shape, and no cell may leave its limits. Within these, first the
batches are dealt out to the columns, then each column's places to its sources: in proportion, and where a shape has no
samples of a source, that source's debt is carried by the shapes that have.

Several tables are rounded at once, each by itself.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_SHAPES = 0.1  # what a shape's distance from its own target weighs beside a source's, both in batches and squared
_SWAPS = 3  # exchanges of a batch of one shape for one of another that are tried
_TOLERATED = 4  # a source may be off by this part of a batch before places are taken from others' proportions
_FAR = 0.7  # of a batch: a source that is farther off has its table searched for
_TRIED = 6  # shapes that a search tries
_TINY = 1e-9


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What is rounded, for N tables of S sources and C shapes.

    Attributes:
        wanted: float64 ``(N, S, C)``: samples.
        least: int64 ``(N, S, C)``: fewest samples of each cell.
        most: int64 ``(N, S, C)``: most samples of each cell.
        fewest: int64 ``(N, C)``: fewest batches of each shape.
        largest: int64 ``(N, C)``: most batches of each shape; ``least`` and ``most`` have room for them.
        mix: float64 ``(N, S, C)``: samples of each source in a typical batch of a shape.
        batches: int64 ``(N,)``: of all shapes; between the sums of ``fewest`` and ``largest``.
        size: samples of a batch.
    """

    wanted: Floats
    least: Indices
    most: Indices
    fewest: Indices
    largest: Indices
    mix: Floats
    batches: Indices
    size: int


def halved(between: Indices, batches: Indices, first: Indices, wanted: Floats, *, size: int) -> Indices:
    """The first part of some stretches of batches.

    Args:
        between: int64 ``(N, S, C)``: samples of each stretch; ``size * batches`` in each column.
        batches: int64 ``(N, C)``: batches of each shape in it.
        first: int64 ``(N,)``: batches of the first part.
        wanted: float64 ``(N, S, C)``: samples that the first part should have.
        size: samples of a batch.

    Returns:
        int64 ``(N, S, C)``: samples of the first part, at most ``between``.

    Example:
        >>> between = np.array([[[8, 0], [0, 4]]])  # two batches of four of the one shape, one of the other
        >>> halved(between, np.array([[2, 1]]), np.array([1]), between / 3, size=4).tolist()
        [[[4, 0], [0, 0]]]
    """
    return rounded(
        Tables(
            wanted=wanted,
            least=np.zeros_like(between),
            most=between,
            fewest=np.zeros_like(batches),
            largest=batches,
            mix=between / np.maximum(batches, 1)[:, None, :],
            batches=first,
            size=size,
        )
    )


def rounded(tables: Tables) -> Indices:
    """Round some tables.

    Args:
        tables: with room for what they ask for.

    Returns:
        int64 ``(N, S, C)``: samples; a column sums to whole batches, all columns of a table to its batches.
    """
    clipped = np.clip(tables.wanted, tables.least, tables.most)
    batches = _dealt(tables, clipped)
    counts = _filled(tables, clipped, batches * tables.size)
    _balanced(tables, counts)
    off = np.abs(tables.wanted.sum(axis=2) - counts.sum(axis=2)).max(axis=1)
    for number in np.flatnonzero(off > _FAR * tables.size).tolist():
        counts[number] = _searched(tables, number, clipped[number], batches[number])
    return counts


def _searched(tables: Tables, number: int, clipped: Floats, dealt: Indices) -> Indices:
    """The best of all tables whose shapes have a batch more or less; for the few that came out too far off.

    Only the shapes that move the sources most are tried, those with the fewest batches more or less first.
    """
    mix = tables.mix[number]
    moves = np.abs(mix - mix.mean(axis=1, keepdims=True)).sum(axis=0)
    chosen = np.argsort(-moves, kind="stable")[:_TRIED]
    fewest, largest = tables.fewest[number] - dealt, tables.largest[number] - dealt
    steps = [[step for step in (0, -1, 1) if fewest[shape] <= step <= largest[shape]] for shape in chosen.tolist()]
    tried = np.array([step for step in itertools.product(*steps) if not sum(step)], np.int64)
    batches = np.repeat(dealt[None], len(tried), axis=0)
    batches[:, chosen] += tried
    several = Tables(
        **{
            key: np.repeat(getattr(tables, key)[number : number + 1], len(tried), axis=0)
            for key in ("wanted", "least", "most", "fewest", "largest", "mix", "batches")
        },
        size=tables.size,
    )
    counts = _filled(several, np.repeat(clipped[None], len(tried), axis=0), batches * tables.size)
    _balanced(several, counts)
    off = np.abs(several.wanted.sum(axis=2) - counts.sum(axis=2)).max(axis=1)
    return counts[(off / tables.size + _SHAPES / 10 * np.abs(tried).sum(axis=1)).argmin()]


def _dealt(tables: Tables, clipped: Floats) -> Indices:
    """Batches of each shape: near to what it should have, and so that the sources can have what they should."""
    due = clipped.sum(axis=1) / tables.size
    dealt = np.clip(np.floor(due + _TINY).astype(np.int64), tables.fewest, tables.largest)
    need = tables.wanted.sum(axis=2) - _spread(tables, clipped, dealt * tables.size).sum(axis=2)
    left = tables.batches - dealt.sum(axis=1)
    rows = np.arange(len(left))
    norm = (tables.mix**2).sum(axis=1)
    while left.any():
        sign = np.sign(left)[:, None]
        room = np.where(sign > 0, dealt < tables.largest, dealt > tables.fewest)
        along = np.matmul(need[:, None, :], tables.mix)[:, 0]
        cost = (norm - 2 * sign * along) / tables.size**2 + _SHAPES * 2 * sign * (dealt - due)
        chosen = np.where(room, cost, np.inf).argmin(axis=1)
        step = sign[:, 0]
        assert room[rows, chosen][step != 0].all(), "the shapes have room for all batches"
        dealt[rows, chosen] += step
        need -= step[:, None] * tables.mix[rows, :, chosen]
        left -= step
    for _ in range(_SWAPS):
        if not _swapped(tables, dealt, due, need, norm):
            break
    return dealt


def _swapped(tables: Tables, dealt: Indices, due: Floats, need: Floats, norm: Floats) -> bool:
    """Exchange a batch of one shape for one of another where that brings the sources nearer; whether any was."""
    bad = np.flatnonzero(np.abs(need).max(axis=1) * _TOLERATED > tables.size)
    if not bad.size or dealt.shape[1] == 1:
        return False
    mix, off = tables.mix[bad], dealt[bad] - due[bad]
    along = np.matmul(need[bad][:, None, :], mix)[:, 0]
    gram = np.matmul(mix.transpose(0, 2, 1), mix)
    # From the first shape (axis 1) to the second (axis 2): the first gives a batch less, the second one more.
    less = (norm[bad] + 2 * along) / tables.size**2 + _SHAPES * (1 - 2 * off)
    more = (norm[bad] - 2 * along) / tables.size**2 + _SHAPES * (1 + 2 * off)
    cost = less[:, :, None] + more[:, None, :] - 2 * gram / tables.size**2
    allowed = (dealt[bad] > tables.fewest[bad])[:, :, None] & (dealt[bad] < tables.largest[bad])[:, None, :]
    cost = np.where(allowed, cost, np.inf).reshape(len(bad), -1)
    best = cost.argmin(axis=1)
    better = cost[np.arange(len(bad)), best] < -_TINY
    bad, (source, target) = bad[better], np.divmod(best[better], dealt.shape[1])
    dealt[bad, source] -= 1
    dealt[bad, target] += 1
    need[bad] += tables.mix[bad, :, source] - tables.mix[bad, :, target]
    return bool(bad.size)


def _spread(tables: Tables, clipped: Floats, places: Indices) -> Floats:
    """Fractions of samples that fill some places of each shape, within the cells' limits."""
    have = clipped.sum(axis=1)
    room = tables.most - clipped if (places > have).any() else np.zeros_like(clipped)
    spare = clipped - tables.least
    more = np.maximum(places - have, 0) / np.maximum(room.sum(axis=1), _TINY)
    less = np.maximum(have - places, 0) / np.maximum(spare.sum(axis=1), _TINY)
    return clipped + room * np.minimum(more, 1)[:, None] - spare * np.minimum(less, 1)[:, None]


def _filled(tables: Tables, clipped: Floats, places: Indices) -> Indices:
    """Whole samples in the places of each shape: in proportion, and what rounding leaves to who needs it most."""
    spread = _spread(tables, clipped, places)
    counts = np.clip(np.floor(spread + _TINY).astype(np.int64), tables.least, tables.most)
    left = places - counts.sum(axis=1)
    need = tables.wanted.sum(axis=2) - counts.sum(axis=2)
    rest = spread - counts
    for shape in np.flatnonzero(left.any(axis=0)).tolist():
        while (waits := np.flatnonzero(left[:, shape])).size:
            sign = np.sign(left[waits, shape])
            own = counts[waits, :, shape]
            room = np.where(sign[:, None] > 0, own < tables.most[waits, :, shape], own > tables.least[waits, :, shape])
            # The fraction first (nobody gets a second place before the others have had theirs), then the need.
            urgent = sign[:, None] * (np.clip(rest[waits, :, shape], -1, 1) * 2 + need[waits] / tables.size)
            chosen = np.where(room, urgent, -np.inf).argmax(axis=1)
            assert room[np.arange(len(waits)), chosen].all(), "the cells have room for the places of their shape"
            counts[waits, chosen, shape] += sign
            rest[waits, chosen, shape] -= sign
            need[waits, chosen] -= sign
            left[waits, shape] -= sign
    return counts


def _balanced(tables: Tables, counts: Indices) -> None:
    """Let sources that are behind take places of those that are ahead, in shapes that both have."""
    need = tables.wanted.sum(axis=2) - counts.sum(axis=2)
    tolerated = max(1.0, tables.size / _TOLERATED)
    for _ in range(2 * need.shape[1]):
        bad = np.flatnonzero(np.abs(need).max(axis=1) > tolerated)
        if not bad.size:
            return
        room, spare = tables.most[bad] - counts[bad], counts[bad] - tables.least[bad]
        # By pairs of sources: what the one may give to the other in the shape where that is most.
        pairs = np.minimum(room[:, :, None, :], spare[:, None, :, :])
        shape, able = pairs.argmax(axis=3), pairs.max(axis=3)
        gap = (need[bad][:, :, None] - need[bad][:, None, :]) / 2
        worth = np.minimum(able, np.floor(gap)).reshape(len(bad), -1)
        best = worth.argmax(axis=1)
        moved = worth[np.arange(len(bad)), best].astype(np.int64)
        helps = moved > 0
        if not helps.any():
            return
        bad, moved, best = bad[helps], moved[helps], best[helps]
        gets, gives = np.divmod(best, need.shape[1])
        where = shape[helps, gets, gives]
        amount = np.minimum(moved, np.ceil(np.abs(need[bad]).max(axis=1) - tolerated).astype(np.int64).clip(1))
        counts[bad, gets, where] += amount
        counts[bad, gives, where] -= amount
        need[bad, gets] -= amount
        need[bad, gives] += amount
