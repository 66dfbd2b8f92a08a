"""Sampling of few-step students, in validation and inside training alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neurotrain.diffusion import Condition
from neurotrain.noise import Denoise, NoiseSchedule, add_noise, initial_state


def few_steps(
    predict_x0: Denoise,
    noise: Tensor,
    times: Sequence[float],
    *,
    schedule: NoiseSchedule,
    generator: torch.Generator,
) -> Tensor:
    """Predict the data, add fresh noise of the next time, and so on: multistep consistency sampling.

    Args:
        predict_x0: the network.
        noise: standard normal ``(B, ...)``.
        times: at which the network is called, falling; one or more.
        schedule: of the noise.
        generator: draws the fresh noise, on its own device.

    Returns:
        The last prediction.

    Raises:
        ValueError: if there is no time.

    Reference:
        Song et al., 2023 (arXiv:2303.01469), algorithm 1.
    """
    if not len(times):
        raise ValueError("times=(): one at least is needed")
    x_t = initial_state(noise, torch.tensor(times[0], device=noise.device), schedule)
    x0 = noise
    for place, time in enumerate(times):
        if place:
            fresh = torch.randn(noise.shape, generator=generator, device=generator.device).to(noise)
            x_t = add_noise(x0, fresh, torch.tensor(time, device=noise.device), schedule)
        x0 = predict_x0(x_t, torch.full((len(noise),), time, device=noise.device))
    return x0


def simulated_input(
    predict_x0: Callable[[Tensor, Tensor, Condition], Tensor],
    noise: Tensor,
    times: Sequence[float],
    *,
    condition: Condition,
    schedule: NoiseSchedule,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """What a few-step student meets when it samples: its own samples, noised, at a random one of its times.

    Args:
        predict_x0: the student: of samples, times and their conditions.
        noise: standard normal ``(B, ...)``.
        times: of the student, falling.
        condition: of the samples, channels ``(B, ...)``.
        schedule: of the noise.
        generator: draws the stop of each sample and the fresh noise.

    Returns:
        Sample and time of each, ``(B, ...)`` and ``(B,)``; without gradients.

    Reference:
        Yin et al., 2024 (arXiv:2405.14867), section 4.5.
    """
    count = len(noise)
    stop = torch.randint(len(times), (count,), generator=generator, device=generator.device).to(noise.device)
    with torch.no_grad():
        x_t = initial_state(noise, torch.tensor(times[0], device=noise.device), schedule)
        t = torch.full((count,), times[0], device=noise.device)
        for place in range(1, len(times)):
            going = stop >= place
            fresh = torch.randn(noise.shape, generator=generator, device=generator.device).to(noise)
            if not bool(going.any()):
                break
            x0 = predict_x0(x_t[going], t[going], {name: channel[going] for name, channel in condition.items()})
            t = torch.where(going, times[place], t)
            moved = add_noise(x0, fresh[going], t[going], schedule)
            x_t = x_t.index_put((going,), moved)
    return x_t, t
