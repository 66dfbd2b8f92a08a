"""At which times a network is trained, and what an error there counts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from neurotrain.noise.prediction import Prediction
from neurotrain.noise.schedules import NoiseSchedule

__all__ = ["LogitNormalTimes", "ModeTimes", "TimeSampling", "UniformTimes", "min_snr_weight"]


class TimeSampling(ABC):
    """A distribution of training times over (0, 1)."""

    def __call__(self, count: int, *, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
        """Draw times.

        Args:
            count: number B.
            generator: draws them, on its own device.
            device: of the result.

        Returns:
            float32 ``(B,)`` in [0, 1].
        """
        return self._draw(count, generator).clamp(0.0, 1.0).float().to(device)

    @abstractmethod
    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        """float64 times on the generator's device."""


@dataclass(frozen=True, kw_only=True)
class UniformTimes(TimeSampling):
    """Every time between two is as likely.

    Args:
        low: first time.
        high: last time.

    Raises:
        ValueError: unless ``0 <= low < high <= 1``.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"low={self.low}, high={self.high}: need 0 <= low < high <= 1")

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        share = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
        return self.low + (self.high - self.low) * share


@dataclass(frozen=True, kw_only=True)
class LogitNormalTimes(TimeSampling):
    """``logit(t)`` is normal: the middle, where little is known of data and noise, is seen most.

    Args:
        mean: of the logit; above 0 prefers much noise.
        std: of the logit, above 0.

    Raises:
        ValueError: if ``std`` is not positive.

    Reference:
        Esser et al., 2024 (arXiv:2403.03206), equation 19.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not self.std > 0:
            raise ValueError(f"std={self.std} must be above 0")

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        normal = torch.randn(count, generator=generator, device=generator.device, dtype=torch.float64)
        return torch.sigmoid(self.mean + self.std * normal)


@dataclass(frozen=True, kw_only=True)
class ModeTimes(TimeSampling):
    """``t = 1 - u - s (cos^2(pi u / 2) - 1 + u)`` with u uniform: heavy tails, and the middle preferred or avoided.

    Args:
        scale: s in ``[-1, 2 / (pi - 2)]``; above 0 prefers the middle, below 0 the ends, 0 is uniform.

    Raises:
        ValueError: if ``scale`` is out of its range, where the density would not be one.

    Reference:
        Esser et al., 2024 (arXiv:2403.03206), equation 20.
    """

    scale: float = 1.29

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not -1 <= self.scale <= 2 / (math.pi - 2):
            raise ValueError(f"scale={self.scale} must be in [-1, {2 / (math.pi - 2):.4f}]")

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        u = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
        return 1 - u - self.scale * ((math.pi * u / 2).cos().square() - 1 + u)


def min_snr_weight(t: Tensor, schedule: NoiseSchedule, *, prediction: Prediction, gamma: float = 5.0) -> Tensor:
    """Weight of the squared error of a prediction that makes an error of the data count ``min(SNR, gamma)``.

    Args:
        t: times ``(B,)``.
        schedule: gives the ratios.
        prediction: what the error is of.
        gamma: bound of the ratio, above 0.

    Returns:
        ``(B,)`` of the type of ``t``; for ``epsilon`` it is ``min(1, gamma / SNR)``.

    Raises:
        ValueError: if ``gamma`` is not positive or ``prediction`` unknown.

    Reference:
        Hang et al., 2023 (arXiv:2303.09556), section 3.4.

    Example:
        >>> from neurotrain.noise import FlowSchedule
        >>> t = torch.tensor([0.2, 0.5])  # signal-to-noise ratios 16 and 1
        >>> [round(weight, 4) for weight in min_snr_weight(t, FlowSchedule(), prediction="epsilon").tolist()]
        [0.3125, 1.0]
    """
    if not gamma > 0:
        raise ValueError(f"gamma={gamma} must be above 0")
    if prediction not in get_args(Prediction):
        raise ValueError(f"prediction={prediction!r}: one of {', '.join(map(repr, get_args(Prediction)))}")
    wide = t.double()
    alpha, sigma, snr = schedule.alpha(wide), schedule.sigma(wide), schedule.log_snr(wide).exp()
    if prediction == "epsilon":
        return (gamma / snr).clamp(max=1.0).to(t.dtype)
    bounded = snr.clamp(max=gamma)
    # An error of the data shows in the prediction as often as this; squared, because errors are.
    if prediction == "v":
        bounded = bounded * (sigma / (alpha.square() + sigma.square())).square()
    elif prediction == "flow":
        bounded = bounded * (sigma / (alpha + sigma)).square()
    return bounded.to(t.dtype)
