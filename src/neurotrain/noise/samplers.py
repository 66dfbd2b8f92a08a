"""Solvers of the sampling equation: from noise to data in as many calls of the network as there are steps.

All take the network as ``predict_x0(x_t, t)`` with ``t`` of shape ``(B,)``, the state at the first time, and falling
times whose last one is where the result stands; 0 there is the data itself. Weights are float64, the state float32 at
least. Nothing here turns gradients off.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from neurotrain.noise.schedules import BetaSchedule, FlowSchedule, NoiseSchedule, expand

__all__ = [
    "Denoise",
    "Solver",
    "ddim",
    "ddim_step",
    "dpm_solver_2m",
    "euler",
    "heun",
    "initial_state",
    "sampling_times",
    "solver",
]

Denoise = Callable[[Tensor, Tensor], Tensor]
"""From ``x_t`` and times ``(B,)`` to the data that the network sees in it."""

Solver = Literal["ddim", "euler", "heun", "dpm_solver_2m"]
"""Name of a function of this module."""


class _Point(NamedTuple):
    t: float
    alpha: float
    sigma: float


def sampling_times(
    steps: int, *, schedule: NoiseSchedule, spacing: Literal["trailing", "leading", "linspace"] = "trailing"
) -> Tensor:
    """Times for a number of steps, from much noise down to 0.

    ``trailing`` starts at ``t = 1`` and divides the time evenly; ``leading`` starts a step lower and ends at the first
    noise; ``linspace`` has both ends. For schedules of N steps these are the indices of diffusers' ``DDIMScheduler``
    under these names (``leading`` without its offset); for a flow ``linspace`` is what
    ``FlowMatchEulerDiscreteScheduler`` takes of itself. For :class:`KarrasSchedule` there is ``linspace`` only: from
    the largest noise to the smallest, then data.

    Args:
        steps: number of intervals n; at most N where the schedule has N steps.
        schedule: whose times they are.
        spacing: where the calls of the network stand.

    Returns:
        float64 ``(n + 1,)``, the last one 0.

    Raises:
        ValueError: if ``steps`` is out of range or ``spacing`` unknown.

    Example:
        >>> from neurotrain.noise import FlowSchedule
        >>> sampling_times(4, schedule=FlowSchedule()).tolist()
        [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    if isinstance(schedule, BetaSchedule):
        return _times_of_indices(_indices(steps, schedule.steps, spacing), schedule.steps)
    if isinstance(schedule, FlowSchedule):
        _check_spacing(spacing, "trailing", "linspace")
        if spacing == "trailing":
            return torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        last = float(schedule.sigma(torch.tensor(1 / schedule.steps, dtype=torch.float64)))
    else:
        _check_spacing(spacing, "linspace")
        last = 0.0
    return torch.cat((torch.linspace(1, last, steps, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)))


def initial_state(noise: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """What stands for pure noise at a time: ``noise`` with the spread that data of unit variance would have there.

    Args:
        noise: standard normal ``(B, ...)``.
        t: where sampling starts, a scalar or ``(B,)``.
        schedule: of the samples.

    Returns:
        ``sqrt(alpha^2 + sigma^2) noise``: the noise itself where variance is preserved, and at ``t = 1`` of a flow.
    """
    wide = expand(t.double(), noise)
    return (torch.hypot(schedule.alpha(wide), schedule.sigma(wide)) * noise).to(noise.dtype)


def ddim_step(
    x_t: Tensor,
    x0: Tensor,
    t: Tensor,
    s: Tensor,
    schedule: NoiseSchedule,
    *,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """One step from time ``t`` to a lower one ``s`` with the data that the network sees at ``t``.

    Args:
        x_t: state ``(B, ...)`` at ``t``.
        x0: predicted data of the same shape.
        t: times, as for :func:`neurotrain.noise.add_noise`; not 0.
        s: times to go to, at most ``t``, as for ``t``.
        schedule: of the state.
        eta: share of the ancestral process's noise: 0 is deterministic, 1 forgets as much as the forward process adds.
        noise: standard normal of the state's shape; needed where ``eta`` is above 0.

    Raises:
        ValueError: if ``eta`` and ``noise`` contradict each other.

    Reference:
        Song et al., 2021 (arXiv:2010.02502), equations 12 and 16.
    """
    if (eta > 0) != (noise is not None):
        raise ValueError(f"eta={eta} {'needs' if eta > 0 else 'takes no'} noise")
    dtype = torch.promote_types(x_t.dtype, torch.float32)
    from_t, to_s = expand(t.double(), x_t), expand(s.double(), x_t)
    alpha_t, sigma_t = schedule.alpha(from_t), schedule.sigma(from_t)
    alpha_s, sigma_s = schedule.alpha(to_s), schedule.sigma(to_s)
    ratio = (alpha_t / alpha_s) * (sigma_s / sigma_t)
    fresh = eta * sigma_s * (1 - ratio.square()).clamp(min=0).sqrt()  # of x_s given x_t and the data, where eta is 1
    kept = (sigma_s.square() - fresh.square()).clamp(min=0).sqrt() / sigma_t
    state = kept.to(dtype) * x_t.to(dtype) + (alpha_s - kept * alpha_t).to(dtype) * x0.to(dtype)
    if noise is not None:
        state = state + fresh.to(dtype) * noise.to(dtype)
    return state.to(x_t.dtype)


def ddim(
    predict_x0: Denoise,
    noise: Tensor,
    times: Tensor,
    schedule: NoiseSchedule,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Denoising diffusion implicit model: :func:`ddim_step` from time to time.

    Args:
        predict_x0: the network.
        noise: state at ``times[0]``, see :func:`initial_state`.
        times: falling ``(n + 1,)``.
        schedule: of the state.
        eta: see :func:`ddim_step`.
        generator: draws the fresh noise where ``eta`` is above 0, on its own device; the global one when not given.

    Raises:
        ValueError: if the times do not fall or leave [0, 1], or ``eta`` is negative.
    """
    if eta < 0:
        raise ValueError(f"eta={eta} must be at least 0")
    x = _wide(noise)
    for here, there in _intervals(times, schedule):
        x0 = _call(predict_x0, x, here, noise.dtype)
        ratio = (here.alpha / there.alpha) * (there.sigma / here.sigma)
        fresh = eta * there.sigma * math.sqrt(max(1 - ratio**2, 0.0))
        kept = math.sqrt(max(there.sigma**2 - fresh**2, 0.0)) / here.sigma
        x = kept * x + (there.alpha - kept * here.alpha) * x0
        if fresh > 0:
            device = x.device if generator is None else generator.device
            x = x + fresh * torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
    return x.to(noise.dtype)


def euler(predict_x0: Denoise, noise: Tensor, times: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Euler's method in the schedule's coordinates, in which the solution is straight for a constant prediction.

    The same numbers as :func:`ddim` without noise: both hold the prediction over the step.

    Args:
        predict_x0: the network.
        noise: state at ``times[0]``, see :func:`initial_state`.
        times: falling ``(n + 1,)``.
        schedule: of the state.

    Raises:
        ValueError: if the times do not fall or leave [0, 1].
    """
    x = _wide(noise)
    for here, there in _intervals(times, schedule):
        x = _straight(x, _call(predict_x0, x, here, noise.dtype), here, there)
    return x.to(noise.dtype)


def heun(predict_x0: Denoise, noise: Tensor, times: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Heun's method: each step's slope is the mean of both ends'; a step to the data is Euler's, two calls otherwise.

    Args:
        predict_x0: the network.
        noise: state at ``times[0]``, see :func:`initial_state`; ``alpha`` must not be 0 there unless in a flow.
        times: falling ``(n + 1,)``.
        schedule: of the state.

    Raises:
        ValueError: if the times do not fall or leave [0, 1].

    Reference:
        Karras et al., 2022 (arXiv:2206.00364), algorithm 1, without churn.
    """
    x = _wide(noise)
    flow = schedule.coordinates == "flow"
    for here, there in _intervals(times, schedule):
        x0 = _call(predict_x0, x, here, noise.dtype)
        ahead = _straight(x, x0, here, there)
        if there.sigma == 0:
            x = ahead
            continue
        scale, next_scale = (1.0, 1.0) if flow else (here.alpha, there.alpha)
        slope = _slope(x, x0, here, flow=flow)
        next_slope = _slope(ahead, _call(predict_x0, ahead, there, noise.dtype), there, flow=flow)
        step = there.sigma / next_scale - here.sigma / scale
        x = next_scale * (x / scale + 0.5 * step * (slope + next_slope))
    return x.to(noise.dtype)


def dpm_solver_2m(predict_x0: Denoise, noise: Tensor, times: Tensor, schedule: NoiseSchedule) -> Tensor:
    """DPM-Solver++ of second order with the prediction before (midpoint); the first and the last step are first order.

    Args:
        predict_x0: the network.
        noise: state at ``times[0]``, see :func:`initial_state`.
        times: falling ``(n + 1,)``.
        schedule: of the state.

    Raises:
        ValueError: if the times do not fall or leave [0, 1].

    Reference:
        Lu et al., 2022 (arXiv:2211.01095), algorithm 2.
    """
    x = _wide(noise)
    before: tuple[Tensor, float] | None = None
    for here, there in _intervals(times, schedule):
        x0 = _call(predict_x0, x, here, noise.dtype)
        step = _half_log_snr(there) - _half_log_snr(here)
        ahead = x0
        if before is not None and there.sigma > 0:
            ahead = x0 + (x0 - before[0]) * (0.5 * step / before[1])
        x = (there.sigma / here.sigma) * x - there.alpha * math.expm1(-step) * ahead
        before = (x0, step)
    return x.to(noise.dtype)


def solver(name: Solver) -> Callable[[Denoise, Tensor, Tensor, NoiseSchedule], Tensor]:
    """The function of that name, deterministic.

    Raises:
        ValueError: if there is none.
    """
    table: dict[str, Callable[[Denoise, Tensor, Tensor, NoiseSchedule], Tensor]] = {
        "ddim": ddim,
        "euler": euler,
        "heun": heun,
        "dpm_solver_2m": dpm_solver_2m,
    }
    if name not in table:
        raise ValueError(f"sampler={name!r}: one of {', '.join(map(repr, get_args(Solver)))}")
    return table[name]


def _indices(steps: int, of: int, spacing: str) -> Tensor:
    """Falling indices in [0, of - 1] as diffusers' schedulers round them."""
    _check_spacing(spacing, "trailing", "leading", "linspace")
    if steps > of:
        raise ValueError(f"steps={steps} exceeds the {of} steps of the schedule")
    if spacing == "leading":
        return torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (of // steps)
    if spacing == "linspace":
        return torch.linspace(0, of - 1, steps, dtype=torch.float64).round().flip(0)
    return (of - torch.arange(steps, dtype=torch.float64) * (of / steps)).round() - 1


def _times_of_indices(indices: Tensor, of: int) -> Tensor:
    return torch.cat(((indices + 1) / of, indices.new_zeros(1)))


def _check_spacing(spacing: str, *known: str) -> None:
    if spacing not in known:
        raise ValueError(f"spacing={spacing!r}: one of {', '.join(map(repr, known))} for this schedule")


def _intervals(times: Tensor, schedule: NoiseSchedule) -> Iterator[tuple[_Point, _Point]]:
    at = times.detach().double().cpu()
    if at.ndim != 1 or len(at) < 2 or bool((at.diff() > 0).any()) or not 0 <= float(at[-1]) <= float(at[0]) <= 1:
        raise ValueError(f"times must fall within [0, 1] and be at least two, not {at.tolist()}")
    alphas, sigmas = schedule.alpha(at).tolist(), schedule.sigma(at).tolist()
    points = [_Point(*values) for values in zip(at.tolist(), alphas, sigmas, strict=True)]
    if points[-1].t == 0:
        points[-1] = _Point(0.0, 1.0, 0.0)  # the data, also where the schedule's least noise is above 0
    for here, there in itertools.pairwise(points):
        if here.sigma == 0:
            raise ValueError(f"times {at.tolist()} call the network at a time without noise")
        yield here, there


def _call(predict_x0: Denoise, x: Tensor, at: _Point, dtype: torch.dtype) -> Tensor:
    t = torch.full((len(x),), at.t, dtype=torch.promote_types(dtype, torch.float32), device=x.device)
    return _wide(predict_x0(x.to(dtype), t))


def _straight(x: Tensor, x0: Tensor, here: _Point, there: _Point) -> Tensor:
    """The state at the next time if the prediction holds until there."""
    kept = there.sigma / here.sigma
    return kept * x + (there.alpha - kept * here.alpha) * x0


def _slope(x: Tensor, x0: Tensor, at: _Point, *, flow: bool) -> Tensor:
    epsilon = (x - at.alpha * x0) / at.sigma
    return epsilon - x0 if flow else epsilon


def _half_log_snr(at: _Point) -> float:
    if at.sigma == 0:
        return math.inf
    return math.log(at.alpha / at.sigma) if at.alpha > 0 else -math.inf


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
