"""The global order: balanced, seeded, the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neurotrain.data import EpochPlan, SampleKey
from neurotrain.data.plan import mix_seed, splitmix64


def test_splitmix_gives_the_published_sequence() -> None:
    golden = 0x9E3779B97F4A7C15
    assert [splitmix64(1234567 + step * golden) for step in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_seeds_differ_by_every_word_and_by_order() -> None:
    seeds = [mix_seed(a, b, c) for a in range(6) for b in range(6) for c in range(6)]
    assert len(set(seeds)) == 216
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert mix_seed(-1, 0) == mix_seed(2**64 - 1, 0)


def test_order_never_changes_between_versions() -> None:
    plan = EpochPlan(count=10, seed=7)
    assert plan.order(0).tolist() == [9, 1, 2, 7, 0, 5, 3, 8, 4, 6]
    assert mix_seed(7, 3, 5) == 17746397239880631399
    assert plan.fingerprint() == "0ff3459a46037ada"


@pytest.mark.parametrize("samples_per_epoch", [None, 1, 6, 7, 8, 20, 21])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_occurs_equally_often(samples_per_epoch: int | None, shuffle: bool) -> None:
    plan = EpochPlan(count=7, samples_per_epoch=samples_per_epoch, shuffle=shuffle, seed=1)
    for epoch in range(5):
        order = plan.order(epoch)
        counts = np.bincount(order, minlength=7)
        assert len(order) == len(plan) == (samples_per_epoch or 7)
        assert counts.max() - counts.min() <= 1


def test_keys_and_order_say_the_same() -> None:
    plan = EpochPlan(count=5, samples_per_epoch=13, seed=2)
    for epoch in (0, 3):
        keys = [plan.key(epoch=epoch, position=position) for position in range(len(plan))]
        assert [key.index for key in keys] == plan.order(epoch).tolist()
        assert keys[4] == SampleKey(keys[4].index, epoch, 4)
    for position in (-1, 13):
        with pytest.raises(IndexError, match=f"position={position}"):
            plan.key(epoch=0, position=position)


def test_permutations_differ_by_epoch_cycle_and_seed() -> None:
    plan = EpochPlan(count=50, samples_per_epoch=100, seed=0)
    first, second = plan.order(0)[:50], plan.order(0)[50:]
    others = (second, plan.order(1)[:50], EpochPlan(count=50, seed=1).order(0))
    assert all(not np.array_equal(first, other) for other in others)


def test_each_place_is_equally_likely() -> None:
    orders = np.stack([EpochPlan(count=4, seed=seed).order(0) for seed in range(4000)])
    shares = np.stack([np.bincount(orders[:, place], minlength=4) for place in range(4)]) / 4000
    assert np.abs(shares - 0.25).max() < 0.03  # 4 standard errors


def test_without_shuffle_the_order_is_the_datasets() -> None:
    assert EpochPlan(count=3, samples_per_epoch=7, shuffle=False).order(9).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_random_numbers_depend_on_seed_epoch_and_position_only() -> None:
    def draw(seed: int, key: SampleKey) -> float:
        return float(torch.rand((), generator=EpochPlan(count=9, seed=seed).generator(key)))

    base = draw(0, SampleKey(1, 2, 3))
    assert draw(0, SampleKey(8, 2, 3)) == base
    assert len({base, draw(1, SampleKey(1, 2, 3)), draw(0, SampleKey(1, 3, 3)), draw(0, SampleKey(1, 2, 4))}) == 4


def test_fingerprint_tells_plans_apart() -> None:
    base = {"count": 10, "samples_per_epoch": 20, "shuffle": True, "seed": 0}
    changes = [{"count": 11}, {"samples_per_epoch": 21}, {"shuffle": False}, {"seed": 1}]
    prints = {EpochPlan(**{**base, **change}).fingerprint() for change in [{}, *changes]}
    assert len(prints) == 5
    assert EpochPlan(count=4).fingerprint() == EpochPlan(count=4, samples_per_epoch=4).fingerprint()


@pytest.mark.parametrize(("name", "value"), [("count", 0), ("samples_per_epoch", 0)])
def test_refuses_emptiness(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name}=0"):
        EpochPlan(**{"count": 3, name: value})
