"""Who is served at which place: several streams merged into one, each close to its target at every prefix.

The targets are curves ``T_c(t)``: what child ``c`` should have had by time ``t``, non-decreasing, with
``sum_c T_c(t) = t``. The k-th unit of child ``c`` (k from 0) is due when its target is half through it, at
``T_c^-1(k + 1/2)``; the merged order is the order of these due times, and a place in it is a rank.

**Bound.** At any moment ``t`` child ``c`` has had ``T_c(t) + e_c`` units, with ``|e_c| <= 1/2`` because it counts by
rounding. All children together have had ``p = t + sum_j e_j``. So at the prefix of ``p`` units, where the target says
``T_c(p)``, and with ``v`` the (mean) slope of ``T_c`` between ``t`` and ``p``::

    realised - target = T_c(t) + e_c - T_c(p) = e_c - v * sum_j e_j = (1 - v) * e_c - v * sum_{j != c} e_j

    |realised - target| <= ((1 - v) + v * (C - 1)) / 2 = (1 + v * (C - 2)) / 2

for C children: 1/2 of a unit for two, less than 1 for three, 1 - 1/C for C equal ones. It holds for curves of any
shape, thus for weights that change, and at every prefix, as every prefix is the set of units due up to some moment.

**Random access.** Units due before ``t`` number ``t`` give or take C/2, so the place ``p`` is found among the few units
due around time ``p``. What lies before is counted by evaluating the curves, which are piecewise linear.

Reference:
    Steiner and Yeomans, 1993, "Level schedules for mixed-model, just-in-time processes"; Inman and Bulfin, 1991,
    "Sequencing JIT mixed-model assembly lines" (due dates at ``(k - 1/2) / rate``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class Merged(NamedTuple):
    """A stretch of a merged order.

    Attributes:
        child: int64 ``(N,)``: whose unit stands at each place.
        first: int64 ``(C,)``: units of each child before the stretch; its units in there follow one by one.
    """

    child: Indices
    first: Indices


class Merge:
    """The merged order of some streams with piecewise linear targets.

    Args:
        time: float64 ``(K + 1,)``: knots, ascending, from 0.
        targets: float64 ``(C, K + 1)``: of each child at each knot; a column sums to its time.

    Example:
        >>> merge = Merge(time=np.array([0.0, 100.0]), targets=np.array([[0.0, 90.0], [0.0, 10.0]]))
        >>> merge.block(0, 10).child.tolist()
        [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    """

    def __init__(self, *, time: Floats, targets: Floats) -> None:
        assert targets.shape[1] == len(time) >= 2, "a merge needs targets at each of its knots"
        self._time, self._targets = time, targets
        steps = np.diff(targets, axis=1)
        # Where nothing is due no unit looks its time up, so the value of the slope does not matter there.
        self._slopes = np.diff(time) / np.where(steps > 0, steps, 1.0)
        self._offsets = time[:-1] - targets[:, :-1] * self._slopes
        self._counts = np.floor(targets[:, -1] + 0.5).astype(np.int64)
        self._slack = len(targets) / 2 + 2
        self._end = max(float(time[-1]), 1e-9)
        self._mask = np.uint64((1 << (len(targets) - 1).bit_length()) - 1)
        self._numbers = np.arange(len(targets), dtype=np.uint64)

    def block(self, first: int, last: int) -> Merged:
        """The places ``[first, last)``.

        Args:
            first: from 0.
            last: at most the number of units that there are.

        Returns:
            Children, and where each begins.
        """
        before, near = self._near(first, last)
        offset = first - int(before.sum())
        assert offset >= 0, "units before the first place were counted out of order"
        child = near[offset : offset + last - first]
        assert len(child) == last - first, "the order has no such place"
        return Merged(child, before + np.bincount(near[:offset], minlength=len(before)))

    def counts(self, place: int) -> Indices:
        """Units of each child before a place.

        Args:
            place: at most the number of units that there are.

        Returns:
            int64 ``(C,)``.
        """
        return self.block(place, place).first

    def _near(self, first: int, last: int) -> tuple[Indices, Indices]:
        """Children around some places in order, and how many units of each lie before those."""
        begin = self._target_at(first - self._slack)
        end = self._target_at(last + self._slack)
        stops = np.minimum(np.ceil(end).astype(np.int64) + 1, self._counts)
        starts = np.minimum(np.maximum(np.floor(begin).astype(np.int64) - 1, 0), stops)
        due = [self._due(child, a, b) for child, (a, b) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True))]
        # Positive floats sort as their bits do. The last bits give way to the child's number: equal times go to the
        # first child, and one sort of plain words does it all.
        keys = np.concatenate(due).view(np.uint64)
        keys &= ~self._mask
        keys |= np.repeat(self._numbers, stops - starts)
        keys.sort()
        keys &= self._mask
        return starts, keys.astype(np.int64)

    def _target_at(self, moment: float) -> Floats:
        if len(self._time) == 2:
            return self._targets[:, 1] * (min(max(moment, 0.0), self._end) / self._end)
        return np.array([np.interp(moment, self._time, target) for target in self._targets])

    def _due(self, child: int, first: int, last: int) -> Floats:
        """Due times of some units; a function of each unit alone, so that no slicing can change the order."""
        target = np.arange(first, last) + 0.5
        slopes, offsets = self._slopes[child], self._offsets[child]
        if len(slopes) == 1 or first == last:
            return target * slopes[0] + offsets[0]
        knots = self._targets[child]
        begin, end = np.clip(np.searchsorted(knots, target[[0, -1]], side="right") - 1, 0, len(slopes) - 1).tolist()
        bends = np.searchsorted(target, knots[begin + 1 : end + 1])
        counts = np.diff(bends, prepend=0, append=len(target))
        pieces = slice(begin, end + 1)
        due = target * np.repeat(slopes[pieces], counts) + np.repeat(offsets[pieces], counts)
        return due.astype(np.float64, copy=False)
