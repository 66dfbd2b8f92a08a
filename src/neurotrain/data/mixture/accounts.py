"""What an epoch of a mixture amounts to, in plain values: for the summary of a run, and for whoever counts."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np

from neurotrain.data.mixture.merge import Indices
from neurotrain.data.mixture.pools import Pools
from neurotrain.data.mixture.schedule import Schedule
from neurotrain.data.mixture.source import SourcePlan


def drawn(schedule: Schedule, pools: Sequence[Pools], *, batch: int) -> list[Indices]:
    """Samples of each source's pools in an epoch.

    Args:
        schedule: of the epoch.
        pools: of each source.
        batch: samples of a global batch.

    Returns:
        int64 ``(pools,)`` for each source.
    """
    whole = schedule.length // batch
    counts = schedule.counts(whole)
    if schedule.length % batch:
        counts = counts + np.bincount(schedule.block(whole, whole + 1).pool, minlength=len(counts))
    return np.split(counts, np.cumsum([len(its.pools) for its in pools])[:-1])


def exhausted_at(schedule: Schedule, source: int, pools: Sequence[Pools], *, batch: int) -> int | None:
    """Position behind the last sample of a source that has given all; None where the epoch ends before.

    Args:
        schedule: of the epoch.
        source: its number.
        pools: of each source.
        batch: samples of a global batch.
    """
    first = sum(len(its.pools) for its in pools[:source])
    own = slice(first, first + len(pools[source].pools))
    everything = round(float(schedule.curves.targets[source, -1])) * schedule.unit
    if source not in schedule.curves.ended or drawn(schedule, pools, batch=batch)[source].sum() < everything:
        return None
    # The last whole batch before which something is missing.
    found = bisect_left(range(1, schedule.length // batch + 1), everything, key=lambda b: schedule.counts(b)[own].sum())
    block = schedule.block(found, found + 1).pool
    places = np.flatnonzero((block >= own.start) & (block < own.stop))
    return found * batch + int(places[-1]) + 1 if places.size else found * batch


def described(
    schedule: Schedule, sources: Sequence[SourcePlan], pools: Sequence[Pools], *, batch: int
) -> dict[str, dict[str, Any]]:
    """Target and outcome of each source.

    Args:
        schedule: of the epoch.
        sources: of the mixture.
        pools: of each.
        batch: samples of a global batch.

    Returns:
        By name: ``entries`` that take part, ``target`` and ``samples`` at the end of the epoch, ``share`` of all,
        ``passes`` over the entries, ``exhausted_at``, and ``bound``: samples by which it can be off at any prefix.
    """
    curves, length = schedule.curves, schedule.length
    found: dict[str, dict[str, Any]] = {}
    for number, (source, its, counts) in enumerate(
        zip(sources, pools, drawn(schedule, pools, batch=batch), strict=True)
    ):
        samples = int(counts.sum())
        target = np.interp(length / schedule.unit, curves.time, curves.targets[number]) * schedule.unit
        found[source.name] = {
            "entries": its.selected,
            "target": float(target),
            "samples": samples,
            "share": samples / length if length else 0.0,
            "passes": samples / its.selected,
            "exhausted_at": exhausted_at(schedule, number, pools, batch=batch),
            "bound": float(schedule.bounds[number]),
        }
    return found


def targeted(schedule: Schedule, positions: int) -> list[float]:
    """Share that each source should have of the first positions.

    Args:
        schedule: of the epoch.
        positions: how many; at least 1.
    """
    curves = schedule.curves
    due = np.array([np.interp(positions / schedule.unit, curves.time, target) for target in curves.targets])
    return (due / due.sum()).tolist()


def reported(
    schedule: Schedule, sources: Sequence[SourcePlan], pools: Sequence[Pools], *, batch: int
) -> dict[str, dict[str, Any]]:
    """Where every entry went.

    Args:
        schedule: of the epoch.
        sources: of the mixture.
        pools: of each.
        batch: samples of a global batch.

    Returns:
        By name: ``length`` of the source; ``unselected`` by its sampler; ``samples`` drawn; ``merged``: entries that
        went to another shape; ``shapes``: for each ``entries``, ``samples``, and, where the source can be exhausted,
        ``due`` until then, and ``padded`` and ``left_out``, so that ``samples = due + padded - left_out`` when it is.
    """
    found: dict[str, dict[str, Any]] = {}
    numbers, leftovers = itertools.count(), schedule.leftovers
    for source, its, counts in zip(sources, pools, drawn(schedule, pools, batch=batch), strict=True):
        shapes: dict[str, dict[str, int]] = {}
        for pool, count in zip(its.pools, counts.tolist(), strict=True):
            number = next(numbers)
            row = shapes[_named(pool.shape) if pool.shape else "all"] = {
                "entries": pool.drawer.size,
                "samples": count,
            }
            if source.bounded:
                row["due"] = pool.drawer.size * source.rounds
                if leftovers is not None:
                    row["padded"] = int(leftovers.padded[number])
                    row["left_out"] = int(leftovers.left_out[number])
        found[source.name] = {
            "length": source.length,
            "unselected": source.length - its.selected,
            "samples": int(counts.sum()),
            "merged": {f"{_named(old)} to {_named(new)}": count for (old, new), count in its.moved.items()},
            "shapes": shapes,
        }
    return found


def _named(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
