"""Sources that end: exactly when, exactly with what, decided once."""

from __future__ import annotations

import random

import numpy as np
import pytest
from mixtures import random_plan, realised

from neurotrain.data.mixture import Explicit, MixturePlan, Scheduled, SourcePlan, Uniform
from neurotrain.data.mixture.source import Exhaustion


def pair(
    exhaustion: Exhaustion, *, samples: int | None = None, granularity: str = "sample", **more: int
) -> MixturePlan:
    """Source ``a`` of 12 samples that may end, and ``b`` that never does, half and half in batches of 4."""
    sources = (SourcePlan(name="a", length=12, exhaustion=exhaustion, **more), SourcePlan(name="b", length=7))
    return MixturePlan(
        sources=sources, weights=Uniform(), global_batch=4, granularity=granularity, samples_per_epoch=samples
    )


def test_cycle_begins_again() -> None:
    plan = pair("cycle", samples=48)
    assert realised(plan, 0)[-1].tolist() == [24, 24]
    assert plan.describe()["sources"]["a"]["exhausted_at"] is None
    assert plan.describe()["sources"]["a"]["passes"] == 2.0


def test_drop_leaves_the_rest_to_the_others() -> None:
    plan = pair("drop", samples=48)
    had = realised(plan, 0)
    assert had[[24, 48], 0].tolist() == [12, 12]
    end = plan.describe()["sources"]["a"]["exhausted_at"]
    assert end in range(21, 25)
    assert (had[end - 1, 0], had[end, 0]) == (11, 12)


def test_stop_ends_the_epoch_for_all() -> None:
    plan = pair("stop", samples=1000)
    assert plan.length(0) in (23, 24)  # a's last sample is due at 23 of 24
    assert realised(plan, 0)[-1, 0] == 12
    assert plan.length(0) == pair("stop").length(0)


def test_repeat_goes_on_for_some_passes() -> None:
    plan = pair("repeat", samples=200, passes=3)
    assert realised(plan, 0)[-1].tolist() == [36, 164]
    assert realised(pair("drop", samples=200, repeats=3), 0)[-1].tolist() == [36, 164]


def test_without_a_length_the_epoch_lasts_until_what_can_end_has_ended() -> None:
    sources = (
        SourcePlan(name="a", length=10, exhaustion="drop"),
        SourcePlan(name="b", length=50, exhaustion="drop"),
        SourcePlan(name="c", length=3),
    )
    plan = MixturePlan(sources=sources, weights=Uniform(), global_batch=6)
    # To 30 all three, then b and c alone: b's other 40 need 80.
    assert abs(plan.length(0) - 110) <= 2
    assert realised(plan, 0)[-1, :2].tolist() == [10, 50]
    alone = MixturePlan(sources=sources[:2], weights=Uniform(), global_batch=6)
    assert alone.length(0) == 60
    assert realised(alone, 0)[-1].tolist() == [10, 50]


def test_an_epoch_ends_early_where_nobody_is_left() -> None:
    plan = MixturePlan(
        sources=(SourcePlan(name="a", length=10, exhaustion="drop"),), global_batch=4, samples_per_epoch=100
    )
    assert [plan.length(epoch) for epoch in range(3)] == [10, 10, 10]


@pytest.mark.parametrize("granularity", ["sample", "batch"])
def test_what_ends_has_given_everything_and_nothing_twice(granularity: str) -> None:
    ended = 0
    for seed in range(60):
        plan = random_plan(random.Random(seed), granularity)
        block = plan.block(epoch=0, first=0, last=plan.length(0))
        told = plan.describe()["sources"]
        for number, source in enumerate(plan.sources):
            places = np.flatnonzero(block.source == number)
            assert told[source.name]["samples"] == len(places)
            row = plan.report()[source.name]["shapes"]["all"]
            at = told[source.name]["exhausted_at"]
            if at is None:
                continue
            ended += 1
            assert at == (places[-1] + 1 if places.size else 0)
            assert len(places) == row["due"] + row.get("padded", 0) - row.get("left_out", 0)
            counts = np.bincount(block.index[places], minlength=source.length)
            assert counts.min() >= source.rounds
            assert counts.max() <= source.rounds + -(-row.get("padded", 0) // source.length)
    assert ended > 20


def test_left_overs_of_whole_batches_are_padded_or_reported() -> None:
    def plan(leftover: str | None) -> MixturePlan:
        source = SourcePlan(name="a", length=10, exhaustion="drop", leftover=leftover)
        return MixturePlan(sources=(source,), global_batch=4, granularity="batch")

    for leftover in (None, "pad"):
        assert plan(leftover).length(0) == 12
        row = plan(leftover).report()["a"]["shapes"]["all"]
        assert row == {"entries": 10, "samples": 12, "due": 10, "padded": 2, "left_out": 0}
        assert set(plan(leftover).block(epoch=0, first=0, last=12).index) == set(range(10))
    assert plan("report").length(0) == 8
    assert plan("report").report()["a"]["shapes"]["all"]["left_out"] == 2


def test_a_source_that_left_gives_nothing_more_and_one_that_ended_has_no_share_left() -> None:
    sources = (
        SourcePlan(name="a", length=1000),
        SourcePlan(name="b", length=30, exhaustion="drop"),
        SourcePlan(name="c", length=1000, stop_step=10),
    )
    ramp = Scheduled(
        start=Explicit(weights={"a": 1, "b": 2, "c": 1}),
        end=Explicit(weights={"a": 1, "b": 0, "c": 3}),
        first_step=0,
        last_step=20,
    )
    plan = MixturePlan(sources=sources, weights=ramp, global_batch=10, samples_per_epoch=300)
    had = realised(plan, 0)
    assert had[-1, 1] == 30
    assert had[100, 2] == had[300, 2] > 0
    assert had[300, 0] == 300 - 30 - had[100, 2]


def test_many_sources_that_end_one_after_another_stay_close_too() -> None:
    """No grouping of merges is proven to be within one batch here: the order is walked by deadlines."""
    rng = np.random.default_rng(0)
    sources = tuple(
        SourcePlan(name=f"s{number}", length=int(length), exhaustion="drop")
        for number, length in enumerate(rng.integers(20, 400, 12))
    )
    plan = MixturePlan(sources=sources, weights=Uniform(), global_batch=3, granularity="batch")
    assert max(plan.schedule(0).bounds) <= 3
    assert all(told["exhausted_at"] is not None for told in plan.describe()["sources"].values())
