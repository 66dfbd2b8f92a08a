"""Strategies, and what a mixture refuses."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from neurotrain.data.mixture import (
    Buckets,
    ClassBalanced,
    Explicit,
    KFold,
    MixturePlan,
    PrioritySampler,
    Quotas,
    Scheduled,
    Sequential,
    SizeProportional,
    SourcePlan,
    Subset,
    Temperature,
    Uniform,
    Weighted,
    Weights,
)
from neurotrain.data.mixture.weights import Sizes

SIZES = Sizes(("a", "b"), (900, 100), 10)


@pytest.mark.parametrize(
    ("weights", "share"),
    [
        (Uniform(), 0.5),
        (SizeProportional(), 0.9),
        (Temperature(temperature=1), 0.9),
        (Temperature(temperature=2), 0.75),
        (Temperature(temperature=1e9), 0.5),
        (Explicit(weights={"b": 1, "a": 3}), 0.75),
        (Quotas(quotas={"b": 4, "a": 6}), 0.6),
    ],
)
def test_shares(weights: Weights, share: float) -> None:
    assert weights.shares(SIZES, step=7) == pytest.approx([share, 1 - share])
    assert weights.problems(SIZES) == []


def test_ramps_start_end_and_chain() -> None:
    a, b = Explicit(weights={"a": 1, "b": 0}), Explicit(weights={"a": 0, "b": 1})
    there = Scheduled(start=a, end=b, first_step=10, last_step=20, ramp="cosine")
    back = Scheduled(start=there, end=a, first_step=30, last_step=40)
    of_b = [back.shares(SIZES, step=step)[1] for step in (0, 10, 12.5, 15, 20, 25, 35, 39, 40, 99)]
    assert of_b == pytest.approx([0, 0, (1 - np.sqrt(0.5)) / 2, 0.5, 1, 1, 0.5, 0.1, 0, 0])
    assert back.changes() == ((10, 20), (30, 40))
    jump = Scheduled(start=a, end=b, first_step=5, last_step=5)
    assert [jump.shares(SIZES, step=step)[1] for step in (4, 5)] == [0, 1]


BASE: dict[str, Any] = {
    "sources": (SourcePlan(name="a", length=10), SourcePlan(name="b", length=20)),
    "weights": Uniform(),
    "samples_per_epoch": 40,
    "global_batch": 4,
    "granularity": "sample",
    "seed": 0,
}


def source(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - settings of a source
    return {"sources": (SourcePlan(**{"name": "a", "length": 10, **changes}), BASE["sources"][1])}


CHANGES: list[dict[str, Any]] = [
    {"weights": Explicit(weights={"a": 1, "b": 2})},
    {"weights": Scheduled(start=Uniform(), end=SizeProportional(), first_step=1, last_step=3)},
    {
        "weights": Scheduled(start=Uniform(), end=SizeProportional(), first_step=1, last_step=3),
        "accumulation": 2,
    },
    {"samples_per_epoch": 41},
    {"global_batch": 8},
    {"granularity": "batch"},
    {"seed": 1},
    {"sources": BASE["sources"][::-1]},
    source(length=11),
    source(name="c"),
    source(repeats=2),
    source(exhaustion="drop"),
    source(exhaustion="stop"),
    source(exhaustion="repeat", passes=2),
    source(start_epoch=1),
    source(stop_epoch=1),
    source(start_step=1),
    source(stop_step=9),
    source(identity="x"),
    source(sampler=Sequential()),
    source(sampler=KFold(folds=2, fold=0)),
    source(sampler=KFold(folds=2, fold=1)),
    source(sampler=KFold(folds=2, fold=1, part="validation")),
    source(sampler=KFold(folds=2, fold=1, seed=1)),
    source(sampler=Subset(chosen=np.arange(5))),
    source(sampler=Subset(chosen=np.arange(6))),
    source(sampler=ClassBalanced(labels=np.arange(10) % 2)),
    source(sampler=ClassBalanced(labels=np.arange(10) % 3)),
    source(sampler=Weighted(column=np.arange(10))),
    source(sampler=PrioritySampler(length=10)),
    {"granularity": "batch", **source(buckets=Buckets(ids=np.arange(10) % 2, shapes=((8, 8), (9, 9))))},
    {"granularity": "batch", **source(buckets=Buckets(ids=np.arange(10) % 2, shapes=((8, 8), (9, 8))))},
    {"granularity": "batch", **source(exhaustion="drop")},
    {"granularity": "batch", **source(exhaustion="drop", leftover="report")},
]


def test_the_fingerprint_covers_all_that_decides_the_order() -> None:
    prints = [MixturePlan(**{**BASE, **change}).fingerprint() for change in [{}, *CHANGES]]
    assert len(set(prints)) == len(prints)
    same = [
        {"accumulation": 7},  # nothing depends on optimizer steps
        source(),
    ]
    assert {MixturePlan(**{**BASE, **change}).fingerprint() for change in same} == {prints[0]}
    subsets = [Subset(chosen=np.array(chosen)) for chosen in ([1, 2, 3], [3, 1, 2])]
    assert len({MixturePlan(**{**BASE, **source(sampler=subset)}).fingerprint() for subset in subsets}) == 1


def test_a_plan_travels_to_other_processes() -> None:
    for change in CHANGES[:20:4]:
        plan = MixturePlan(**{**BASE, **change})
        block = plan.block(epoch=2, first=3, last=9)
        sent = pickle.loads(pickle.dumps(plan))
        assert sent.fingerprint() == plan.fingerprint()
        assert np.array_equal(sent.block(epoch=2, first=3, last=9).index, block.index)


def test_descriptions_are_plain_values() -> None:
    told = MixturePlan(**{**BASE, **source(exhaustion="drop")}).describe()
    assert told["weights"] == "uniform"
    assert told["length"] == 40
    assert told["sources"]["a"] == {
        "entries": 10,
        "target": 10.0,
        "samples": 10,
        "share": 0.25,
        "passes": 1.0,
        "exhausted_at": told["sources"]["a"]["exhausted_at"],
        "bound": told["sources"]["a"]["bound"],
    }
    assert type(told["sources"]["a"]["exhausted_at"]) is int
    assert type(told["sources"]["a"]["bound"]) is float


@pytest.mark.parametrize(
    ("make", "texts"),
    [
        (lambda: MixturePlan(sources=(), global_batch=0), ["global_batch=0 must be at least 1", "sources=()"]),
        (
            lambda: MixturePlan(sources=BASE["sources"] * 2, global_batch=1, granularity="batchs"),
            ["two sources are named 'a'", "named 'b'", "granularity='batchs' is unknown; did you mean 'batch'?"],
        ),
        (
            lambda: MixturePlan(**{**BASE, "weights": Explicit(weights={"a": 1, "bb": 1})}),
            ["weights['bb'] names no source; did you mean 'b'?", "weights says nothing of source 'b'"],
        ),
        (
            lambda: MixturePlan(**{**BASE, "weights": Quotas(quotas={"a": 1, "b": 4})}),
            ["sum to 5, not to global_batch=4"],
        ),
        (
            lambda: MixturePlan(**{**BASE, **source(exhaustion="drop", leftover="pad")}),
            ["leftover='pad' has no effect with granularity='sample' where no source has buckets"],
        ),
        (
            lambda: MixturePlan(
                sources=(SourcePlan(name="a", length=3, exhaustion="drop", leftover="report"),),
                global_batch=4,
                granularity="batch",
            ),
            ["source 'a' does not fill one global batch of 4: use leftover='pad'"],
        ),
        (
            lambda: MixturePlan(**{**BASE, "samples_per_epoch": None, **source(exhaustion="drop", stop_step=4)}),
            ["source 'a' would end the epoch, but may leave at step 4"],
        ),
        (
            lambda: MixturePlan(sources=(SourcePlan(name="a", length=9, start_step=3),), global_batch=2),
            ["epoch 0: no source has weight from 0 on"],
        ),
        (
            lambda: SourcePlan(
                name="a", length=0, repeats=0, exhaustion="cycel", start_epoch=3, stop_epoch=2, leftover="paad"
            ),
            ["5 problems", "length=0", "repeats=0", "did you mean 'cycle'?", "stop_epoch=2 must lie after", "'pad'?"],
        ),
        (lambda: SourcePlan(name="a", length=3, passes=2), ["passes=2 has no effect with exhaustion='cycle'"]),
        (lambda: SourcePlan(name="a", length=3, leftover="pad"), ["has no effect with exhaustion='cycle'"]),
        (lambda: SourcePlan(name="a", length=3, leftover="merge"), ["has no effect without buckets"]),
        (lambda: SourcePlan(name="a", length=3, sampler=KFold(folds=4, fold=0)), ["folds=4 must lie between 2 and"]),
        (
            lambda: SourcePlan(name="a", length=3, sampler=KFold(folds=2, fold=2, part="valid")),
            ["there are the folds 0 to 1", "did you mean 'validation'?"],
        ),
        (
            lambda: SourcePlan(name="a", length=3, sampler=Subset(chosen=np.array([1, 1, 3]))),
            ["chosen entry 3: the source has the entries 0 to 2", "names an entry twice"],
        ),
        (
            lambda: SourcePlan(name="a", length=3, sampler=KFold(folds=2, fold=0, order=KFold(folds=2, fold=0))),
            ["order=KFold selects entries again"],
        ),
        (
            lambda: SourcePlan(name="a", length=3, sampler=ClassBalanced(labels=np.zeros(4))),
            ["labels of shape (4,) and type float64 must be 3 integers"],
        ),
        (lambda: SourcePlan(name="a", length=2, sampler=Weighted(column=np.array([1.0, -1]))), ["column[1]=-1.0"]),
        (lambda: SourcePlan(name="a", length=2, sampler=Weighted(column=np.zeros(2))), ["a positive sum"]),
        (lambda: SourcePlan(name="a", length=2, sampler=PrioritySampler(length=3)), ["length=3, the source has 2"]),
        (
            lambda: Buckets(ids=np.array([0, 2]), shapes=((8, 8), (8, 8, 8))),
            ["one number of edges", "ids name bucket 2: there are 2"],
        ),
        (lambda: Explicit(weights={"a": -1, "b": float("nan")}), ["a=-1.0 must be finite", "b=nan must be finite"]),
        (lambda: Explicit(weights={"a": 0}), ["must have a positive sum"]),
        (lambda: Quotas(quotas={"a": -1}), ["a=-1 must be at least 0"]),
        (lambda: Temperature(temperature=0), ["temperature=0 must be finite and above 0"]),
        (
            lambda: Scheduled(start=Uniform(), end=Uniform(), first_step=3, last_step=2, ramp="cos"),
            ["last_step=2 lies before first_step=3", "did you mean 'cosine'?"],
        ),
    ],
)
def test_mistakes_are_told_all_at_once(make: Any, texts: list[str]) -> None:  # noqa: ANN401 - a lambda
    with pytest.raises(ValueError, match=r".") as caught:
        make()
    assert [text for text in texts if text not in str(caught.value)] == [], str(caught.value)


def test_positions_and_names_that_do_not_exist_are_refused() -> None:
    plan = MixturePlan(**BASE)
    for first, last in ((-1, 2), (0, 41), (5, 4)):
        with pytest.raises(IndexError, match="epoch 0 has positions 0 to 39"):
            plan.block(epoch=0, first=first, last=last)
    assert plan.number("b") == 1
    with pytest.raises(ValueError, match="source 'bb' is not in the mixture; did you mean 'b'"):
        plan.number("bb")
