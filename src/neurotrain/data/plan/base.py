"""What a plan is: the global order of samples, and how a loader asks for one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

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


@runtime_checkable
class LearningPlan(Plan, Protocol):
    """A plan that may have sources whose order follows what the training tells: exempt from being a pure function."""

    @property
    def exempt(self) -> tuple[str, ...]:
        """Names of these sources; empty where there are none."""
        ...

    def learn(self, source: str, entries: NDArray[np.int64], losses: NDArray[np.float64]) -> None:
        """Take note of the losses of some entries of an exempt source."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What was learned, by source."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with what was learned."""
        ...
