"""Random mixtures, and their targets by the plainest of walks."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.mixture import (
    Explicit,
    MixturePlan,
    Scheduled,
    Sequential,
    Shuffled,
    SizeProportional,
    SourcePlan,
    Temperature,
    Uniform,
    Weights,
)

Floats = NDArray[np.float64]


def random_plan(rng: random.Random, granularity: str) -> MixturePlan:
    """Any strategy, any policies, sources that come and go."""
    names = [f"s{number}" for number in range(rng.randint(1, 6))]
    sources = tuple(_source(rng, name, anchor=name == "s0") for name in names)
    batch = rng.choice([1, 4, 7, 16]) if granularity == "sample" else rng.choice([2, 5])
    endless = not any(source.bounded for source in sources) or any(source.stop_step is not None for source in sources)
    return MixturePlan(
        sources=sources,
        weights=_weights(rng, names),
        samples_per_epoch=None if rng.random() < 0.2 and not endless else rng.randint(50, 900),
        global_batch=batch,
        granularity=granularity,
        accumulation=rng.choice([1, 3]),
        seed=rng.randint(0, 99),
    )


def _source(rng: random.Random, name: str, *, anchor: bool) -> SourcePlan:
    exhaustion = rng.choice(["cycle", "cycle", "drop", "stop", "repeat"])
    # The first one is always there, so that nobody has to be asked whether an epoch can go on.
    start = 0 if anchor else rng.choice([0, 0, 0, rng.randint(1, 20)])
    stop = None if anchor or rng.random() < 0.7 else start + rng.randint(1, 40)
    return SourcePlan(
        name=name,
        length=rng.randint(1, 120),
        repeats=rng.choice([1, 1, 3]),
        exhaustion="cycle" if anchor else exhaustion,
        passes=2 if exhaustion == "repeat" and not anchor else 1,
        sampler=rng.choice([Shuffled(), Sequential()]),
        start_step=start,
        stop_step=stop,
    )


def _weights(rng: random.Random, names: list[str]) -> Weights:
    def explicit() -> Explicit:
        return Explicit(weights={name: rng.choice([0.2, 1, rng.random() + 0.05, 8]) for name in names})

    first = rng.randint(0, 10)
    ramp = Scheduled(
        start=explicit(),
        end=explicit(),
        first_step=first,
        last_step=first + rng.randint(0, 40),
        ramp=rng.choice(["linear", "cosine"]),
    )
    return rng.choice([Uniform(), SizeProportional(), Temperature(temperature=3), explicit(), ramp, ramp])


def walked_targets(plan: MixturePlan, epoch: int) -> Floats:
    """``(P, sources)``: what each source should have had at each prefix, in samples, step by step."""
    unit = plan.global_batch if plan.granularity == "batch" else 1
    caps = np.array([_units(source, unit) for source in plan.sources])
    knots, reached, now = [0.0], [np.zeros(len(caps))], 0.0
    length = plan.length(epoch)
    while now * unit < length and not any(
        source.exhaustion == "stop" and had >= cap
        for source, had, cap in zip(plan.sources, reached[-1], caps, strict=True)
    ):
        step = plan.first_step(epoch) + int(now * unit + 1e-9) // plan.global_batch // plan.accumulation
        shares = plan.weights.shares(plan._sizes, step=step)
        for number, source in enumerate(plan.sources):
            absent = step < source.start_step or (source.stop_step is not None and step >= source.stop_step)
            if absent or not source.takes_part(epoch) or reached[-1][number] >= caps[number]:
                shares[number] = 0
        if not shares.sum():
            break
        shares = shares / shares.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            # To the next whole unit, or to where a source ends.
            span = min(np.floor(now + 1e-9) + 1 - now, ((caps - reached[-1]) / shares)[shares > 0].min())
        had = reached[-1] + shares * span
        had[np.abs(had - caps) < 1e-9] = caps[np.abs(had - caps) < 1e-9]
        now += span
        knots.append(now)
        reached.append(had)
    places = np.arange(min(length, int(now * unit + 1e-6)) + 1) / unit
    table = np.array(reached)
    return np.stack([np.interp(places, knots, column) for column in table.T], axis=1) * unit


def _units(source: SourcePlan, unit: int) -> float:
    if source.exhaustion == "cycle":
        return np.inf
    return -(-source.length * source.rounds // unit)


def realised(plan: MixturePlan, epoch: int) -> Floats:
    """``(length + 1, sources)``: what each source has had at each prefix."""
    source = plan.block(epoch=epoch, first=0, last=plan.length(epoch)).source
    had = np.zeros((len(source) + 1, len(plan.sources)))
    had[1:] = np.cumsum(source[:, None] == np.arange(len(plan.sources)), axis=0)
    return had
