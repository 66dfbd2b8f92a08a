"""What a plan is: the global order of samples, and how a loader asks for one of them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class SampleKey(NamedTuple):
    """What a loader asks a map-style dataset for.

    Attributes:
        index: which sample of the source.
        epoch: pass over the data, from 0.
        position: global place within the epoch, from 0, before it is dealt out to ranks.
        source: which source of a mixture; 0 where there is one.
    """

    index: int  # pyright: ignore[reportIncompatibleMethodOverride] - nobody searches a key
    epoch: int
    position: int
    source: int = 0


class PlanBlock(NamedTuple):
    """A run of consecutive positions of an epoch.

    Attributes:
        source: int32 ``(N,)``: which source, as the plan counts them.
        index: int64 ``(N,)``: which entry of that source.
    """

    source: NDArray[np.int32]
    index: NDArray[np.int64]  # pyright: ignore[reportIncompatibleMethodOverride] - nobody searches a block


class Plan(Protocol):
    """The global order: a pure function of (epoch, position), the same on every rank and in every worker."""

    def length(self, epoch: int) -> int:
        """Positions of one epoch, over all ranks."""
        ...

    def block(self, *, epoch: int, first: int, last: int) -> PlanBlock:
        """The samples at positions ``[first, last)``; its cost does not depend on ``first``."""
        ...

    def fingerprint(self) -> str:
        """Identity of the order: equal plans, equal digits."""
        ...
