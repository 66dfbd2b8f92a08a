"""Sampling of few-step students, in validation and inside training alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from neurotrain.diffusion import Condition, RoleSpec, RoleView
from neurotrain.networks.denoisers import Past
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


def check_causal(specs: Mapping[str, RoleSpec], *, method: str) -> None:
    """Refuse a student that does not make videos chunk by chunk.

    Args:
        specs: of the roles, by name.
        method: that needs it, for the message.

    Raises:
        ValueError: names the class of its network.
    """
    abilities = specs["student"].abilities
    if abilities.chunk is None:
        raise ValueError(
            f"{method} goes on chunk by chunk: the network of role 'student' must be a CausalDenoiser, it is a "
            f"{abilities.network}"
        )


def chunk_of(view: RoleView) -> int:
    """Frames of a chunk of a role that :func:`check_causal` has seen."""
    chunk = view.handle.spec.abilities.chunk
    assert chunk is not None, "check_specs() comes first"
    return chunk


def chunk_by_chunk(
    view: RoleView,
    noise: Tensor,
    *,
    chunk: int,
    condition: Condition,
    denoise: Callable[[Denoise, Tensor], Tensor],
) -> Tensor:
    """Make a video: each chunk from its noise, looking back at the chunks that were made before it.

    What later chunks see of a chunk is computed once, from the chunk as it was made, at the smallest time; no gradient
    goes that way.

    Args:
        view: of a role whose network is a :class:`neurotrain.networks.denoisers.CausalDenoiser`.
        noise: standard normal ``(B, C, T, H, W)``.
        chunk: frames of one.
        condition: by channel.
        denoise: makes a chunk, out of what the network sees in it and its noise.

    Returns:
        ``(B, C, T, H, W)``, with the gradients that ``denoise`` leaves.

    Reference:
        Huang et al., 2025 (arXiv:2506.08009), section 3.2.
    """
    context = view.context
    clean = torch.full((len(noise),), context.first_time, device=noise.device)
    made: list[Tensor] = []
    past: Past | None = None
    parts = noise.split(chunk, dim=2)
    for part in parts:

        def predict_x0(x_t: Tensor, t: Tensor, past: Past | None = past) -> Tensor:
            return view.extend_x0(x_t, t, condition, past=past)[0]

        made.append(denoise(predict_x0, part))
        if len(made) < len(parts):
            with torch.no_grad():
                last = made[-1].detach()
                state = add_noise(last, torch.zeros_like(last), clean, context.schedule)
                _, past = view.extend_x0(state, clean, condition, past=past)
    return torch.cat(made, 2)
