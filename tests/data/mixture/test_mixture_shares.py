"""Shares: within a batch of the target at every prefix; the same order however it is asked for."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from mixtures import random_plan, realised, walked_targets

from neurotrain.data.batches import PlannedBatches
from neurotrain.data.mixture import Explicit, MixturePlan, Quotas, Scheduled, SourcePlan, Uniform


@pytest.mark.parametrize("granularity", ["sample", "batch"])
@pytest.mark.parametrize("seed", range(40))
def test_each_source_is_within_a_batch_of_its_target_at_every_prefix(granularity: str, seed: int) -> None:
    plan = random_plan(random.Random(seed), granularity)
    for epoch in (0, 2):
        targets = walked_targets(plan, epoch)
        off = np.abs(realised(plan, epoch)[: len(targets)] - targets).max(axis=0)
        bounds = np.array(plan.schedule(epoch).bounds)
        assert (off <= bounds + 1e-6).all()
        assert (bounds <= plan.global_batch + 1e-6).all()


@pytest.mark.parametrize("granularity", ["sample", "batch"])
@pytest.mark.parametrize("seed", range(12))
def test_blocks_are_the_same_in_any_partition(granularity: str, seed: int) -> None:
    rng = random.Random(seed)
    plan = random_plan(rng, granularity)
    length = plan.length(1)
    whole = plan.block(epoch=1, first=0, last=length)
    assert len(whole.source) == len(whole.index) == length
    cuts = sorted({0, length, *(rng.randint(0, length) for _ in range(9))})
    fresh = random_plan(random.Random(seed), granularity)
    parts = [fresh.block(epoch=1, first=a, last=b) for a, b in reversed(list(itertools.pairwise(cuts)))]
    assert np.array_equal(np.concatenate([part.source for part in reversed(parts)]), whole.source)
    assert np.array_equal(np.concatenate([part.index for part in reversed(parts)]), whole.index)
    assert plan.block(epoch=1, first=3, last=3).index.size == 0


@pytest.mark.parametrize("granularity", ["sample", "batch"])
def test_entries_of_each_source_come_pass_by_pass(granularity: str) -> None:
    checked = 0
    for seed in range(25):
        plan = random_plan(random.Random(seed), granularity)
        block = plan.block(epoch=0, first=0, last=plan.length(0))
        for number, source in enumerate(plan.sources):
            own = block.index[block.source == number]
            assert own.size == 0 or (own.min() >= 0 and own.max() < source.length)
            for first in range(0, len(own) - source.length + 1, source.length):
                assert np.array_equal(np.sort(own[first : first + source.length]), np.arange(source.length))
                checked += 1
    assert checked > 100


@pytest.mark.parametrize("granularity", ["sample", "batch"])
def test_the_order_does_not_know_the_world_size(granularity: str) -> None:
    sources = (SourcePlan(name="a", length=70), SourcePlan(name="b", length=30, exhaustion="drop"))
    plan = MixturePlan(
        sources=sources, weights=Uniform(), global_batch=8, granularity=granularity, samples_per_epoch=96
    )
    whole = plan.block(epoch=3, first=0, last=96)
    for world in (1, 2, 4):
        found = np.full((96, 2), -1)
        for rank in range(world):
            batches = PlannedBatches(plan=plan, batch_size=8 // world, rank=rank, world_size=world)
            batches.set_epoch(3)
            for key in (key for batch in batches for key in batch):
                found[key.position] = (key.source, key.index)
        assert np.array_equal(found, np.stack([whole.source, whole.index], axis=1))


def test_nine_to_one_is_nine_to_one_and_not_one_to_one() -> None:
    """A mode that takes turns by stream, as LitData's, makes halves of these."""
    sources = (SourcePlan(name="a", length=1000), SourcePlan(name="b", length=1000))
    for granularity in ("sample", "batch"):
        plan = MixturePlan(
            sources=sources,
            weights=Explicit(weights={"a": 0.9, "b": 0.1}),
            global_batch=10,
            granularity=granularity,
            samples_per_epoch=2000,
        )
        had = realised(plan, 0)
        assert had[-1].tolist() == [1800, 200]
        assert np.abs(had[:, 0] - 0.9 * np.arange(2001)).max() <= 10


