"""What each source should have had by when: piecewise linear targets of one epoch, sources that end included.

Everything here follows from the targets alone, never from what was drawn, so it is decided once, for all ranks, before
the first sample. A source with ``n`` units ends when its target reaches ``n``; its last unit is due half a unit before,
so that exactly ``n`` are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Stretch(NamedTuple):
    """Part of an epoch in which nothing happens from outside.

    Attributes:
        last: where it ends, in units; infinite for the last one.
        shares: float64 ``(sources,)``: relative weights, 0 where a source is absent.
    """

    last: float
    shares: Floats


class Supply(NamedTuple):
    """What a source has to give in an epoch.

    Attributes:
        units: infinite where it is cycled.
        stops: whether the epoch ends with it.
    """

    units: float
    stops: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """Targets of one epoch.

    Attributes:
        time: float64 ``(K + 1,)``: knots in units; a little beyond the end, because units around it are due there.
        targets: float64 ``(sources, K + 1)``.
        ended: source -> time at which its target reached what it has.
        exhausted: whether the epoch is over because sources have ended, and not by its limit.
        live: bool ``(sources,)``: not ended at the last knot.
    """

    time: Floats
    targets: Floats
    ended: dict[int, float]
    exhausted: bool
    live: NDArray[np.bool_]


class NobodyLeftError(ValueError):
    """No source takes part, though the epoch is not over."""


def curves(
    stretches: Iterable[Stretch], supplies: Sequence[Supply], *, limit: int | None, beyond: float = 0.0
) -> Curves:
    """Integrate the weights until the epoch is over.

    It is over after ``limit`` units, when a source that stops has ended, or when all have; without a limit also when
    every source that can end has.

    Args:
        stretches: from the start of the epoch, without gaps; the last one is endless.
        supplies: of each source.
        limit: units; None: until what can end has ended.
        beyond: units behind the end for which targets are needed at least.

    Returns:
        The targets.

    Raises:
        NobodyLeftError: if in some stretch no source has weight.
    """
    walk = _Walk(supplies, limit, beyond)
    for stretch in stretches:
        while walk.now < stretch.last and walk.goes_on():
            walk.step(stretch)
    return walk.result()


class _Walk:
    def __init__(self, supplies: Sequence[Supply], limit: int | None, beyond: float) -> None:
        self._beyond = max(beyond, len(supplies) / 2 + 3)
        self._units = np.array([supply.units for supply in supplies])
        self._stops = {number for number, supply in enumerate(supplies) if supply.stops}
        self._finite = set(np.flatnonzero(np.isfinite(self._units)).tolist())
        self._limit = math.inf if limit is None else float(limit)
        self._horizon = self._limit
        self._ended: dict[int, float] = {}
        self._present = np.ones(len(supplies))
        self._slopes: Floats | None = None
        self._over: Curves | None = None
        self.now = 0.0
        self._times, self._reached = [0.0], [np.zeros(len(supplies))]

    def goes_on(self) -> bool:
        """Whether there is more to integrate; at the end of the epoch, a little."""
        if self._over is None and (self._exhausted() or self.now >= self._limit):
            self._over = self._curves()
            # Units around the end are due at most half a unit a source behind it.
            self._horizon = self.now + self._beyond
        return self._over is None or (self.now < self._horizon and len(self._ended) < len(self._units))

    def step(self, stretch: Stretch) -> None:
        """Go to the end of a stretch, or to the next source's."""
        shares = self._shares(stretch)
        reached = self._reached[-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.where(shares > 0, self.now + (self._units - reached) / shares, math.inf)
        until = float(min(stretch.last, self._horizon, ends.min()))
        if math.isinf(until):
            raise NobodyLeftError(
                "it has no end: the sources that could end it have no weight; state samples_per_epoch"
            )
        beyond = reached + shares * (until - self.now)
        over = np.flatnonzero(ends <= until)
        beyond[over] = self._units[over]  # exactly: rounding must not leave a unit undue
        self._present[over] = 0
        if self._slopes is not None and np.array_equal(shares, self._slopes):
            del self._times[-1], self._reached[-1]  # a knot without a bend costs every later look-up
        self._slopes = shares
        self.now = until
        self._times.append(until)
        self._reached.append(beyond)
        self._ended.update((number, until) for number in over.tolist())

    def result(self) -> Curves:
        """The targets, with the end as it was decided."""
        assert self._over is not None, "the last stretch is endless"
        beyond = self._curves()
        return replace(beyond, ended=self._over.ended, exhausted=self._over.exhausted)

    def _exhausted(self) -> bool:
        ended = set(self._ended)
        if ended & self._stops or len(ended) == len(self._units):
            return True
        return math.isinf(self._limit) and bool(self._finite) and ended >= self._finite

    def _shares(self, stretch: Stretch) -> Floats:
        shares = stretch.shares * self._present
        if self._over is not None and not shares.any():
            shares = self._present.copy()  # beyond the end, where nothing is drawn: only the order needs it
        if not shares.any():
            raise NobodyLeftError(f"no source has weight from {math.ceil(self.now)} on")
        return shares / shares.sum()

    def _curves(self) -> Curves:
        return Curves(
            time=np.array(self._times),
            targets=np.stack(self._reached, axis=1),
            ended=dict(self._ended),
            exhausted=self._exhausted(),
            live=self._present > 0,
        )
