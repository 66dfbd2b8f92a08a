"""Training times: their distributions against their densities; weights of errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neurotrain.noise import (
    FlowSchedule,
    KarrasSchedule,
    LinearBetaSchedule,
    LogitNormalTimes,
    ModeTimes,
    NoiseSchedule,
    Prediction,
    TimeSampling,
    UniformTimes,
    convert,
    min_snr_weight,
)


def drawn(times: TimeSampling, count: int = 20_000) -> Tensor:
    found = times(count, generator=torch.Generator().manual_seed(0))
    assert found.shape == (count,)
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(found, times(count, generator=torch.Generator().manual_seed(0)))
    return found.double()


def largest_gap(found: Tensor, expected: Tensor) -> float:
    """Kolmogorov's statistic against quantiles that another way drew exactly."""
    points = torch.linspace(0.02, 0.98, 97, dtype=torch.float64)
    return float(
        ((found[:, None] <= points).double().mean(0) - (expected[:, None] <= points).double().mean(0)).abs().max()
    )


def test_uniform() -> None:
    found = drawn(UniformTimes(low=0.2, high=0.7))
    assert found.min() >= 0.2
    assert found.max() <= 0.7
    assert abs(found.mean() - 0.45) < 0.01


def test_logit_normal_has_its_quantiles() -> None:
    levels = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    expected = torch.sigmoid(0.5 + 1.3 * torch.special.ndtri(levels))
    assert largest_gap(drawn(LogitNormalTimes(mean=0.5, std=1.3)), expected) < 0.015


@pytest.mark.parametrize("scale", [-1.0, 0.0, 1.29, 1.75])
def test_mode_has_its_quantiles(scale: float) -> None:
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    expected = 1 - u - scale * ((math.pi / 2 * u).cos() ** 2 - 1 + u)
    assert (expected.diff() <= 1e-12).all()  # one time for one draw
    assert largest_gap(drawn(ModeTimes(scale=scale)), expected) < 0.015


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v", "flow"])
@pytest.mark.parametrize("schedule", [LinearBetaSchedule(), FlowSchedule(shift=3.0), KarrasSchedule()])
def test_an_error_of_the_data_counts_the_bounded_ratio(schedule: NoiseSchedule, prediction: Prediction) -> None:
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    x_t, x0, error = torch.randn(3, 19, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, other = (
        convert(value, x_t, t, schedule=schedule, source="x0", target=prediction) for value in (x0, x0 + error)
    )
    weight = min_snr_weight(t, schedule, prediction=prediction, gamma=5.0)
    expected = schedule.log_snr(t).exp().clamp(max=5.0) * error.square().mean(1)
    torch.testing.assert_close(weight * (one - other).square().mean(1), expected, rtol=1e-6, atol=1e-9)


def test_weights_are_finite_at_both_ends() -> None:
    for prediction in ("epsilon", "x0", "v", "flow"):
        weight = min_snr_weight(torch.tensor([0.0, 1.0]), FlowSchedule(), prediction=prediction)
        assert weight.isfinite().all()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"low=0\.5, high=0\.5"):
        UniformTimes(low=0.5, high=0.5)
    with pytest.raises(ValueError, match="std=0"):
        LogitNormalTimes(std=0.0)
    with pytest.raises(ValueError, match="scale=2"):
        ModeTimes(scale=2.0)
    with pytest.raises(ValueError, match="gamma=0"):
        min_snr_weight(torch.tensor([0.5]), FlowSchedule(), prediction="v", gamma=0.0)
    with pytest.raises(ValueError, match="prediction='noise'"):
        min_snr_weight(torch.tensor([0.5]), FlowSchedule(), prediction="noise")  # type: ignore[arg-type]
