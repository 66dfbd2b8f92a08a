"""A residual perceptron for points of few dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.networks.denoisers.base import Denoiser, TimeEmbedding
from neurotrain.noise import Prediction

__all__ = ["PointMLP"]


class _Layer(nn.Module):
    """``x + W2 silu(W1 x, scaled and shifted by the embedding)``."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.second = nn.Linear(width, width)

    def forward(self, x_BW: Tensor, embedding_BE: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding_BE).chunk(2, 1)
        return x_BW + self.second(F.silu(self.first(self.norm(x_BW)) * (1 + scale) + shift))


@final
class PointMLP(Denoiser):
    """Residual layers that the time scales and shifts; for points ``(B, D)`` of about unit spread.

    Smooth in points and time, also under forward-mode differentiation.

    Args:
        dimensions: D.
        width: of the layers, even.
        depth: number of layers.
        embedding: size of what the time becomes, even; None: as ``width``. Half of the work is there.
        num_classes: number of classes; 0: there are none.
        scalars: names of further numbers that steer it, see :class:`neurotrain.networks.denoisers.TimeEmbedding`.
        prediction: what it returns.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import torch
        >>> network = PointMLP(width=8, depth=1)
        >>> network(torch.zeros(5, 2), torch.full((5,), 0.5)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        *,
        dimensions: int = 2,
        width: int = 128,
        depth: int = 3,
        embedding: int | None = None,
        num_classes: int = 0,
        scalars: tuple[str, ...] = (),
        prediction: Prediction = "flow",
    ) -> None:
        super().__init__()
        if dimensions < 1 or depth < 1:
            raise ValueError(f"dimensions={dimensions} and depth={depth} must be at least 1")
        self.prediction, self.channels = prediction, dimensions
        size = width if embedding is None else embedding
        self.embedding = TimeEmbedding(width=size, classes=num_classes, scalars=scalars, max_frequency=50.0)
        self.condition = self.embedding.condition
        self.stem = nn.Linear(dimensions, width)
        self.layers = nn.ModuleList(_Layer(width, size) for _ in range(depth))
        self.head = nn.Linear(width, dimensions)

    def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        """Predict; see :meth:`Denoiser.forward`."""
        return self.head(self.features(x_t, t, condition)[-1])

    def features(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """Output ``(B, width)`` of each layer."""
        self.check(x_t, t, condition, axes=2)
        embedding = F.silu(self.embedding(t, condition))
        hidden, found = self.stem(x_t), list[Tensor]()
        for layer in self.layers:
            hidden = layer(hidden, embedding)
            found.append(hidden)
        return found
