"""Schedules: against diffusers' tables and the papers' formulas, inverses, bounds."""

from __future__ import annotations

import dataclasses
import math
import pickle

import pytest
import torch
from torch import Tensor

from neurotrain import noise
from neurotrain.noise import (
    BetaSchedule,
    CosineSchedule,
    FlowSchedule,
    KarrasSchedule,
    LinearBetaSchedule,
    NoiseSchedule,
    ScaledLinearSchedule,
    expand,
)

SCHEDULES = (LinearBetaSchedule(), ScaledLinearSchedule(), CosineSchedule(), FlowSchedule(shift=3.0), KarrasSchedule())
DIFFUSERS = {
    LinearBetaSchedule(): {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    ScaledLinearSchedule(): {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    CosineSchedule(): {"beta_schedule": "squaredcos_cap_v2"},
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)


def grid(count: int = 257) -> Tensor:
    return torch.linspace(0, 1, count, dtype=torch.float64)


def test_all_is_sorted() -> None:
    assert noise.__all__ == sorted(noise.__all__)


@pytest.mark.parametrize("schedule", list(DIFFUSERS), ids=lambda schedule: type(schedule).__name__)
def test_steps_are_those_of_diffusers(schedule: BetaSchedule) -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(**DIFFUSERS[schedule]).alphas_cumprod.double()
    t = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
    torch.testing.assert_close(schedule.alpha(t).square(), theirs, rtol=2e-4, atol=1e-6)
    torch.testing.assert_close(schedule.sigma(t).square(), 1 - theirs, rtol=2e-4, atol=1e-6)
    torch.testing.assert_close(schedule.timestep(t), torch.arange(1000, dtype=torch.float64))


def test_flow_is_shifted_as_in_its_paper() -> None:
    t = grid()
    sigma = FlowSchedule(shift=3.0).sigma(t)
    torch.testing.assert_close(sigma, 3 * t / (1 + 2 * t))
    assert torch.equal(FlowSchedule().sigma(t), t)
    torch.testing.assert_close(FlowSchedule(shift=3.0).timestep(t), 1000 * sigma)


def test_karras_noise_is_that_of_diffusers() -> None:
    from diffusers import EDMEulerScheduler

    theirs = EDMEulerScheduler(sigma_min=0.01, sigma_max=50.0, rho=5.0)
    theirs.set_timesteps(9)
    schedule = KarrasSchedule(sigma_min=0.01, sigma_max=50.0, rho=5.0)
    t = torch.linspace(1, 0, 9, dtype=torch.float64)
    torch.testing.assert_close(schedule.sigma(t).float(), theirs.sigmas[:-1], rtol=1e-5, atol=0)
    torch.testing.assert_close(schedule.timestep(t).float(), theirs.timesteps, rtol=1e-5, atol=1e-6)


@every_schedule
def test_signal_falls_from_data_to_noise(schedule: NoiseSchedule) -> None:
    t = grid()
    assert (schedule.log_snr(t).diff() < 0).all()
    assert (schedule.alpha(t).diff() <= 0).all()
    assert (schedule.sigma(t).diff() > 0).all()
    least = schedule.sigma_min if isinstance(schedule, KarrasSchedule) else 0.0
    torch.testing.assert_close(schedule.sigma(t[:1]), torch.tensor([least], dtype=torch.float64))
    assert schedule.alpha(t[:1]).item() == 1.0


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverse_gives_the_time_back(schedule: NoiseSchedule, dtype: torch.dtype) -> None:
    t = grid(1001).to(dtype)
    found = schedule.inverse_log_snr(schedule.log_snr(t))
    assert found.dtype == dtype
    torch.testing.assert_close(found, t, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-9)


@every_schedule
def test_ratios_that_never_occur_give_the_nearer_end(schedule: NoiseSchedule) -> None:
    assert schedule.inverse_log_snr(torch.tensor([math.inf, 80.0, -80.0, -math.inf]))[[0, -1]].tolist() == [0.0, 1.0]


@every_schedule
@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated.*:FutureWarning")  # torch's own, on first use
def test_gradients_follow_time(schedule: NoiseSchedule) -> None:
    t = torch.tensor([0.12345, 0.5004, 0.9871], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(schedule.alpha, (t,), eps=1e-6)
    assert torch.autograd.gradcheck(schedule.sigma, (t,), eps=1e-6)
    t = t.detach()
    _, tangent = torch.func.jvp(schedule.log_snr, (t,), (torch.ones_like(t),))
    numeric = (schedule.log_snr(t + 1e-6) - schedule.log_snr(t - 1e-6)) / 2e-6
    torch.testing.assert_close(tangent, numeric, rtol=1e-5, atol=1e-5)


@every_schedule
def test_values_are_plain_hashable_and_pickle(schedule: NoiseSchedule) -> None:
    assert dataclasses.is_dataclass(schedule)
    twin = pickle.loads(pickle.dumps(schedule))
    assert twin == schedule
    assert hash(twin) == hash(schedule)


@every_schedule
def test_wrong_times_are_refused(schedule: NoiseSchedule) -> None:
    with pytest.raises(ValueError, match="expected floats"):
        schedule.alpha(torch.tensor([999]))
    with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
        schedule.sigma(torch.tensor([0.5, 999.0]))
    with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
        schedule.sigma(torch.tensor([math.nan]))


@pytest.mark.parametrize(
    ("cls", "values", "named"),
    [
        (LinearBetaSchedule, {"beta_end": 1.5}, "1.5"),
        (ScaledLinearSchedule, {"steps": 1}, "steps=1"),
        (CosineSchedule, {"offset": -1.0}, "offset=-1.0"),
        (FlowSchedule, {"shift": 0.0}, "shift=0.0"),
        (KarrasSchedule, {"sigma_min": 0.0}, "sigma_min=0.0"),
    ],
)
def test_wrong_values_are_refused(cls: type[NoiseSchedule], values: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        cls(**values)


def test_expand() -> None:
    batch = torch.zeros(2, 3, 4, 5)
    assert expand(torch.zeros(()), batch).shape == ()
    assert expand(torch.zeros(2), batch).shape == (2, 1, 1, 1)
    assert expand(torch.zeros(2, 1, 4, 1), batch).shape == (2, 1, 4, 1)
    with pytest.raises(ValueError, match=r"\(3,\) does not fit a batch \(2, 3, 4, 5\)"):
        expand(torch.zeros(3), batch)
