"""How much of the data and how much noise there is at a time: ``x_t = alpha(t) x_0 + sigma(t) noise``.

Time runs from 0 (the data) to 1 (the most noise). Discrete schedules of N steps are read as continuous ones: the step
with index ``i`` stands at ``t = (i + 1) / N``, and between two of them ``log alpha`` is linear, so each interval has
one constant rate, as the discrete process has. Everything is computed in float64 and returned in the type of ``t``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

import torch
from torch import Tensor

__all__ = [
    "BetaSchedule",
    "CosineSchedule",
    "FlowSchedule",
    "KarrasSchedule",
    "LinearBetaSchedule",
    "NoiseSchedule",
    "ScaledLinearSchedule",
    "expand",
]


class NoiseSchedule(ABC):
    """Weights of data and noise over time.

    Attributes:
        coordinates: in which the sampling equation is nearly straight, see :func:`neurotrain.noise.heun`:
            ``x / alpha`` against ``sigma / alpha``, or ``x`` against ``sigma`` where ``alpha + sigma = 1``.
    """

    coordinates: ClassVar[Literal["scaled", "flow"]] = "scaled"

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data.

        Args:
            t: floats in [0, 1], any shape.

        Raises:
            ValueError: if ``t`` is no float, or outside [0, 1] (looked at on the CPU only: on others it would wait).
        """
        return self._alpha(_wide(t)).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        """Weight of the noise; arguments as for :meth:`alpha`."""
        return self._sigma(_wide(t)).to(t.dtype)

    def log_snr(self, t: Tensor) -> Tensor:
        """Logarithm of the signal-to-noise ratio, ``log(alpha^2 / sigma^2)``: falls with ``t``, infinite at an end."""
        wide = _wide(t)
        return (2 * (self._alpha(wide).log() - self._sigma(wide).log())).to(t.dtype)

    def inverse_log_snr(self, log_snr: Tensor) -> Tensor:
        """Time at which the signal-to-noise ratio is that one.

        Args:
            log_snr: floats, any shape.

        Returns:
            Times in [0, 1]; a ratio that the schedule never has gives the nearer end, see
            :func:`neurotrain.noise.matches_snr`.

        Raises:
            ValueError: if ``log_snr`` is no float.
        """
        if not log_snr.is_floating_point():
            raise ValueError(f"log_snr is {log_snr.dtype}: expected floats")
        return self._inverse(log_snr.double()).clamp(0.0, 1.0).to(log_snr.dtype)

    @abstractmethod
    def timestep(self, t: Tensor) -> Tensor:
        """What networks that were made for the schedule are told instead of ``t``."""

    @abstractmethod
    def _alpha(self, t: Tensor) -> Tensor:
        """Of float64 times."""

    @abstractmethod
    def _sigma(self, t: Tensor) -> Tensor:
        """Of float64 times."""

    @abstractmethod
    def _inverse(self, log_snr: Tensor) -> Tensor:
        """Of float64 ratios; may leave [0, 1]."""


class BetaSchedule(NoiseSchedule):
    """A variance-preserving schedule of N steps, ``alpha^2 = prod(1 - beta_i)`` and ``alpha^2 + sigma^2 = 1``.

    Attributes:
        steps: N; the step with index i stands at ``t = (i + 1) / N``.
    """

    steps: int

    @abstractmethod
    def betas(self) -> Tensor:
        """The N rates, float64, in (0, 1)."""

    def timestep(self, t: Tensor) -> Tensor:
        """Index of the step, ``N t - 1``, a float; times before the first step are told as the first."""
        return (t * self.steps - 1).clamp(min=0)

    def _log_alpha(self, t: Tensor) -> Tensor:
        table = _log_alphas(self, t.device)
        place = (t * self.steps).clamp(0, self.steps)
        low = place.detach().floor().long().clamp(max=self.steps - 1)
        return torch.lerp(table[low], table[low + 1], place - low)

    def _alpha(self, t: Tensor) -> Tensor:
        return self._log_alpha(t).exp()

    def _sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self._log_alpha(t))).sqrt()

    def _inverse(self, log_snr: Tensor) -> Tensor:
        log_alpha = -0.5 * torch.nn.functional.softplus(-log_snr)  # alpha^2 = snr / (1 + snr)
        table = _log_alphas(self, log_snr.device)
        high = torch.searchsorted(-table, -log_alpha).clamp(1, self.steps)
        share = (table[high - 1] - log_alpha) / (table[high - 1] - table[high])
        return (high - 1 + share) / self.steps


