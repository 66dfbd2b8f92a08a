"""Conversions: every kind into every other, in every schedule, and between schedules."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
import torch
from torch import Tensor

from neurotrain.noise import (
    CosineSchedule,
    FlowSchedule,
    KarrasSchedule,
    LinearBetaSchedule,
    NoiseSchedule,
    Prediction,
    ScaledLinearSchedule,
    add_noise,
    convert,
    match_snr,
    matches_snr,
    rescale,
)

SCHEDULES = (LinearBetaSchedule(), ScaledLinearSchedule(), CosineSchedule(), FlowSchedule(shift=3.0), KarrasSchedule())
KINDS: tuple[Prediction, ...] = get_args(Prediction)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)


def sample(schedule: NoiseSchedule, dtype: torch.dtype, last: float = 0.85) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 9, 3, 2, 2, generator=generator, dtype=torch.float64)
    t = torch.linspace(0.1, last, 9, dtype=torch.float64)
    alpha, sigma = (weight(t).reshape(-1, 1, 1, 1) for weight in (schedule.alpha, schedule.sigma))
    kinds = {"x0": x0, "epsilon": noise, "v": alpha * noise - sigma * x0, "flow": noise - x0}
    x_t = alpha * x0 + sigma * noise
    return {kind: value.to(dtype) for kind, value in kinds.items()}, x_t.to(dtype), t.to(dtype)


@every_schedule
@pytest.mark.parametrize(("source", "target"), list(itertools.product(KINDS, KINDS)))
def test_every_kind_gives_every_other(schedule: NoiseSchedule, source: Prediction, target: Prediction) -> None:
    kinds, x_t, t = sample(schedule, torch.float64)
    found = convert(kinds[source], x_t, t, schedule=schedule, source=source, target=target)
    torch.testing.assert_close(found, kinds[target], rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", [LinearBetaSchedule(), CosineSchedule(), FlowSchedule(shift=3.0)])
@pytest.mark.parametrize(("source", "target"), list(itertools.product(KINDS, KINDS)))
def test_round_trips_in_float32(schedule: NoiseSchedule, source: Prediction, target: Prediction) -> None:
    kinds, x_t, t = sample(schedule, torch.float32)
    there = convert(kinds[source], x_t, t, schedule=schedule, source=source, target=target)
    back = convert(there, x_t, t, schedule=schedule, source=target, target=source)
    torch.testing.assert_close(back, kinds[source], rtol=1e-5, atol=1e-5)


@every_schedule
def test_noise_is_added_by_weight(schedule: NoiseSchedule) -> None:
    kinds, x_t, t = sample(schedule, torch.float32)
    torch.testing.assert_close(add_noise(kinds["x0"], kinds["epsilon"], t, schedule), x_t)
    one = add_noise(kinds["x0"][:1], kinds["epsilon"][:1], t[0], schedule)
    torch.testing.assert_close(one, x_t[:1])


def test_v_and_flow_reach_both_ends() -> None:
    x0, noise = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(1))
    for t in (torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])):
        x_t = add_noise(x0, noise, t, FlowSchedule())
        found = convert(noise - x0, x_t, t, schedule=FlowSchedule(), source="flow", target="x0")
        torch.testing.assert_close(found, x0)


def test_half_precision_is_computed_in_float32() -> None:
    kinds, x_t, t = sample(FlowSchedule(), torch.float32)
    half = {kind: value.bfloat16() for kind, value in kinds.items()}
    found = convert(half["flow"], x_t.bfloat16(), t, schedule=FlowSchedule(), source="flow", target="x0")
    wide = convert(half["flow"].float(), x_t.bfloat16().float(), t, schedule=FlowSchedule(), source="flow", target="x0")
    assert torch.equal(found, wide.bfloat16())


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(SCHEDULES, 2)))
def test_another_schedule_has_the_same_data_and_noise(source: NoiseSchedule, target: NoiseSchedule) -> None:
    kinds, x_t, t = sample(source, torch.float64, last=0.6)  # ratios that all of them have
    x_s, s = rescale(x_t, t, source=source, target=target)
    torch.testing.assert_close(target.log_snr(s), source.log_snr(t), rtol=0, atol=1e-8)
    torch.testing.assert_close(x_s, add_noise(kinds["x0"], kinds["epsilon"], s, target), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(match_snr(s, source=target, target=source), t, rtol=0, atol=1e-9)


def test_schedules_that_do_not_cover_each_other_are_told() -> None:
    flow, linear = FlowSchedule(), LinearBetaSchedule()
    assert matches_snr(source=linear, target=flow)
    assert not matches_snr(source=flow, target=linear)
    assert not matches_snr(source=flow, target=KarrasSchedule())
    assert matches_snr(source=KarrasSchedule(), target=flow)
    assert matches_snr(source=linear, target=LinearBetaSchedule())


def test_mistakes_are_named() -> None:
    kinds, x_t, t = sample(FlowSchedule(), torch.float32)
    with pytest.raises(ValueError, match=r"source='noise': one of 'epsilon'"):
        convert(x_t, x_t, t, schedule=FlowSchedule(), source="noise", target="x0")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be equal"):
        convert(x_t[:1], x_t, t, schedule=FlowSchedule(), source="x0", target="v")
    with pytest.raises(ValueError, match="must be equal"):
        add_noise(x_t, x_t[:1], t, FlowSchedule())
    with pytest.raises(ValueError, match="does not fit a batch"):
        add_noise(kinds["x0"], kinds["epsilon"], t[:3], FlowSchedule())
