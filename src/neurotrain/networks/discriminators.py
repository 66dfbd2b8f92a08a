"""Heads that tell real from made by another network's features.

Shape legend: ``B`` batch, ``C`` channels of a feature, ``N`` its places, ``W`` width.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from neurotrain.networks.denoisers import TimeEmbedding

__all__ = ["FeatureHeads"]


class _Head(nn.Module):
    """A small perceptron at each place of one feature, which the time shifts."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Linear(channels, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, 1)

    def forward(self, x_BNC: Tensor, time_BW: Tensor) -> Tensor:
        hidden = self.stem(x_BNC) + time_BW[:, None]
        for layer in self.layers:
            hidden = hidden + layer(nn.functional.silu(hidden))
        return self.head(nn.functional.silu(hidden)).mean((1, 2))


@final
class FeatureHeads(nn.Module):
    """One head a feature; the logit is the mean of theirs over features and places.

    Args:
        channels: C of each feature.
        width: of the heads, even.
        depth: layers of each head.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> heads = FeatureHeads(channels=(3, 8), width=8, depth=1)
        >>> heads([torch.zeros(2, 3), torch.zeros(2, 8, 4, 4)], torch.zeros(2)).shape
        torch.Size([2])
    """

    def __init__(self, *, channels: tuple[int, ...], width: int = 64, depth: int = 2) -> None:
        super().__init__()
        if not channels or min(*channels, depth, 1) < 1:
            raise ValueError(
                f"channels={channels}, depth={depth}: expected one feature or more, and numbers of 1 or more"
            )
        self.channels = tuple(channels)
        self.embedding = TimeEmbedding(width=width, max_frequency=50.0)
        self.heads = nn.ModuleList(_Head(count, width, depth) for count in channels)

    def forward(self, features: list[Tensor], t: Tensor) -> Tensor:
        """Logits ``(B,)``: high where the features are those of real data.

        Args:
            features: ``(B, C, ...)`` each, as many as ``channels`` says.
            t: times of the noisy samples, ``(B,)``.

        Raises:
            ValueError: if the features are not those that the heads were made for.
        """
        given = tuple(feature.shape[1] for feature in features)
        if given != self.channels:
            raise ValueError(f"features of {given} channels: the heads were made for channels={self.channels}")
        time = self.embedding(t)
        logits = [
            head(feature.flatten(2).transpose(1, 2) if feature.ndim > 2 else feature[:, None], time)
            for head, feature in zip(self.heads, features, strict=True)
        ]
        return torch.stack(logits).mean(0)
