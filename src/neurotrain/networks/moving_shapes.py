"""Clips of a shape that moves over a torus at constant speed: few enough that all are known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from neurotrain.networks.denoisers import Denoiser
from neurotrain.networks.denoisers.causal_video import frame_times
from neurotrain.noise import NoiseSchedule, Prediction

__all__ = ["ExactClips", "MovingShapes"]

_SHAPES: dict[str, tuple[tuple[int, int], ...]] = {
    "square": ((0, 0), (0, 1), (1, 0), (1, 1)),
    "cross": ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)),
    "bar": ((0, -1), (0, 0), (0, 1)),
}
_VELOCITIES = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0))


class MovingShapes(nn.Module):
    """All clips of each shape from each place in each of eight directions, one pixel a frame; each is as likely.

    A shape that leaves on one side comes back on the other. Clips are -1 with the shape at 1.

    Args:
        frames: of a clip, 3 or more.
        size: height and width, 4 or more.
        shapes: names of the shapes: ``square``, ``cross``, ``bar``.

    Raises:
        ValueError: if a number is too small or there is no such shape.

    Example:
        >>> world = MovingShapes(frames=3, size=4, shapes=("bar",))
        >>> world.clips.shape  # 16 places, 8 directions
        torch.Size([128, 1, 3, 4, 4])
        >>> float(world.acceleration(world.clips).max()) < 1e-5
        True
    """

    clips: Tensor

    def __init__(self, *, frames: int = 8, size: int = 8, shapes: tuple[str, ...] = ("square", "cross")) -> None:
        super().__init__()
        if frames < 3 or size < 4:
            raise ValueError(f"frames={frames} must be at least 3, size={size} at least 4")
        unknown = [name for name in shapes if name not in _SHAPES]
        if unknown or not shapes:
            raise ValueError(f"shapes={shapes}: one or more of {', '.join(map(repr, _SHAPES))}")
        self.register_buffer("clips", _all_clips(frames, size, shapes), persistent=False)

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Draw clips.

        Args:
            count: number N.
            generator: draws them.

        Returns:
            float32 ``(N, 1, T, H, W)``.
        """
        chosen = torch.randint(len(self.clips), (count,), generator=generator, device=generator.device)
        return self.clips[chosen.to(self.clips.device)]

    def phases(self, clips: Tensor) -> Tensor:
        """Where the brightness of each frame lies on the torus, as two angles in radians.

        Args:
            clips: ``(N, 1, T, H, W)`` in [-1, 1].

        Returns:
            ``(N, T, 2)``: down and right; ``2 pi / size`` is a pixel.
        """
        bright = clips[:, 0] + 1
        found = [_phase(bright.sum(axis)) for axis in (3, 2)]
        return torch.stack(found, 2)

    def acceleration(self, clips: Tensor) -> Tensor:
        """Change of the velocity from frame to frame, which is 0 in a true clip.

        Args:
            clips: ``(N, 1, T, H, W)`` in [-1, 1].

        Returns:
            Pixels a frame, ``(N, T - 2)``.
        """
        velocity = _wrapped(self.phases(clips).diff(dim=1))
        return _wrapped(velocity.diff(dim=1)).norm(dim=2) * clips.shape[-1] / (2 * math.pi)

    def distance(self, clips: Tensor) -> Tensor:
        """Root mean square, over the pixels, of the difference from the nearest true clip; ``(N,)``."""
        own, true = clips.flatten(1), self.clips.to(clips).flatten(1)
        return torch.cdist(own, true).amin(1) / own.shape[1] ** 0.5

    def mean_of_data(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The mean of the clips that could have been ``x_t = alpha x_0 + sigma noise``: the best denoiser.

        Args:
            x_t: ``(N, 1, T, H, W)``.
            alpha: weight of the data: what broadcasts to ``x_t``, so each frame may have its own.
            sigma: weight of the noise, likewise.

        Returns:
            Of the shape and type of ``x_t``.
        """
        noisy, true = x_t.double(), self.clips.to(x_t.device).double().flatten(1)
        precision = sigma.double().clamp(min=_SMALLEST_NOISE).pow(-2)
        towards = (alpha * precision * noisy).flatten(1) @ true.T
        power = (alpha.double().square() * precision).expand_as(noisy).flatten(1) @ true.square().T
        share = (towards - power / 2).softmax(1)
        return (share @ true).view_as(x_t).to(x_t.dtype)


@final
class ExactClips(Denoiser):
    """The mean of all clips that could have been the noisy one: a teacher without weights.

    Args:
        clips: all that there are.
        schedule: of the noise; the pipeline's.
    """

    frame_times: ClassVar[bool] = True
    prediction: Prediction

    def __init__(self, *, clips: MovingShapes, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.clips, self.schedule = clips, schedule
        self.prediction, self.channels, self.condition = "x0", 1, {}
        self.frames = clips.clips.shape[2]

    def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        """The mean; times are one a sample, or one a frame ``(B, 1, T, 1, 1)``."""
        times = frame_times(t, x_t)
        self.check(x_t, times[:, 0], condition, axes=5)
        wide = times.double()[:, None, :, None, None]
        return self.clips.mean_of_data(x_t, self.schedule.alpha(wide), self.schedule.sigma(wide))

    def features(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """There are none.

        Raises:
            ValueError: always.
        """
        raise ValueError("ExactClips has no features for a discriminator")


_SMALLEST_NOISE = 1e-4
"""Below it squares of the noise would drown in rounding; the nearest clip is certain long before."""


def _all_clips(frames: int, size: int, shapes: tuple[str, ...]) -> Tensor:
    time = torch.arange(frames)
    made: list[Tensor] = []
    for name in shapes:
        figure = torch.full((size, size), -1.0)
        for down, right in _SHAPES[name]:
            figure[down % size, right % size] = 1.0
        for velocity in _VELOCITIES:
            moved = [figure.roll((int(velocity[0] * t), int(velocity[1] * t)), (0, 1)) for t in time]
            clip = torch.stack(moved)
            made += [clip.roll((down, right), (1, 2)) for down in range(size) for right in range(size)]
    return torch.stack(made)[:, None]


def _phase(profile: Tensor) -> Tensor:
    """Angle of the first Fourier coefficient of the last axis."""
    length = profile.shape[-1]
    angle = torch.arange(length, device=profile.device, dtype=profile.dtype) * (2 * math.pi / length)
    return torch.atan2((profile * angle.sin()).sum(-1), (profile * angle.cos()).sum(-1))


def _wrapped(angle: Tensor) -> Tensor:
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
