"""What every denoiser promises, and how times and what steers it become one vector."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from neurotrain.noise import Prediction

__all__ = ["Denoiser", "TimeEmbedding"]

LABEL = "label"
"""Channel of the class: int64 ``(B,)``."""


class Denoiser(nn.Module, ABC):
    """Maps noisy samples and their times to a prediction.

    Attributes:
        prediction: what :meth:`forward` returns.
        channels: C of a sample.
        condition: shape of each channel that it can be steered by, without the batch axis. Any of them may be absent:
            the network has learned, or can learn, what to do without.
        frames: length of the videos that it denoises; None: of pictures and points, or of videos of any length.
        frame_times: whether frames of a video may have times of their own, ``(B, 1, T, 1, 1)``.
    """

    prediction: Prediction
    channels: int
    condition: Mapping[str, tuple[int, ...]]
    frames: int | None = None
    frame_times: ClassVar[bool] = False

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        """Predict.

        Args:
            x_t: noisy samples ``(B, C, ...)``.
            t: times ``(B,)`` in [0, 1] of the schedule that the network is trained with.
            condition: what steers it, by channel, ``(B, ...)`` each.

        Returns:
            Of the shape of ``x_t``.

        Raises:
            ValueError: if a shape is wrong, or a channel unknown.
        """

    @abstractmethod
    def features(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """What lies between input and prediction, for a discriminator: tensors ``(B, C', ...)``; arguments as above."""

    def check(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None, *, axes: int) -> None:
        """Refuse shapes and channels that the network was not made for.

        Raises:
            ValueError: names what was given and what is expected.
        """
        if x_t.ndim != axes or x_t.shape[1] != self.channels:
            names = ("batch", str(self.channels), *("frames", "height", "width")[5 - axes if axes > 2 else 3 :])
            raise ValueError(f"samples of shape {tuple(x_t.shape)}: expected ({', '.join(names)})")
        if t.shape != x_t.shape[:1]:
            raise ValueError(f"times of shape {tuple(t.shape)} for {len(x_t)} samples: expected ({len(x_t)},)")
        for name, value in (condition or {}).items():
            if name not in self.condition:
                known = ", ".join(map(repr, self.condition)) or "nothing"
                raise ValueError(f"the network is not steered by {name!r}, only by {known}")
            if value.shape != (len(x_t), *self.condition[name]):
                expected = (len(x_t), *self.condition[name])
                raise ValueError(f"channel {name!r} of shape {tuple(value.shape)}: expected {expected}")


class TimeEmbedding(nn.Module):
    """Time, class and further numbers as one vector ``(B, width)``.

    Waves of the time go through two layers; a class adds a learned vector, its absence another one; each further number
    adds a linear map of its own waves, its absence nothing.

    Args:
        width: of the vector, even.
        classes: number of classes; 0: there are none.
        scalars: names of further numbers (``guidance``, ``span``), each float ``(B,)``.
        max_frequency: of the waves, in radians over the unit of time. Low ones make derivatives by time smooth.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self, *, width: int, classes: int = 0, scalars: tuple[str, ...] = (), max_frequency: float = 200.0
    ) -> None:
        super().__init__()
        if width < 4 or width % 2 or classes < 0 or not max_frequency > 1:
            raise ValueError(
                f"width={width} must be even and at least 4, classes={classes} at least 0, "
                f"max_frequency={max_frequency} above 1"
            )
        self.frequencies: Tensor
        self.register_buffer(
            "frequencies", torch.exp(torch.linspace(0, math.log(max_frequency), width // 2)), persistent=False
        )
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.scalars = nn.ModuleDict({name: nn.Linear(width, width, bias=False) for name in scalars})
        for layer in self.scalars.values():
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)  # a number that is new to trained weights changes nothing at first

    @property
    def condition(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the channels without the batch axis."""
        channels: dict[str, tuple[int, ...]] = {LABEL: ()} if self.label is not None else {}
        return channels | dict.fromkeys(self.scalars, ())

    def forward(self, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        """Embed.

        Args:
            t: times ``(B,)``.
            condition: by channel.

        Returns:
            ``(B, width)``.
        """
        given = condition or {}
        found = self.time(self._waves(t))
        if self.label is not None:
            absent = torch.full_like(t, self.label.num_embeddings - 1, dtype=torch.long)
            found = found + self.label(given.get(LABEL, absent))
        for name, layer in self.scalars.items():
            if name in given:
                found = found + layer(self._waves(given[name]))
        return found

    def _waves(self, value: Tensor) -> Tensor:
        # In float32 at least: high frequencies of a half-precision time are noise.
        angle = value.to(torch.promote_types(value.dtype, torch.float32))[:, None] * self.frequencies
        return torch.cat((angle.sin(), angle.cos()), 1).to(next(self.time.parameters()).dtype)
