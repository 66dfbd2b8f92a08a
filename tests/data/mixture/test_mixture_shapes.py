"""Mixing by the sample in batches of one shape: shares, shapes, left-overs, random access."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from mixtures import realised, walked_targets

from neurotrain.data.batches import PlannedBatches
from neurotrain.data.mixture import Buckets, Explicit, MixturePlan, Scheduled, SourcePlan, Uniform
from neurotrain.data.mixture.rounding import halved
from neurotrain.data.mixture.source import Leftover

SHAPES = ((64, 64), (64, 96), (96, 64), (96, 96), (64, 128), (128, 64))


def bucketed(name: str, ids: Any, **settings: Any) -> SourcePlan:  # noqa: ANN401
    return SourcePlan(name=name, length=len(ids), buckets=Buckets(ids=np.array(ids), shapes=SHAPES), **settings)


def random_plan(seed: int, *, bounded: bool) -> MixturePlan:
    """Sources with shapes alike, apart, or as it comes; some come and go, some have no shapes."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    names = [f"s{number}" for number in range(rng.randint(2, 4))]
    count, style = rng.randint(2, 6), rng.choice(["alike", "apart", "any"])
    alike = numbers.dirichlet(np.ones(count))
    sources: list[SourcePlan] = []
    for number, name in enumerate(names):
        own = np.arange(count) % len(names) == number % count
        chances = {"alike": alike, "apart": own / max(own.sum(), 1), "any": numbers.dirichlet(np.full(count, 0.4))}[
            style
        ]
        chances = chances if chances.sum() else alike
        ids = numbers.choice(count, rng.randint(20, 150), p=chances)
        ends = rng.choice(["cycle", "drop", "stop", "repeat"]) if bounded and number else "cycle"
        start = rng.choice([0, 0, 7]) if number else 0
        settings: dict[str, Any] = {
            "exhaustion": ends,
            "passes": 2 if ends == "repeat" else 1,
            "start_step": start,
            "stop_step": start + rng.randint(5, 40) if number and rng.random() < 0.3 else None,
            "leftover": rng.choice(["pad", "report"]) if ends != "cycle" else None,
        }
        sources.append(bucketed(name, ids, **settings))
    first, second = ({name: rng.random() + 0.1 for name in names} for _ in range(2))
    weights = Scheduled(start=Explicit(weights=first), end=Explicit(weights=second), first_step=3, last_step=30)
    return MixturePlan(
        sources=tuple(sources),
        weights=rng.choice([Uniform(), Explicit(weights=first), weights]),
        samples_per_epoch=rng.randint(200, 900),
        global_batch=rng.choice([4, 8, 16]),
        seed=seed,
    )


@pytest.mark.parametrize("seed", range(14))
def test_batches_have_one_shape_and_sources_are_within_a_batch_of_their_targets(seed: int) -> None:
    plan = random_plan(seed, bounded=seed % 2 == 1)
    size, length = plan.global_batch, plan.length(0)
    numbers = plan.shape_numbers(epoch=0, first=0, last=length)
    for first in range(0, length, size):
        assert len(set(numbers[first : first + size].tolist())) == 1
    curves, places = plan.schedule(0).curves, np.arange(length + 1)
    targets = np.stack([np.interp(places, curves.time, target) for target in curves.targets], axis=1)
    if seed % 2 == 0:  # nothing ends, hence nothing is padded
        assert np.allclose(targets, walked_targets(plan, 0))
    assert np.abs(realised(plan, 0) - targets).max() <= size
    block = plan.block(epoch=0, first=0, last=length)
    for source, its in enumerate(plan.sources):
        own = block.source == source
        assert its.buckets is not None
        shapes = [its.buckets.shapes[bucket] for bucket in np.asarray(its.buckets.ids)[block.index[own]]]
        assert [plan.shapes[number] for number in numbers[own]] == shapes


