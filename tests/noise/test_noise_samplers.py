"""Solvers against diffusers' schedulers with one network, and against solutions in closed form."""

# ruff: noqa: ANN401 - schedulers of diffusers have no common type
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from neurotrain.noise import (
    BetaSchedule,
    CosineSchedule,
    FlowSchedule,
    KarrasSchedule,
    LinearBetaSchedule,
    NoiseSchedule,
    Prediction,
    ScaledLinearSchedule,
    Solver,
    ddim,
    ddim_step,
    dpm_solver_2m,
    euler,
    heun,
    initial_state,
    sampling_times,
    solver,
    to_x0,
)

# diffusers hands tensors to NumPy in a way that NumPy is about to forget.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

STEPS = 6
LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
PAIRS = [(LinearBetaSchedule(), LINEAR), (ScaledLinearSchedule(), SCALED)]
both_schedules = pytest.mark.parametrize(("schedule", "config"), PAIRS, ids=["linear", "scaled_linear"])


class TinyNetwork(torch.nn.Module):
    """Some smooth function of state and timestep."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mix = 0.7 * torch.randn(3, 3, generator=generator)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return torch.tanh(torch.einsum("bchw,cd->bdhw", x, self.mix) + timestep.reshape(-1, 1, 1, 1) / 1000)


NETWORK = TinyNetwork()
NOISE = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def data_of(schedule: NoiseSchedule, kind: Prediction) -> Any:
    def predict_x0(x: Tensor, t: Tensor) -> Tensor:
        return to_x0(NETWORK(x, schedule.timestep(t)), x, t, schedule=schedule, source=kind)

    return predict_x0


def by_diffusers(scheduler: Any, noise: Tensor, **settings: Any) -> Tensor:
    scheduler.set_timesteps(**(settings or {"num_inference_steps": STEPS}))
    x = noise
    for timestep in scheduler.timesteps:
        value = NETWORK(scheduler.scale_model_input(x, timestep), timestep.float())
        x = scheduler.step(value, timestep, x).prev_sample
    return x


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@both_schedules
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize(("kind", "theirs"), [("epsilon", "epsilon"), ("x0", "sample"), ("v", "v_prediction")])
def test_ddim(schedule: BetaSchedule, config: dict[str, Any], spacing: Any, kind: Prediction, theirs: str) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**config, clip_sample=False, timestep_spacing=spacing, prediction_type=theirs)
    times = sampling_times(5, schedule=schedule, spacing=spacing)
    expected = by_diffusers(scheduler, NOISE, num_inference_steps=5)
    close(ddim(data_of(schedule, kind), NOISE, times, schedule), expected)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [1, 3, 7, 50, 999])
def test_times_are_the_indices_of_diffusers(spacing: Any, steps: int) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    times = sampling_times(steps, schedule=LinearBetaSchedule(), spacing=spacing)
    assert ((times[:-1] * 1000).round().long() - 1).tolist() == scheduler.timesteps.tolist()
    assert times[-1] == 0


def test_ddim_of_a_cosine() -> None:
    from diffusers import DDIMScheduler

    schedule = CosineSchedule()
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        clip_sample=False,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
    )
    times = sampling_times(5, schedule=schedule)
    expected = by_diffusers(scheduler, NOISE, num_inference_steps=5)
    close(ddim(data_of(schedule, "v"), NOISE, times, schedule), expected)


def test_ddim_stops_where_it_is_told() -> None:
    from diffusers import DDIMScheduler

    schedule = ScaledLinearSchedule()
    scheduler = DDIMScheduler(
        **SCALED, clip_sample=False, set_alpha_to_one=False, timestep_spacing="leading", steps_offset=1
    )
    times = sampling_times(5, schedule=schedule, spacing="leading") + 1 / 1000
    expected = by_diffusers(scheduler, NOISE, num_inference_steps=5)
    close(ddim(data_of(schedule, "epsilon"), NOISE, times, schedule), expected)


def test_ddim_with_noise_draws_what_diffusers_draws() -> None:
    from diffusers import DDIMScheduler

    schedule = LinearBetaSchedule()
    scheduler = DDIMScheduler(**LINEAR, clip_sample=False, timestep_spacing="leading")
    scheduler.set_timesteps(5)
    x, theirs = NOISE, torch.Generator().manual_seed(3)
    for timestep in scheduler.timesteps:
        value = NETWORK(x, timestep.float())
        x = scheduler.step(value, timestep, x, eta=0.6, generator=theirs).prev_sample
    times = sampling_times(5, schedule=schedule, spacing="leading")
    ours = torch.Generator().manual_seed(3)
    close(ddim(data_of(schedule, "epsilon"), NOISE, times, schedule, eta=0.6, generator=ours), x)


@both_schedules
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_euler(schedule: BetaSchedule, config: dict[str, Any], spacing: Any) -> None:
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(**config, timestep_spacing=spacing)
    times = sampling_times(STEPS, schedule=schedule, spacing=spacing)
    start = NOISE * schedule.sigma(times[0]).float() if spacing == "trailing" else NOISE
    scheduler.set_timesteps(STEPS)
    expected = by_diffusers(scheduler, NOISE * scheduler.init_noise_sigma)
    close(euler(data_of(schedule, "epsilon"), start, times, schedule), expected)


@both_schedules
def test_heun(schedule: BetaSchedule, config: dict[str, Any]) -> None:
    from diffusers import HeunDiscreteScheduler

    scheduler = HeunDiscreteScheduler(**config, timestep_spacing="leading")
    times = sampling_times(STEPS, schedule=schedule, spacing="leading")
    scheduler.set_timesteps(STEPS)
    expected = by_diffusers(scheduler, NOISE * scheduler.init_noise_sigma)
    close(heun(data_of(schedule, "epsilon"), NOISE, times, schedule), expected)


@both_schedules
@pytest.mark.parametrize("steps", [1, 2, 6, 20])
def test_dpm_solver(schedule: BetaSchedule, config: dict[str, Any], steps: int) -> None:
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(**config, timestep_spacing="trailing")
    times = sampling_times(steps, schedule=schedule)
    expected = by_diffusers(scheduler, NOISE, num_inference_steps=steps)
    close(dpm_solver_2m(data_of(schedule, "epsilon"), NOISE, times, schedule), expected)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow(shift: float) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

    schedule = FlowSchedule(shift=shift)
    for spacing, settings in (("linspace", {}), ("trailing", {"sigmas": torch.linspace(1, 1 / STEPS, STEPS).tolist()})):
        times = sampling_times(STEPS, schedule=schedule, spacing=spacing)  # type: ignore[arg-type]
        settings = settings or {"num_inference_steps": STEPS}
        expected = flow_by_diffusers(FlowMatchEulerDiscreteScheduler(shift=shift), settings)
        close(euler(data_of(schedule, "flow"), NOISE, times, schedule), expected)
    if shift == 1.0:  # diffusers' Heun shifts nothing of its own at inference
        times = sampling_times(STEPS, schedule=schedule, spacing="linspace")
        expected = flow_by_diffusers(FlowMatchHeunDiscreteScheduler(), {"num_inference_steps": STEPS})
        close(heun(data_of(schedule, "flow"), NOISE, times, schedule), expected)


def flow_by_diffusers(scheduler: Any, settings: dict[str, Any]) -> Tensor:
    scheduler.set_timesteps(**settings)
    x = NOISE
    for timestep in scheduler.timesteps:
        x = scheduler.step(NETWORK(x, timestep), timestep, x).prev_sample
    return x


class Gaussian:
    """Data ``N(mean, std^2)``: the best prediction and the solution are known."""

    def __init__(self, schedule: NoiseSchedule, *, mean: float = 0.7, std: float = 0.4) -> None:
        self.schedule, self.mean, self.std = schedule, mean, std

    def predict_x0(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (weight(t).reshape(-1, 1) for weight in (self.schedule.alpha, self.schedule.sigma))
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + gain * (x - alpha * self.mean)

    def solution(self, x: Tensor, t: float, s: float) -> Tensor:
        at = torch.tensor([t, s], dtype=torch.float64)
        alpha, sigma = self.schedule.alpha(at), self.schedule.sigma(at)
        if s == 0:
            alpha[1], sigma[1] = 1.0, 0.0
        spread = (alpha**2 * self.std**2 + sigma**2).sqrt()
        return alpha[1] * self.mean + spread[1] / spread[0] * (x - alpha[0] * self.mean)


@pytest.mark.parametrize("schedule", [LinearBetaSchedule(), CosineSchedule(), FlowSchedule(), KarrasSchedule()])
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpm_solver_2m", 2)])
def test_errors_fall_with_the_solver_s_order(schedule: NoiseSchedule, name: Solver, order: int) -> None:
    gaussian, start = Gaussian(schedule), torch.randn(7, 1, generator=torch.Generator().manual_seed(2)).double()
    errors = []
    for steps in (40, 80):
        # Away from both ends, where steps in these coordinates are even enough for the order to show.
        times = torch.linspace(0.8, 0.2, steps + 1, dtype=torch.float64)
        found = solver(name)(gaussian.predict_x0, start, times, schedule)
        errors.append(float((found - gaussian.solution(start, 0.8, 0.2)).abs().max()))
    assert math.log2(errors[0] / errors[1]) > order - 0.25


@pytest.mark.parametrize(
    "schedule", [LinearBetaSchedule(), CosineSchedule(), FlowSchedule(shift=3.0), KarrasSchedule()]
)
@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "dpm_solver_2m"])
def test_whole_way_to_the_data(schedule: NoiseSchedule, name: Solver) -> None:
    gaussian = Gaussian(schedule)
    spacing = "linspace" if isinstance(schedule, KarrasSchedule) else "trailing"
    times = sampling_times(100, schedule=schedule, spacing=spacing)
    noise = torch.randn(7, 1, generator=torch.Generator().manual_seed(2)).double()
    start = initial_state(noise, times[0], schedule)
    if name == "heun" and isinstance(schedule, CosineSchedule):
        times = times[1:]  # the first step of this schedule is of 10,000 noise levels: no method of slopes gets over it
        start = gaussian.solution(start, 1.0, float(times[0]))
    found = solver(name)(gaussian.predict_x0, start, times, schedule)
    torch.testing.assert_close(found, gaussian.solution(start, float(times[0]), 0.0), rtol=0, atol=0.02)


@pytest.mark.parametrize("schedule", [LinearBetaSchedule(), FlowSchedule()])
def test_one_step_is_a_step_of_the_sampler(schedule: NoiseSchedule) -> None:
    t, s = torch.tensor([0.9, 0.9]), torch.tensor([0.4, 0.4])
    predict = data_of(schedule, "epsilon")
    for eta in (0.0, 1.0):
        generator = torch.Generator().manual_seed(4)
        fresh = torch.randn(NOISE.shape, generator=torch.Generator().manual_seed(4)) if eta else None
        expected = ddim(predict, NOISE, torch.tensor([0.9, 0.4]), schedule, eta=eta, generator=generator)
        found = ddim_step(NOISE, predict(NOISE, t), t, s, schedule, eta=eta, noise=fresh)
        torch.testing.assert_close(found, expected)


def test_gradients_pass() -> None:
    start = NOISE.clone().requires_grad_()
    schedule = FlowSchedule()
    heun(data_of(schedule, "flow"), start, sampling_times(3, schedule=schedule), schedule).sum().backward()
    assert start.grad is not None
    assert start.grad.abs().min() > 0


def test_mistakes_are_named() -> None:
    schedule = FlowSchedule()
    predict = data_of(schedule, "flow")
    for times in ([0.5, 0.6], [1.0], [1.1, 0.0]):
        with pytest.raises(ValueError, match="times must fall"):
            euler(predict, NOISE, torch.tensor(times), schedule)
    with pytest.raises(ValueError, match="without noise"):
        euler(predict, NOISE, torch.tensor([0.0, 0.0]), schedule)
    with pytest.raises(ValueError, match="eta=-1"):
        ddim(predict, NOISE, torch.tensor([1.0, 0.0]), schedule, eta=-1)
    with pytest.raises(ValueError, match=r"eta=1.0 needs noise"):
        ddim_step(NOISE, NOISE, torch.ones(2), torch.zeros(2), schedule, eta=1.0)
    with pytest.raises(ValueError, match="spacing='leading': one of 'trailing', 'linspace'"):
        sampling_times(4, schedule=schedule, spacing="leading")
    with pytest.raises(ValueError, match="exceeds the 1000 steps"):
        sampling_times(1001, schedule=LinearBetaSchedule())
    with pytest.raises(ValueError, match="sampler='ddpm'"):
        solver("ddpm")  # type: ignore[arg-type]
