"""An order by deadlines, walked through once: for the few mixtures whose merges are not proven to be close enough.

Unit k of a stream with target ``T`` may not come before ``T`` passes k, nor later than when it reaches k + 1; then the
stream is never off by a whole unit. Between places a and b at most ``T(b) - T(a)`` units of it have both their limits,
so all streams together need at most ``b - a`` places there, and serving the earliest deadline first meets all of them.

Reference:
    Baruah et al., 1996, "Proportionate progress: a notion of fairness in resource allocation"; Horn, 1974 (earliest
    deadlines).
"""

from __future__ import annotations

import numpy as np

from neurotrain.data.mixture.merge import Floats, Indices, Merged

_MARK = 1024  # places between two remembered counts
_ROUNDING = 1e-7


class Walk:
    """Earliest deadline first.

    Args:
        time: float64 ``(K + 1,)``: knots.
        targets: float64 ``(C, K + 1)``: a column sums to its time.
        length: places to walk; at most the last knot.
    """

    def __init__(self, *, time: Floats, targets: Floats, length: int) -> None:
        streams = len(targets)
        releases, deadlines = zip(*(_limits(time, target) for target in targets), strict=True)
        had, chosen = [0] * streams, np.empty(length, np.int16)
        marks = [[0] * streams]
        for place in range(length):
            best, soonest = -1, 0.0
            for stream in range(streams):
                unit = had[stream]
                if releases[stream][unit] <= place and (best < 0 or deadlines[stream][unit] < soonest):
                    best, soonest = stream, deadlines[stream][unit]
            assert best >= 0, "every place has a unit that may come"
            chosen[place] = best
            had[best] += 1
            if (place + 1) % _MARK == 0:
                marks.append(had.copy())
        self._child, self._marks = chosen, np.array(marks)

    def block(self, first: int, last: int) -> Merged:
        """The places ``[first, last)``."""
        return Merged(self._child[first:last].astype(np.int64), self.counts(first))

    def counts(self, place: int) -> Indices:
        """Units of each stream before a place."""
        mark = place // _MARK
        since = self._child[mark * _MARK : place]
        return self._marks[mark] + np.bincount(since, minlength=self._marks.shape[1])


def _limits(time: Floats, target: Floats) -> tuple[list[float], list[float]]:
    """First place and last prefix of each unit; one more unit that never may come, where the curve has ended."""
    units = np.arange(np.ceil(target[-1]) + 1)
    return _reached(time, target, units, "right"), _reached(time, target, units + 1, "left")


def _reached(time: Floats, target: Floats, units: Floats, side: str) -> list[float]:
    piece = np.searchsorted(target, units, side="right" if side == "right" else "left")
    inside = np.clip(piece, 1, len(target) - 1)
    step = target[inside] - target[inside - 1]
    way = (units - target[inside - 1]) / np.where(step > 0, step, 1.0)
    moment = time[inside - 1] + way * (time[inside] - time[inside - 1])
    moment = np.where(piece == len(target), np.inf, np.where(piece == 0, 0.0, moment))
    whole = np.floor(moment + _ROUNDING) if side == "right" else np.ceil(moment - _ROUNDING)
    return whole.tolist()