@pytest.mark.parametrize("seed", range(3))
def test_blocks_are_the_same_in_any_partition_and_on_any_rank(seed: int) -> None:
    plan = random_plan(seed, bounded=True)
    length = plan.length(1)
    whole = plan.block(epoch=1, first=0, last=length)
    cuts = sorted({0, length, *(random.Random(seed).randint(0, length) for _ in range(6))})
    fresh = random_plan(seed, bounded=True)
    assert fresh.fingerprint() == plan.fingerprint()
    for first, last in reversed(list(itertools.pairwise(cuts))):
        part = fresh.block(epoch=1, first=first, last=last)
        assert np.array_equal(part.source, whole.source[first:last])
        assert np.array_equal(part.index, whole.index[first:last])
    for world in (1, 2, 4):
        for rank in range(world):
            batches = PlannedBatches(plan=plan, batch_size=plan.global_batch // world, rank=rank, world_size=world)
            batches.set_epoch(1)
            keys = [key for batch in batches for key in batch]
            places = [key.position for key in keys]
            assert [key.index for key in keys] == whole.index[places].tolist()
            assert [key.source for key in keys] == whole.source[places].tolist()


def test_every_batch_holds_the_quotas_where_sources_have_the_same_shapes() -> None:
    sources = tuple(bucketed(name, [0, 1] * 20) for name in "ab")
    plan = MixturePlan(
        sources=sources, weights=Explicit(weights={"a": 3, "b": 1}), samples_per_epoch=4000, global_batch=8
    )
    rows = plan.block(epoch=0, first=0, last=4000).source.reshape(-1, 8)
    assert ((rows == 0).sum(axis=1) == 6).all()
    shapes = plan.shape_numbers(epoch=0, first=0, last=4000)[::8]
    assert np.abs(np.cumsum(shapes == 0) - np.arange(1, 501) / 2).max() <= 1, "shapes come in turn"


def test_a_debt_is_carried_to_a_shape_that_the_source_has() -> None:
    # Half of all samples are a's; the second shape is b's alone, and half of b has it.
    plan = MixturePlan(
        sources=(bucketed("a", [0] * 10), bucketed("b", [0, 1] * 10)),
        weights=Uniform(),
        samples_per_epoch=800,
        global_batch=8,
    )
    rows = plan.block(epoch=0, first=0, last=800).source.reshape(-1, 8)
    second = plan.shape_numbers(epoch=0, first=0, last=800)[::8] == 1
    assert second.sum() == 25
    assert (rows[second] == 1).all()
    assert (rows[~second] == 0).sum() == 400
    assert ((rows[~second] == 0).sum(axis=1) >= 3).all(), "the others are mixed as evenly as that leaves"
    off = np.abs(realised(plan, 0)[:, 0] - np.arange(801) / 2)
    assert off.max() <= 8


@pytest.mark.parametrize("leftover", ["pad", "report", "merge"])
def test_left_overs_of_all_sources_add_up(leftover: Leftover) -> None:
    numbers = np.random.default_rng(5)
    sources = tuple(
        bucketed(name, numbers.choice(4, size, p=[0.5, 0.3, 0.15, 0.05]), exhaustion="drop", leftover=leftover)
        for name, size in (("a", 103), ("b", 58))
    )
    plan = MixturePlan(sources=sources, global_batch=8)
    length = plan.length(0)
    block, report = plan.block(epoch=0, first=0, last=length), plan.report(0)
    rows = [row for name in "ab" for row in report[name]["shapes"].values()]
    assert all(row["samples"] == row["due"] + row["padded"] - row["left_out"] for row in rows)
    padded, left_out = (sum(row[key] for row in rows) for key in ("padded", "left_out"))
    assert length % 8 == 0
    assert length == 161 + padded - left_out
    different = {(source, index) for source, index in zip(block.source.tolist(), block.index.tolist(), strict=True)}
    assert len(different) == 161 - left_out
    assert (padded > 0, left_out > 0) == ((False, True) if leftover == "report" else (True, False))
    if leftover != "merge":
        assert padded + left_out < 8 * 4, "sources fill each other's batches"
    assert (sum(report["a"]["merged"].values()) > 0) == (leftover == "merge")


def test_what_others_can_fill_up_is_neither_padded_nor_left_out() -> None:
    sources = (
        bucketed("a", [0] * 13 + [1] * 5, exhaustion="drop", leftover="report"),
        bucketed("b", [0, 1] * 30),
    )
    plan = MixturePlan(sources=sources, weights=Uniform(), samples_per_epoch=160, global_batch=8)
    block = plan.block(epoch=0, first=0, last=160)
    assert sorted(block.index[block.source == 0].tolist()) == list(range(18))
    assert all(row["left_out"] == row["padded"] == 0 for row in plan.report(0)["a"]["shapes"].values())


def test_sources_come_and_go_by_step_in_shapes_too() -> None:
    sources = (bucketed("a", [0, 1] * 9), bucketed("b", [0, 1] * 9, start_step=5, stop_step=15))
    plan = MixturePlan(sources=sources, weights=Uniform(), samples_per_epoch=160, global_batch=8)
    had = realised(plan, 0)[[40, 120, 160], 1].tolist()
    assert had[0] == 0
    assert had[1] == had[2] == 40


def test_a_far_batch_is_found_without_those_before_it() -> None:
    sources = (bucketed("a", [0, 1, 2] * 1000), bucketed("b", [0] * 10 + [3] * 500))
    plan = MixturePlan(sources=sources, weights=Uniform(), global_batch=64, samples_per_epoch=64 * 10**8)
    last = plan.length(0)
    far = plan.block(epoch=0, first=last - 1280, last=last)
    assert np.array_equal(far.index[640:], plan.block(epoch=0, first=last - 640, last=last).index)
    assert plan.schedule(0).counts(10**8).reshape(-1)[:3].sum() == pytest.approx(32 * 10**8, abs=64)


def test_halves_are_whole_batches_within_their_stretch() -> None:
    rng = np.random.default_rng(0)
    batches = rng.integers(0, 5, (200, 4))
    between = np.stack([[rng.multinomial(8 * count, [0.2, 0.5, 0.3]) for count in row] for row in batches])
    between = between.transpose(0, 2, 1)
    first = batches.sum(axis=1) // 2
    wanted = between * (first / np.maximum(batches.sum(axis=1), 1))[:, None, None]
    halves = halved(between, batches, first, wanted, size=8)
    assert ((halves >= 0) & (halves <= between)).all()
    assert (halves.sum(axis=1) % 8 == 0).all()
    assert (halves.sum(axis=(1, 2)) == 8 * first).all()
    assert np.abs(halves.sum(axis=2) - wanted.sum(axis=2)).max() <= 6
