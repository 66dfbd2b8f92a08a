"""Permutations with random access."""

from __future__ import annotations

import numpy as np
import pytest

from neurotrain.data.mixture.permutation import passes, permuted, permuted_each, scattered


@pytest.mark.parametrize("length", [1, 2, 3, 5, 31, 1024, 4096, 4097, 5000, 65_537])
def test_every_place_goes_somewhere_else(length: int) -> None:
    places = np.arange(length)
    assert np.array_equal(np.sort(permuted(places, length=length, seed=length)), places)
    each = permuted_each(places, lengths=np.full(length, length), seeds=np.full(length, 7, np.uint64))
    assert np.array_equal(np.sort(each), places)


@pytest.mark.parametrize("length", [1, 3, 100, 1500, 4500])
def test_a_stretch_does_not_depend_on_where_it_is_cut(length: int) -> None:
    whole = passes(0, 4 * length, length=length, seed=5)
    for first, last in ((0, 1), (length - 1, length + 1), (length // 2, 3 * length), (2 * length, 2 * length)):
        assert np.array_equal(passes(first, last, length=length, seed=5), whole[first:last])
    assert all(np.array_equal(np.sort(row), np.arange(length)) for row in whole.reshape(4, length))


def test_orders_never_change_between_versions() -> None:
    assert scattered(np.arange(3), 0).tolist()[1] == 0xE220A8397B1DCDAF  # SplitMix64's first output
    assert passes(0, 8, length=4, seed=1).tolist() == [0, 1, 2, 3, 1, 0, 2, 3]
    assert permuted(np.arange(4), length=2000, seed=1).tolist() == [99, 1644, 726, 566]
    assert permuted(np.arange(4), length=20_000, seed=1).tolist() == [15910, 5425, 15414, 17470]
    assert permuted(np.arange(4), length=10**7, seed=1).tolist() == [7363455, 5639441, 9146176, 9046111]
    lengths = np.array([9, 9, 100, 5000])
    assert permuted_each(np.arange(4), lengths=lengths, seeds=np.arange(4, dtype=np.uint64)).tolist() == [7, 0, 45, 956]


@pytest.mark.parametrize("length", [1100, 5000, 40_000, 70_000])
def test_passes_look_random(length: int) -> None:
    orders = [passes(0, length, length=length, seed=seed) for seed in range(40)]
    # Over permutations a place's neighbour is a uniform step away, and a place's value uniform.
    steps = np.concatenate([np.diff(order) % length for order in orders])
    for values in (steps, np.concatenate([order[:50] for order in orders])):
        counts = np.bincount(values * 16 // length, minlength=16)
        expected = len(values) / 16
        assert ((counts - expected) ** 2 / expected).sum() < 45  # 15 degrees of freedom; beyond 1 in 10,000
    assert np.mean([np.corrcoef(order, np.arange(length))[0, 1] for order in orders]) == pytest.approx(0, abs=0.02)


def test_small_permutations_of_their_own_are_near_uniform() -> None:
    seeds = np.repeat(scattered(np.arange(12_000), 3), 4)
    orders = permuted_each(np.tile(np.arange(4), 12_000), lengths=np.full(48_000, 4), seeds=seeds).reshape(-1, 4)
    counts = np.unique(orders @ np.array([64, 16, 4, 1]), return_counts=True)[1]
    assert len(counts) == 24
    assert 0.8 < counts.min() / 500 < counts.max() / 500 < 1.2
