"""Orders within a source."""

from __future__ import annotations

import numpy as np
import pytest

from neurotrain.data.mixture import ClassBalanced, KFold, MixturePlan, Sampler, Sequential, SourcePlan, Subset, Weighted

N = 300
RNG = np.random.default_rng(0)
LABELS = RNG.choice(5, N, p=[0.6, 0.2, 0.1, 0.07, 0.03])
COLUMN = RNG.random(N) * (RNG.random(N) < 0.7)


def order_of(sampler: Sampler, *, epoch: int = 0, samples: int = 4 * N) -> np.ndarray:
    source = SourcePlan(name="a", length=N, sampler=sampler)
    plan = MixturePlan(sources=(source,), global_batch=8, samples_per_epoch=samples)
    whole = plan.block(epoch=epoch, first=0, last=samples).index
    parts = [plan.block(epoch=epoch, first=a, last=min(a + 77, samples)).index for a in range(0, samples, 77)]
    assert np.array_equal(np.concatenate(parts), whole), "cut into pieces the order is another"
    return whole


def test_sequential_is_the_sources_order() -> None:
    assert np.array_equal(order_of(Sequential()), np.tile(np.arange(N), 4))


def test_shuffled_orders_differ_by_pass_epoch_seed_and_source() -> None:
    sources = (SourcePlan(name="a", length=N), SourcePlan(name="b", length=N))
    plans = [MixturePlan(sources=sources, global_batch=4, samples_per_epoch=4 * N, seed=seed) for seed in (0, 1)]
    seen = []
    for plan, epoch in ((plans[0], 0), (plans[0], 1), (plans[1], 0)):
        block = plan.block(epoch=epoch, first=0, last=4 * N)
        seen += [tuple(row) for n in (0, 1) for row in block.index[block.source == n].reshape(2, N).tolist()]
    assert len(set(seen)) == 12


def test_a_source_keeps_its_order_when_others_join() -> None:
    alone = MixturePlan(sources=(SourcePlan(name="a", length=N),), global_batch=4)
    both = MixturePlan(sources=(SourcePlan(name="z", length=9), SourcePlan(name="a", length=N)), global_batch=4)
    block = both.block(epoch=0, first=0, last=both.length(0))
    own = block.index[block.source == 1]
    assert np.array_equal(own, alone.block(epoch=0, first=0, last=len(own)).index)


def test_classes_come_equally_often_and_their_entries_pass_by_pass() -> None:
    order = order_of(ClassBalanced(labels=LABELS))
    assert (np.sort(LABELS[order].reshape(-1, 5), axis=1) == np.arange(5)).all()
    for label in range(5):
        own, size = order[LABELS[order] == label], int((label == LABELS).sum())
        passes = own[: len(own) // size * size].reshape(-1, size)
        assert all(len(set(row)) == size for row in passes.tolist())
        if len(passes) > 1 and size > 3:
            assert not np.array_equal(passes[0], passes[1])


def test_a_column_gives_each_entry_its_share_of_every_pass() -> None:
    order = order_of(Weighted(column=COLUMN))
    expected = N * COLUMN / COLUMN.sum()
    for number in range(4):
        counts = np.bincount(order[number * N : (number + 1) * N], minlength=N)
        assert (counts >= np.floor(expected - 1e-9)).all()
        assert (counts <= np.ceil(expected + 1e-9)).all()
    assert not np.array_equal(order[:N], order[N : 2 * N])
    many = np.bincount(order_of(Weighted(column=COLUMN), samples=400 * N), minlength=N) / 400
    assert many == pytest.approx(expected, abs=0.12)  # the offset of each pass is random


@pytest.mark.parametrize("order", [None, Sequential(), ClassBalanced(labels=LABELS), Weighted(column=COLUMN + 0.1)])
def test_folds_are_disjoint_and_cover_the_source(order: Sampler | None) -> None:
    more = {} if order is None else {"order": order}
    folds = [KFold(folds=7, fold=fold, part="validation", **more) for fold in range(7)]
    members = [set(fold.entries(N).array().tolist()) for fold in folds]
    assert sorted(entry for fold in members for entry in fold) == list(range(N))
    assert {len(fold) for fold in members} == {42, 43}
    for fold in (0, 3, 6):
        train = KFold(folds=7, fold=fold, **more)
        assert set(train.entries(N).array().tolist()) == set(range(N)) - members[fold]
        assert set(order_of(train, samples=900).tolist()) <= set(range(N)) - members[fold]
        assert set(order_of(folds[fold], samples=900).tolist()) == members[fold]
    assert KFold(folds=7, fold=0, seed=1).entries(N).array().tolist() != sorted(set(range(N)) - members[0])


def test_a_fold_in_sequence_is_in_the_sources_order() -> None:
    order = order_of(KFold(folds=3, fold=0, order=Sequential()), samples=200)
    assert (np.diff(order) > 0).all()


def test_a_subset_is_all_that_comes() -> None:
    chosen = np.array([200, 3, 77])
    assert np.array_equal(np.sort(order_of(Subset(chosen=chosen), samples=12).reshape(4, 3)), [[3, 77, 200]] * 4)
    assert order_of(Subset(chosen=chosen, order=Sequential()), samples=6).tolist() == [3, 77, 200, 3, 77, 200]


def test_a_selection_counts_by_what_it_selects() -> None:
    sources = (
        SourcePlan(name="a", length=N, sampler=Subset(chosen=np.arange(30))),
        SourcePlan(name="b", length=30, repeats=2),
    )
    plan = MixturePlan(sources=sources, global_batch=9)
    assert plan.length(0) == 90
    assert np.bincount(plan.block(epoch=0, first=0, last=90).source).tolist() == [30, 60]


def test_a_million_entries_cost_no_list() -> None:
    import tracemalloc

    source = SourcePlan(name="a", length=10**7, sampler=KFold(folds=5, fold=1))
    plan = MixturePlan(sources=(source,), global_batch=64)
    tracemalloc.start()
    block = plan.block(epoch=0, first=5_000_000, last=5_004_096)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(block.index.tolist())) == 4096
    assert peak < 4 * 2**20
