"""The loss-driven sampler: proportional, bounded, restored to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from neurotrain.data.mixture import MixturePlan, PrioritySampler, SourcePlan


def draws(sampler: PrioritySampler, length: int, count: int, epoch: int = 0) -> np.ndarray:
    source = SourcePlan(name="a", length=length, sampler=sampler)
    plan = MixturePlan(sources=(source,), global_batch=4, samples_per_epoch=count)
    return plan.block(epoch=epoch, first=0, last=count).index


@pytest.mark.parametrize("length", [1, 2, 5, 64, 100])
def test_entries_come_in_proportion_to_their_loss(length: int) -> None:
    sampler = PrioritySampler(length=length, exponent=1.0, floor=1e-9)
    losses = np.random.default_rng(0).random(length) * 3
    sampler.update(np.arange(length), losses)
    shares = np.bincount(draws(sampler, length, 40_000), minlength=length) / 40_000
    assert shares == pytest.approx(losses / losses.sum(), abs=0.01)
    assert sampler.probabilities(np.arange(length)) == pytest.approx(losses / losses.sum())


def test_the_last_loss_of_an_entry_counts_and_others_stay() -> None:
    sampler = PrioritySampler(length=3, exponent=1.0, floor=0.5, initial_loss=1.5)
    sampler.update(np.array([1, 1]), np.array([9.0, 3.5]))
    assert sampler.probabilities(np.arange(3)) == pytest.approx([0.25, 0.5, 0.25])


def test_an_exponent_of_zero_is_uniform() -> None:
    sampler = PrioritySampler(length=3, exponent=0.0)
    sampler.update(np.array([0]), np.array([100.0]))
    assert sampler.probabilities(np.arange(3)) == pytest.approx([1 / 3] * 3)


def test_a_restored_sampler_goes_on_to_the_bit() -> None:
    rng = np.random.default_rng(1)
    sampler = PrioritySampler(length=50)
    for _ in range(20):
        sampler.update(rng.integers(0, 50, 8), rng.random(8))
    source = SourcePlan(name="a", length=50, sampler=sampler)
    plan = MixturePlan(sources=(source,), global_batch=4, samples_per_epoch=400)
    resumed_source = SourcePlan(name="a", length=50, sampler=PrioritySampler(length=50))
    resumed = MixturePlan(sources=(resumed_source,), global_batch=4, samples_per_epoch=400)
    assert not np.array_equal(*(p.block(epoch=0, first=0, last=400).index for p in (plan, resumed)))
    resumed.load_state_dict(plan.state_dict())
    assert np.array_equal(*(p.block(epoch=0, first=0, last=400).index for p in (plan, resumed)))
    assert plan.exempt == ("a",)
    assert plan.fingerprint() == resumed.fingerprint()


def test_state_of_other_sources_is_refused() -> None:
    plan = MixturePlan(sources=(SourcePlan(name="a", length=3),), global_batch=1)
    assert plan.state_dict() == {}
    with pytest.raises(ValueError, match=r"the checkpoint has states of \['b'\], not \[\]"):
        plan.load_state_dict({"b": {}})
    with pytest.raises(ValueError, match="3 priorities do not fit length=4"):
        PrioritySampler(length=4).load_state_dict(PrioritySampler(length=3).state_dict())


def test_bad_losses_are_all_named() -> None:
    with pytest.raises(ValueError, match="2 problems") as caught:
        PrioritySampler(length=3).update(np.array([0, 3]), np.array([float("nan"), 1.0]))
    assert "id 3 is outside [0, 3)" in str(caught.value)
    assert "loss nan must be finite" in str(caught.value)
    with pytest.raises(ValueError, match="3 problems"):
        PrioritySampler(length=0, exponent=2, floor=0)
