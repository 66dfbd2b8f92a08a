"""Noise that is paired with data: what it must not change, and what it is for."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from distillation_toys import student, task
from torch import Tensor

from neurotrain.diffusion import PreparedBatch
from neurotrain.noise import UniformTimes
from neurotrain.tasks.distillation import FineTune, MeanFlow, Method, Moment
from neurotrain.tasks.distillation.coupling import coupled_noise, paired_noise


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _moment() -> Moment:
    return Moment(iteration=0, iterations=10, generator=torch.Generator().manual_seed(3))


def test_pairs_of_a_group_are_those_of_least_distance_and_every_noise_is_used_once() -> None:
    x0, noise = _drawn(9, 2, 3), _drawn(9, 2, 3, seed=1)
    found = paired_noise(x0, noise, size=5)
    for first, last in ((0, 5), (5, 9)):
        data, drawn = x0[first:last], noise[first:last]
        orders = [list(order) for order in permutations(range(last - first))]
        least = min(float((data - drawn[order]).square().sum()) for order in orders)
        assert float((data - found[first:last]).square().sum()) == pytest.approx(least, rel=1e-5)
        assert sorted(found[first:last].flatten().tolist()) == sorted(drawn.flatten().tolist())


def test_noise_that_is_drawn_apart_is_that_of_the_generator() -> None:
    batch = PreparedBatch(_drawn(6, 2))
    plain = torch.randn(6, 2, generator=torch.Generator().manual_seed(3))
    assert torch.equal(coupled_noise(batch, _moment(), size=1), plain)
    assert torch.equal(coupled_noise(batch, _moment(), size=6), paired_noise(batch.x0, plain, size=6))


@pytest.mark.parametrize("made", [FineTune(coupling=4), MeanFlow(coupling=4)], ids=["fine_tune", "mean_flow"])
def test_conditions_and_pairs_are_refused_together(made: Method) -> None:
    bound = task(made, {"student": student(scalars=("span",))})
    batch = PreparedBatch(_drawn(8, 2), {"label": torch.zeros(8, dtype=torch.long)})
    with pytest.raises(ValueError, match="coupling=4 pairs noise with data that 'label' steers: use coupling=1"):
        next(bound.method.updates(batch, _moment()))
    for method in (FineTune, MeanFlow):
        with pytest.raises(ValueError, match="coupling=0"):
            method(coupling=0)


def test_paired_noise_leaves_less_of_the_velocity_unknown() -> None:
    """Two far points: at half the way, what the noise was is known when it was the nearer one."""
    x0 = torch.tensor([[-4.0, 0.0], [4.0, 0.0]]).repeat(64, 1)
    losses: dict[int, float] = {}
    for coupling in (1, 128):
        made = task(FineTune(coupling=coupling, times=UniformTimes(low=0.9)), {"student": student()})
        made.roles["student"].module.requires_grad_(False).get_parameter("head.weight").zero_()
        made.roles["student"].module.get_parameter("head.bias").zero_()
        (update,) = made.method.updates(PreparedBatch(x0), _moment())
        losses[coupling] = float(update.loss)  # the mean square of noise minus data
    assert losses[128] < 0.75 * losses[1]
