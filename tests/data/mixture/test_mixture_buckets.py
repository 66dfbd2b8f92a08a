"""Shape buckets: homogeneous batches, in proportion, nothing lost."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from neurotrain.data.batches import PlannedBatches
from neurotrain.data.mixture import Buckets, Explicit, KFold, MixturePlan, SourcePlan
from neurotrain.data.mixture.source import Leftover

SHAPES = ((64, 64), (64, 96), (96, 64), (128, 128))


def bucketed(seed: int, **settings: Any) -> tuple[SourcePlan, np.ndarray]:  # noqa: ANN401 - of the source
    rng = np.random.default_rng(seed)
    ids = rng.choice(4, 500, p=[0.5, 0.3, 0.15, 0.05])
    return SourcePlan(name="a", length=500, buckets=Buckets(ids=ids, shapes=SHAPES), **settings), ids


def test_every_global_batch_has_one_shape_on_every_rank() -> None:
    source, ids = bucketed(0)
    other = SourcePlan(name="b", length=40)
    plan = MixturePlan(
        sources=(source, other),
        weights=Explicit(weights={"a": 0.8, "b": 0.2}),
        global_batch=8,
        granularity="batch",
        samples_per_epoch=1600,
    )
    numbers = plan.shape_numbers(epoch=0, first=0, last=1600)
    block = plan.block(epoch=0, first=0, last=1600)
    assert (numbers.reshape(-1, 8) == numbers[::8, None]).all()
    assert (numbers[block.source == 1] == -1).all()
    own = block.source == 0
    assert [plan.shapes[number] for number in numbers[own]] == [SHAPES[bucket] for bucket in ids[block.index[own]]]
    for world in (2, 4):
        for rank in range(world):
            batches = PlannedBatches(plan=plan, batch_size=8 // world, rank=rank, world_size=world)
            assert all(len({numbers[key.position] for key in batch}) == 1 for batch in batches)


def test_shapes_come_in_proportion_and_the_sources_bound_holds_with_them() -> None:
    source, ids = bucketed(1)
    plan = MixturePlan(
        sources=(source, SourcePlan(name="b", length=40)),
        weights=Explicit(weights={"a": 0.75, "b": 0.25}),
        global_batch=8,
        granularity="batch",
        samples_per_epoch=8000,
    )
    block = plan.block(epoch=0, first=0, last=8000)
    had = np.cumsum(block.source == 0)
    assert np.abs(had - 0.75 * np.arange(1, 8001)).max() <= 8
    shares = np.bincount(ids[block.index[block.source == 0]], minlength=4) / 6000
    assert shares == pytest.approx(np.bincount(ids) / 500, abs=0.004)  # three batches


@pytest.mark.parametrize("seed", range(4))
def test_each_entry_comes_once_a_pass_of_its_bucket(seed: int) -> None:
    source, ids = bucketed(seed)
    plan = MixturePlan(sources=(source,), global_batch=4, granularity="batch", samples_per_epoch=2000)
    index = plan.block(epoch=random.Random(seed).randint(0, 9), first=0, last=2000).index
    for bucket in range(4):
        own, size = index[ids[index] == bucket], int((ids == bucket).sum())
        for first in range(0, len(own) - size + 1, size):
            assert len(set(own[first : first + size].tolist())) == size


@pytest.mark.parametrize("leftover", ["pad", "merge", "report"])
def test_left_overs_add_up(leftover: Leftover) -> None:
    source, ids = bucketed(2, exhaustion="drop", leftover=leftover)
    plan = MixturePlan(sources=(source,), global_batch=16, granularity="batch")
    index = plan.block(epoch=1, first=0, last=plan.length(1)).index
    report = plan.report(1)["a"]
    rows = report["shapes"].values()
    sizes = np.bincount(ids, minlength=4)
    assert sum(row["samples"] for row in rows) == plan.length(1) == len(index)
    assert all(row["samples"] == row["due"] + row["padded"] - row["left_out"] for row in rows)
    assert all(row["samples"] % 16 == 0 for row in rows)
    left_out = sum(row["left_out"] for row in rows)
    assert len(set(index.tolist())) == 500 - left_out
    if leftover == "report":
        assert left_out == (sizes % 16).sum() > 0
    elif leftover == "pad":
        assert sum(row["padded"] for row in rows) == (-sizes % 16).sum() > 0
    else:
        assert sum(row["padded"] for row in rows) == -500 % 16
        assert sum(report["merged"].values()) > 0


def test_left_overs_are_merged_into_the_nearest_shape() -> None:
    shapes = ((100, 100), (100, 110), (400, 100))
    ids = np.array([0] * 8 + [1] * 3 + [2] * 9)
    source = SourcePlan(name="a", length=20, buckets=Buckets(ids=ids, shapes=shapes), leftover="merge")
    plan = MixturePlan(sources=(source,), global_batch=4, granularity="batch", samples_per_epoch=40)
    # Three of 100x110 go to 100x100, which has eleven then; one of the nine of 400x100 makes them twelve.
    assert plan.report()["a"]["merged"] == {"100x110 to 100x100": 3, "400x100 to 100x100": 1}
    numbers = plan.shape_numbers(epoch=0, first=0, last=40)
    assert plan.shapes == ((100, 100), (400, 100))
    index = plan.block(epoch=0, first=0, last=40).index
    assert set(range(11)) < set(index[numbers == 0].tolist())
    assert sorted(index.tolist()) == sorted([*range(20), *range(20)])
    assert np.bincount(numbers).tolist() == [24, 16]


def test_selections_and_buckets_go_together() -> None:
    source, ids = bucketed(3, sampler=KFold(folds=5, fold=2, part="validation"), exhaustion="stop")
    plan = MixturePlan(sources=(source,), global_batch=4, granularity="batch")
    report = plan.report()["a"]
    assert report["unselected"] == 400
    assert sum(row["entries"] for row in report["shapes"].values()) == 100
    chosen = set(plan.block(epoch=0, first=0, last=plan.length(0)).index.tolist())
    assert chosen == set(source.sampler.entries(500).array().tolist())
    assert len(ids) == 500
