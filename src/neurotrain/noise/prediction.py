"""What a network predicts of a noisy sample, and how one prediction follows from another.

With ``x_t = alpha x_0 + sigma eps``: ``epsilon`` is the noise eps, ``x0`` the data, ``v = alpha eps - sigma x_0``
(Salimans and Ho, 2022, arXiv:2202.00512) and ``flow = eps - x_0`` (Lipman et al., 2023, arXiv:2210.02747; Esser et al.,
2024, arXiv:2403.03206). All four are exact in each other for every schedule. Computed in float32 at least: the
differences are small against their terms near both ends.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from neurotrain.noise.schedules import NoiseSchedule, expand

__all__ = ["Prediction", "add_noise", "convert", "match_snr", "matches_snr", "rescale", "to_epsilon", "to_x0"]

Prediction = Literal["epsilon", "x0", "v", "flow"]
"""What a network returns."""


def add_noise(x0: Tensor, noise: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """``alpha(t) x_0 + sigma(t) noise``.

    Args:
        x0: data ``(B, ...)``.
        noise: of the same shape.
        t: times in [0, 1]: a scalar, ``(B,)``, or of as many axes as the data.
        schedule: gives the weights.

    Returns:
        Of the type of ``x0``.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if x0.shape != noise.shape:
        raise ValueError(f"noise of shape {tuple(noise.shape)} for data of shape {tuple(x0.shape)}: must be equal")
    alpha, sigma = _weights(x0, t, schedule)
    return (alpha * _wide(x0) + sigma * _wide(noise)).to(x0.dtype)


def convert(
    value: Tensor, x_t: Tensor, t: Tensor, *, schedule: NoiseSchedule, source: Prediction, target: Prediction
) -> Tensor:
    """Turn one kind of prediction into another.

    Args:
        value: what was predicted, ``(B, ...)``.
        x_t: noisy sample of the same shape.
        t: its time, as for :func:`add_noise`.
        schedule: that made ``x_t``.
        source: kind of ``value``.
        target: kind that is wanted; the same one returns ``value`` itself.

    Returns:
        Of the type of ``value``. Not finite where the source says nothing of the target: the data from the noise where
        ``alpha`` is 0, the noise from the data where ``sigma`` is 0.

    Raises:
        ValueError: if a kind is unknown or shapes do not fit.

    Example:
        >>> from neurotrain.noise import FlowSchedule
        >>> x_t, flow, t = torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([0.25])
        >>> convert(flow, x_t, t, schedule=FlowSchedule(), source="flow", target="x0").item()
        0.5
    """
    for key, kind in (("source", source), ("target", target)):
        if kind not in get_args(Prediction):
            raise ValueError(f"{key}={kind!r}: one of {', '.join(map(repr, get_args(Prediction)))}")
    if value.shape != x_t.shape:
        raise ValueError(f"prediction of shape {tuple(value.shape)} for x_t {tuple(x_t.shape)}: must be equal")
    if source == target:
        return value
    alpha, sigma = _weights(x_t, t, schedule)
    x0, epsilon = _data_and_noise(_wide(value), _wide(x_t), alpha, sigma, source)
    if target == "x0":
        found = x0
    elif target == "epsilon":
        found = epsilon
    else:
        found = alpha * epsilon - sigma * x0 if target == "v" else epsilon - x0
    return found.to(value.dtype)


def to_x0(value: Tensor, x_t: Tensor, t: Tensor, *, schedule: NoiseSchedule, source: Prediction) -> Tensor:
    """The data, see :func:`convert`."""
    return convert(value, x_t, t, schedule=schedule, source=source, target="x0")


def to_epsilon(value: Tensor, x_t: Tensor, t: Tensor, *, schedule: NoiseSchedule, source: Prediction) -> Tensor:
    """The noise, see :func:`convert`."""
    return convert(value, x_t, t, schedule=schedule, source=source, target="epsilon")


def match_snr(t: Tensor, *, source: NoiseSchedule, target: NoiseSchedule) -> Tensor:
    """Time of another schedule at which the signal-to-noise ratio is the same.

    Args:
        t: times in [0, 1] of ``source``.
        source: schedule of ``t``.
        target: schedule of the result.

    Returns:
        Times in [0, 1] of ``target``; its nearer end where it never has the ratio, see :func:`matches_snr`.
    """
    if source == target:
        return t
    return target.inverse_log_snr(source.log_snr(t.double())).to(t.dtype)


def matches_snr(*, source: NoiseSchedule, target: NoiseSchedule, low: float = 0.0, high: float = 1.0) -> bool:
    """Whether ``target`` has every signal-to-noise ratio that ``source`` has from time ``low`` to ``high``.

    Args:
        source: schedule whose samples are to be converted.
        target: schedule that they are converted to.
        low: first time that occurs.
        high: last time that occurs.

    Example:
        >>> from neurotrain.noise import FlowSchedule, LinearBetaSchedule
        >>> matches_snr(source=LinearBetaSchedule(), target=FlowSchedule())
        True
        >>> matches_snr(source=FlowSchedule(), target=LinearBetaSchedule())  # pure noise is not in the latter
        False
        >>> matches_snr(source=FlowSchedule(), target=LinearBetaSchedule(), high=0.99)
        True
    """
    wanted = source.log_snr(torch.tensor([low, high], dtype=torch.float64))
    offered = target.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64))
    return bool(wanted[0] <= offered[0] + _TOLERANCE and wanted[1] >= offered[1] - _TOLERANCE)


_TOLERANCE = 1e-6
"""Of logarithms: schedules that are equal up to rounding match."""


def rescale(x_t: Tensor, t: Tensor, *, source: NoiseSchedule, target: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """The same data under the same noise as another schedule has it, and the time there.

    Args:
        x_t: noisy sample of ``source``, ``(B, ...)``.
        t: its time.
        source: schedule that made it.
        target: schedule that is wanted.

    Returns:
        Sample and time of ``target``. Data and noise are those of ``x_t``, so ``epsilon`` and ``x0`` predicted there
        hold here.
    """
    if source == target:
        return x_t, t
    time = match_snr(t, source=source, target=target)
    (alpha, sigma), (own_alpha, own_sigma) = _weights(x_t, time, target), _weights(x_t, t, source)
    # Either ratio is the factor; the larger weights give it more exactly, and one of them may be 0.
    use_alpha = own_alpha > own_sigma
    factor = torch.where(use_alpha, alpha, sigma) / torch.where(use_alpha, own_alpha, own_sigma)
    return (factor * _wide(x_t)).to(x_t.dtype), time


def _weights(x: Tensor, t: Tensor, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    wide = expand(t.double() if t.is_floating_point() else t, x)
    return schedule.alpha(wide).to(dtype), schedule.sigma(wide).to(dtype)


def _data_and_noise(
    value: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, source: Prediction
) -> tuple[Tensor, Tensor]:
    if source == "x0":
        return value, (x_t - alpha * value) / sigma
    if source == "epsilon":
        return (x_t - sigma * value) / alpha, value
    if source == "v":
        power = alpha.square() + sigma.square()  # 1 where variance is preserved
        return (alpha * x_t - sigma * value) / power, (sigma * x_t + alpha * value) / power
    x0 = (x_t - sigma * value) / (alpha + sigma)
    return x0, x0 + value


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
