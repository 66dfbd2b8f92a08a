"""A mixture's weights over one epoch, as stretches of positions in which nothing changes from outside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from neurotrain.data.mixture.curves import Stretch
from neurotrain.data.mixture.source import SourcePlan
from neurotrain.data.mixture.weights import Sizes, Weights

STAIRS = 4096
"""Stairs by which a ramp of more optimizer steps is drawn; each has the weight of its middle."""


def depends_on_steps(sources: Sequence[SourcePlan], weights: Weights) -> bool:
    """Whether it matters at which optimizer step an epoch begins."""
    windows = any(source.start_step or source.stop_step is not None for source in sources)
    return windows or bool(weights.changes())


def stretches(
    *, sources: Sequence[SourcePlan], weights: Weights, sizes: Sizes, epoch: int, first_step: int, units_per_step: int
) -> Iterator[Stretch]:
    """Weights of one epoch.

    Args:
        sources: of the mixture.
        weights: strategy.
        sizes: what it looks at.
        epoch: from 0.
        first_step: optimizer step at which the epoch begins.
        units_per_step: units of position that one optimizer step takes.

    Yields:
        Stretches, from the start of the epoch; the last one is endless.
    """
    edges = [edge for edge in _edges(sources, weights) if edge > first_step]
    begin = first_step
    for end in [*edges, math.inf]:
        last = (end - first_step) * units_per_step
        middle = begin if math.isinf(end) else (begin + end - 1) / 2
        present = [source.takes_part(epoch) and _in_steps(source, begin) for source in sources]
        yield Stretch(last, np.where(present, weights.shares(sizes, step=middle), 0.0))
        begin = int(end) if math.isfinite(end) else begin


def _edges(sources: Sequence[SourcePlan], weights: Weights) -> list[int]:
    """Optimizer steps at which something changes, ascending."""
    edges = {source.start_step for source in sources}
    edges |= {source.stop_step for source in sources if source.stop_step is not None}
    for first, last in weights.changes():
        stairs = min(last - first, STAIRS)
        edges |= {first + stair * (last - first) // stairs for stair in range(stairs)} | {first, last}
    return sorted(edges)


def _in_steps(source: SourcePlan, step: int) -> bool:
    return source.start_step <= step and (source.stop_step is None or step < source.stop_step)
