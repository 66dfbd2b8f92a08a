"""The closed form against what is independent of it, and views against the closed form."""

from __future__ import annotations

import copy
import math
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neurotrain.diffusion import (
    Role,
    RoleView,
    SharedContext,
    ValidationRequest,
    energy_distance,
    null_quantile,
    solve,
    unconditional,
)
from neurotrain.diffusion.energy import mean_distance
from neurotrain.diffusion.families import AnalyticFamily, Assembly, ode_solution
from neurotrain.networks.denoisers import PointMLP
from neurotrain.networks.gaussian_mixture import GaussianMixture
from neurotrain.noise import CosineSchedule, FlowSchedule, KarrasSchedule, NoiseSchedule, Prediction, convert
from neurotrain.tasks.distillation import FineTune

_ADAM = partial(torch.optim.Adam, lr=1e-3)


def _points(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _single() -> GaussianMixture:
    return GaussianMixture(means=((1.0, -0.5),), stds=((0.6, 0.3),), angles=(0.0,), weights=(1.0,))


def _assembly(schedule: NoiseSchedule, prediction: Prediction = "flow", **family: object) -> Assembly:
    torch.manual_seed(0)
    student = Role(network=PointMLP(width=8, depth=1, prediction=prediction), optimizer=_ADAM, ema_decay=0.5)
    made = AnalyticFamily(mixture=GaussianMixture(), schedule=schedule, reference=200, **family)  # pyright: ignore
    return made.assemble({"student": student, "teacher": Role()})


def test_the_score_is_the_gradient_of_the_density_and_the_density_that_of_the_samples() -> None:
    mixture, x = GaussianMixture(), _points(50).requires_grad_(True)
    alpha, sigma = torch.full((50,), 0.6).double(), torch.full((50,), 0.5).double()
    (slope,) = torch.autograd.grad(mixture.log_density(x, alpha, sigma).sum(), x)
    torch.testing.assert_close(mixture.score(x, alpha, sigma), slope)
    side = torch.linspace(-6, 6, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    ones = torch.ones(len(grid)).double()
    density = mixture.log_density(grid, 0.6 * ones, 0.5 * ones).exp() * 0.05**2
    torch.testing.assert_close(density.sum(), torch.tensor(1.0).double(), atol=1e-6, rtol=0)
    x0, label = mixture.sample(20000, generator=torch.Generator().manual_seed(1))
    mean = (mixture.log_weights.exp()[:, None] * mixture.means).sum(0)
    torch.testing.assert_close(x0.mean(0).double(), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(torch.bincount(label) / 20000, mixture.log_weights.exp().float(), atol=0.02, rtol=0)
    noisy = 0.6 * x0 + 0.5 * _points(20000).float()
    torch.testing.assert_close(noisy.mean(0), (density[:, None] * grid).sum(0).float(), atol=0.03, rtol=0)


def test_the_numerical_solution_is_the_exact_one_of_a_single_gaussian() -> None:
    """Its sampling equation moves each axis linearly, so quantiles stay quantiles."""
    noise, single = _points(20), _single()
    exact = single.means[0] + single.stds[0] * noise
    torch.testing.assert_close(ode_solution(noise, mixture=single, steps=400), exact, atol=1e-4, rtol=0)
    # From a finite noise level on, the data's own spread is part of the state.
    schedule = KarrasSchedule(sigma_max=20.0)
    state = single.means[0] + (single.stds[0].square() + 400.0).sqrt() * noise
    start = state / math.hypot(1.0, 20.0)
    found = ode_solution(start, mixture=single, schedule=schedule, steps=400)
    torch.testing.assert_close(found, exact, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    "own", [CosineSchedule(), KarrasSchedule(sigma_min=1e-4, sigma_max=1e4), FlowSchedule(shift=3.0)]
)
@pytest.mark.parametrize("target", ["x0", "epsilon", "v", "flow"])
def test_a_teacher_of_another_schedule_says_the_same(own: NoiseSchedule, target: Prediction) -> None:
    shared = FlowSchedule()
    plain = _assembly(shared, timestep_range=(0.01, 0.99))
    moved = _assembly(shared, timestep_range=(0.01, 0.99), schedules={"teacher": own})
    x_t, t = _points(64), torch.linspace(0.02, 0.98, 64).double()
    views = [made.adapter.bind(made.roles["teacher"]) for made in (plain, moved)]
    one, other = (view.predict(x_t, t, target=target) for view in views)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    x0 = views[1].predict_x0(x_t, t)
    again = convert(x0, x_t, t, schedule=shared, source="x0", target=target)
    torch.testing.assert_close(one, again, atol=1e-5, rtol=1e-5)


def test_guidance_moves_from_the_unconditional_prediction_through_the_conditional_one() -> None:
    made = _assembly(FlowSchedule())
    network = PointMLP(width=8, depth=1, num_classes=5)
    family = AnalyticFamily(mixture=GaussianMixture(), schedule=FlowSchedule(), conditional=True)
    made = family.assemble({"student": Role(network=network), "teacher": Role()})
    view = made.adapter.bind(made.roles["teacher"])
    x_t, t = _points(5), torch.full((5,), 0.5).double()
    label = {"label": torch.arange(5)}
    with_label, without = view.predict_x0(x_t, t, label), view.predict_x0(x_t, t)
    torch.testing.assert_close(view.predict_x0(x_t, t, label, guidance=3.0), without + 3 * (with_label - without))
    scales = torch.tensor([0.0, 1.0, 1.0, 2.0, 0.0]).double()
    found = view.predict_x0(x_t, t, label, guidance=scales)
    torch.testing.assert_close(found[4], without[4])
    torch.testing.assert_close(found[1:3], with_label[1:3])
    with pytest.raises(ValueError, match="nothing conditions it"):
        view.predict_x0(x_t, t, guidance=2.0)


def test_a_negative_prompt_that_is_not_there_is_refused() -> None:
    context = SharedContext(shape=(2,), schedule=FlowSchedule(), unconditional={"text": "negative"})
    with pytest.raises(ValueError, match="'text'"):
        unconditional({"text": torch.zeros(1, 3)}, context=context)


class _Shaky(nn.Module):
    """A network that draws from every global generator and has a mode."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.dropout = inner, nn.Dropout(0.5)

    def forward(self, x_t: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        assert not self.training
        return self.inner(x_t, t, condition) + float(torch.rand(1)) + random.random() + float(np.random.rand())


def test_validation_leaves_weights_modes_and_random_states_alone() -> None:
    made = _assembly(FlowSchedule())
    handle = made.roles["student"]
    assert handle.average is not None
    handle.module = _Shaky(handle.module)
    handle.average.attach(handle.module)
    with torch.no_grad():
        for parameter in handle.module.parameters():
            parameter.add_(0.1)
    handle.advance()
    view, method = RoleView(adapter=made.adapter, handle=handle), FineTune()
    before = copy.deepcopy(handle.module.state_dict()), copy.deepcopy(handle.state_dict())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # pyright: ignore
    request = ValidationRequest(steps=2, count=30, batch_size=20, seeds=(0, 1))
    samples = made.validator.sample(view, request, generate=method.generate)
    assert made.validator.score(samples).keys() == {"energy_distance"}
    assert samples.shape == (60, 2)
    after = handle.module.state_dict(), handle.state_dict()
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    averages = [state["average"]["average"] for state in (before[1], after[1])]
    assert all(torch.equal(value, averages[1][name]) for name, value in averages[0].items())
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()  # pyright: ignore
    assert handle.module.training
    assert all(parameter.grad is None for parameter in handle.module.parameters())


def test_samples_of_the_teacher_are_the_mixtures_and_of_one_seed() -> None:
    made = _assembly(FlowSchedule())
    view = made.adapter.bind(made.roles["teacher"])
    request = ValidationRequest(role="teacher", steps=40, sampler="heun", count=500)
    samples = made.validator.sample(view, request, generate=FineTune().generate)
    assert torch.equal(samples, made.validator.sample(view, request, generate=FineTune().generate))
    true = [GaussianMixture().sample(500, generator=torch.Generator().manual_seed(seed))[0] for seed in (1, 2)]
    limit = null_quantile(
        lambda count, draw: GaussianMixture().sample(count, generator=draw)[0], points=500, repeats=60, small=100
    )
    assert energy_distance(samples, true[0]) < limit
    assert energy_distance(true[0] + 0.3, true[1]) > limit
    noise = torch.randn(500, 2)
    poor = solve(view, noise, steps=2, sampler="ddim", condition={})
    assert energy_distance(poor, true[0]) > limit


@pytest.mark.parametrize("held", [1, 13, 40, 10_000])
def test_mean_distance_is_the_same_however_few_distances_are_held(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurotrain.diffusion.energy._HELD", held)
    x, y = _points(7), _points(13, seed=1)
    for one, other in ((x, y), (y, x), (y, y)):
        expected = torch.cdist(one.double(), other.double()).mean().item()
        assert mean_distance(one, other) == pytest.approx(expected, rel=1e-6)


def test_energy_distance_against_the_sums_over_pairs() -> None:
    x, y = _points(7), _points(5, seed=1) + 1
    means = [torch.cdist(a, b).mean() for a, b in ((x, y), (x, x), (y, y))]
    assert energy_distance(x, y) == pytest.approx(float(2 * means[0] - means[1] - means[2]), abs=1e-12)
    assert energy_distance(x, x) == 0.0
    with pytest.raises(ValueError, match="expected"):
        energy_distance(x, torch.zeros(3, 3))