def test_weights_decide_the_epoch_and_not_only_its_beginning() -> None:
    """Probabilities that only reorder an epoch, as SimpleTuner's, end at the sizes' shares."""
    sources = (SourcePlan(name="a", length=100), SourcePlan(name="b", length=900))
    plan = MixturePlan(sources=sources, weights=Explicit(weights={"a": 3, "b": 1}), global_batch=20)
    assert plan.length(0) == 1000
    assert realised(plan, 0)[-1].tolist() == [750, 250]


def test_an_order_worked_by_hand() -> None:
    # Due at (k + 1/2) / share: a 1 3 5 7 9; b 1.67 5 8.33; c 2.5 7.5.
    plan = MixturePlan(
        sources=tuple(SourcePlan(name=name, length=5) for name in "abc"),
        weights=Explicit(weights={"a": 0.5, "b": 0.3, "c": 0.2}),
        global_batch=1,
        granularity="batch",
        samples_per_epoch=20,
    )
    order = "".join("abc"[source] for source in plan.block(epoch=0, first=0, last=20).source)
    assert order == "abcaabacba" * 2


def test_quotas_hold_in_every_global_batch() -> None:
    sources = tuple(SourcePlan(name=name, length=50) for name in "abc")
    plan = MixturePlan(
        sources=sources, weights=Quotas(quotas={"a": 1, "b": 7, "c": 4}), global_batch=12, samples_per_epoch=120_000
    )
    rows = plan.block(epoch=0, first=0, last=120_000).source.reshape(-1, 12)
    assert all(((rows == number).sum(axis=1) == quota).all() for number, quota in enumerate((1, 7, 4)))
    assert len({tuple(row) for row in rows[:50].tolist()}) > 40, "places within a batch are shuffled"


def test_a_ramp_follows_the_optimizer_and_goes_on_in_the_next_epoch() -> None:
    ends = Explicit(weights={"a": 1, "b": 0}), Explicit(weights={"a": 0, "b": 1})
    plan = MixturePlan(
        sources=(SourcePlan(name="a", length=9), SourcePlan(name="b", length=9)),
        weights=Scheduled(start=ends[0], end=ends[1], first_step=5, last_step=15),
        samples_per_epoch=4 * 2 * 10,  # ten optimizer steps of two batches of four
        global_batch=4,
        accumulation=2,
    )
    assert [plan.first_step(epoch) for epoch in range(3)] == [0, 10, 20]
    shares = [realised(plan, epoch)[-1, 1] / 80 for epoch in range(3)]
    # Ten steps: five without b, then 0, .1, .2, .3, .4 of it; in the next epoch .5, .6, .7, .8, .9, then all.
    assert shares == pytest.approx([0.1, 0.85, 1.0], abs=0.0126)


def test_sources_join_and_leave_by_epoch_and_step() -> None:
    plan = MixturePlan(
        sources=(
            SourcePlan(name="a", length=9),
            SourcePlan(name="b", length=9, start_epoch=1, stop_epoch=2),
            SourcePlan(name="c", length=9, start_step=5, stop_step=15),
        ),
        weights=Uniform(),
        samples_per_epoch=60,
        global_batch=6,
    )
    assert realised(plan, 0)[[30, 60]].tolist() == [[30, 0, 0], [45, 0, 15]]
    assert realised(plan, 1)[[30, 60]].tolist() == [[10, 10, 10], [25, 25, 10]]
    assert realised(plan, 2)[60].tolist() == [60, 0, 0]


def test_a_shuffled_batch_deals_every_source_to_every_rank() -> None:
    plan = MixturePlan(
        sources=(SourcePlan(name="a", length=9), SourcePlan(name="b", length=9)),
        weights=Uniform(),
        samples_per_epoch=40_000,
        global_batch=4,
    )
    first = plan.block(epoch=0, first=0, last=40_000).source.reshape(-1, 2)[:, 0]
    assert 0.48 < first.mean() < 0.52  # merged without a shuffle, two ranks would have one source each


def test_a_far_position_equals_the_near_one_of_an_equal_plan() -> None:
    sources = (SourcePlan(name="a", length=10**7), SourcePlan(name="b", length=3 * 10**6))
    plan = MixturePlan(
        sources=sources, weights=Explicit(weights={"a": 0.7, "b": 0.3}), global_batch=64, samples_per_epoch=10**9
    )
    far = plan.block(epoch=0, first=10**9 - 4096, last=10**9)
    assert np.array_equal(far.index[2048:], plan.block(epoch=0, first=10**9 - 2048, last=10**9).index)
    counts = plan.schedule(0).counts(10**9 // 64)
    assert counts.tolist() == [700_000_000, 300_000_000]