@dataclass(frozen=True, kw_only=True)
class LinearBetaSchedule(BetaSchedule):
    """Rates that grow linearly.

    Args:
        beta_start: rate of the first step.
        beta_end: rate of the last step.
        steps: number N.

    Raises:
        ValueError: if a rate is outside (0, 1) or there are fewer than two steps.

    Reference:
        Ho et al., 2020 (arXiv:2006.11239), section 4.

    Example:
        >>> round(LinearBetaSchedule().alpha(torch.tensor(1.0)).item(), 6)
        0.006353
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02
    steps: int = 1000

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _check_rates(self.beta_start, self.beta_end, self.steps)

    def betas(self) -> Tensor:
        """The N rates."""
        return torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class ScaledLinearSchedule(BetaSchedule):
    """Rates whose roots grow linearly, as latent diffusion has.

    Args:
        beta_start: rate of the first step.
        beta_end: rate of the last step.
        steps: number N.

    Raises:
        ValueError: if a rate is outside (0, 1) or there are fewer than two steps.

    Reference:
        Rombach et al., 2022 (arXiv:2112.10752), and its code's ``"linear"``.
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    steps: int = 1000

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _check_rates(self.beta_start, self.beta_end, self.steps)

    def betas(self) -> Tensor:
        """The N rates."""
        return torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float64).square()


@dataclass(frozen=True, kw_only=True)
class CosineSchedule(BetaSchedule):
    """``alpha^2`` falls as a squared cosine, but no rate exceeds a bound.

    Args:
        offset: s, keeps the first steps from being too small to see.
        max_beta: bound of the rates, below 1: without it nothing of the data would be left at the end.
        steps: number N.

    Raises:
        ValueError: if a value is out of its range.

    Reference:
        Nichol and Dhariwal, 2021 (arXiv:2102.09672), equation 17.
    """

    offset: float = 0.008
    max_beta: float = 0.999
    steps: int = 1000

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.offset < 0:
            raise ValueError(f"offset={self.offset} must be at least 0")
        _check_rates(self.max_beta, self.max_beta, self.steps)

    def betas(self) -> Tensor:
        """The N rates."""
        t = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        kept = ((t + self.offset) / (1 + self.offset) * math.pi / 2).cos().square()
        return (1 - kept[1:] / kept[:-1]).clamp(max=self.max_beta)


@dataclass(frozen=True, kw_only=True)
class FlowSchedule(NoiseSchedule):
    """A straight line from data to noise, ``alpha = 1 - sigma``, ``sigma = shift t / (1 + (shift - 1) t)``.

    Args:
        shift: above 1 spends more of the time at much noise, as large images need.
        steps: what networks count the noise in: they are told ``steps * sigma``.

    Raises:
        ValueError: if ``shift`` or ``steps`` is not positive.

    Reference:
        Lipman et al., 2023 (arXiv:2210.02747); the shift: Esser et al., 2024 (arXiv:2403.03206), equation 23.

    Example:
        >>> FlowSchedule(shift=3.0).sigma(torch.tensor([0.0, 0.5, 1.0])).tolist()
        [0.0, 0.75, 1.0]
    """

    coordinates: ClassVar[Literal["scaled", "flow"]] = "flow"
    shift: float = 1.0
    steps: int = 1000

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not self.shift > 0 or self.steps < 1:
            raise ValueError(f"shift={self.shift} must be above 0 and steps={self.steps} at least 1")

    def timestep(self, t: Tensor) -> Tensor:
        """``steps * sigma(t)``."""
        return self.sigma(t) * self.steps

    def _sigma(self, t: Tensor) -> Tensor:
        return self.shift * t / (1 + (self.shift - 1) * t)

    def _alpha(self, t: Tensor) -> Tensor:
        return (1 - t) / (1 + (self.shift - 1) * t)

    def _inverse(self, log_snr: Tensor) -> Tensor:
        sigma = torch.sigmoid(-0.5 * log_snr)  # alpha / sigma = (1 - sigma) / sigma
        return sigma / (self.shift - (self.shift - 1) * sigma)


@dataclass(frozen=True, kw_only=True)
class KarrasSchedule(NoiseSchedule):
    """The data untouched under growing noise: ``alpha = 1``, ``sigma^(1/rho)`` linear in time.

    Args:
        sigma_min: noise at ``t = 0``, above 0.
        sigma_max: noise at ``t = 1``.
        rho: how much of the time is spent at little noise.

    Raises:
        ValueError: if the noise does not grow from above 0, or ``rho`` is not positive.

    Reference:
        Karras et al., 2022 (arXiv:2206.00364), equation 5 and table 1.

    Example:
        >>> KarrasSchedule().sigma(torch.tensor([0.0, 1.0])).tolist()
        [0.0020000000949949026, 80.0]
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not 0 < self.sigma_min < self.sigma_max or not self.rho > 0:
            raise ValueError(
                f"sigma_min={self.sigma_min}, sigma_max={self.sigma_max}, rho={self.rho}: need "
                "0 < sigma_min < sigma_max and rho > 0"
            )

    def timestep(self, t: Tensor) -> Tensor:
        """``log(sigma) / 4``, as in table 1 of the reference."""
        return self.sigma(t).log() / 4

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _sigma(self, t: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (low + t * (high - low)) ** self.rho

    def _inverse(self, log_snr: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return ((-0.5 * log_snr / self.rho).exp() - low) / (high - low)


def expand(weight: Tensor, like: Tensor) -> Tensor:
    """Append axes to one number a sample, so that it multiplies a batch.

    Args:
        weight: a scalar, ``(B,)``, or already of as many axes as the batch (a time for each chunk of a video).
        like: batch ``(B, ...)``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> expand(torch.zeros(2), torch.zeros(2, 3, 4)).shape
        torch.Size([2, 1, 1])
    """
    if weight.ndim in (0, like.ndim):
        return weight
    if weight.ndim != 1 or len(weight) not in (1, len(like)):
        raise ValueError(
            f"one number a sample of shape {tuple(weight.shape)} does not fit a batch {tuple(like.shape)}: "
            f"expected a scalar, ({len(like)},) or {like.ndim} axes"
        )
    return weight.reshape(-1, *(1,) * (like.ndim - 1))


def _wide(t: Tensor) -> Tensor:
    if not t.is_floating_point():
        raise ValueError(
            f"t is {t.dtype}: expected floats in [0, 1]; the index i of a step is the time (i + 1) / steps"
        )
    if t.device.type == "cpu" and t.numel():
        low, high = map(float, torch.aminmax(t.detach()))
        if not (low >= 0 and high <= 1):  # NaN too
            raise ValueError(f"t lies in [{low:g}, {high:g}]: expected [0, 1]")
    return t.double()


@cache
def _log_alphas(schedule: BetaSchedule, device: torch.device) -> Tensor:
    """``log alpha`` at ``t = 0, 1/N, ..., 1``: N + 1 falling numbers."""
    with torch.inference_mode(False), torch.no_grad():
        total = torch.cumsum(torch.log1p(-schedule.betas()), 0) / 2
        return torch.cat((total.new_zeros(1), total)).to(device)


def _check_rates(first: float, last: float, steps: int) -> None:
    if not (0 < first < 1 and 0 < last < 1) or steps < 2:
        raise ValueError(f"rates from {first} to {last} must lie in (0, 1), and steps={steps} be at least 2")
