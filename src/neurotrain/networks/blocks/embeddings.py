"""From images and numbers to vectors that a transformer takes.

Shape legend: ``B`` batch, ``C`` image channels, ``*spatial`` two or three axes (``S`` in suffixes), ``L`` places,
``D`` width.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.networks.blocks.convolution import Dims


@final
class PatchEmbedding(nn.Module):
    """Cuts an image into patches and projects each.

    Args:
        in_channels: C.
        width: D.
        patch: edge of a patch.
        dims: number of spatial axes.

    Raises:
        ValueError: if a number is below 1.

    Reference:
        Dosovitskiy et al., 2021 (arXiv:2010.11929), section 3.1.

    Example:
        >>> PatchEmbedding(in_channels=3, width=8, patch=4)(torch.zeros(1, 3, 8, 12)).shape
        torch.Size([1, 6, 8])
    """

    def __init__(self, *, in_channels: int, width: int, patch: int, dims: Dims = 2) -> None:
        super().__init__()
        if min(in_channels, width, patch) < 1:
            raise ValueError(f"in_channels={in_channels}, width={width}, patch={patch}: must be at least 1")
        self.patch = patch
        layer = nn.Conv2d if dims == 2 else nn.Conv3d
        self.project = layer(in_channels, width, patch, stride=patch)

    def forward(self, x_BCS: Tensor) -> Tensor:
        """Map ``(B, C, *spatial)`` to ``(B, L, D)``, patches in the order of rows.

        Raises:
            ValueError: if an axis is no multiple of the patch.
        """
        if any(extent % self.patch for extent in x_BCS.shape[2:]):
            raise ValueError(f"image of size {tuple(x_BCS.shape[2:])}: each axis must be a multiple of {self.patch}")
        return self.project(x_BCS).flatten(2).transpose(1, 2)


@final
class PrefixTokens(nn.Module):
    """Learnt tokens in front of a sequence: a class token, registers.

    Args:
        count: how many.
        width: D.

    Reference:
        Darcet et al., 2024 (arXiv:2309.16588) for registers.

    Example:
        >>> PrefixTokens(count=2, width=4)(torch.zeros(1, 3, 4)).shape
        torch.Size([1, 5, 4])
    """

    def __init__(self, *, count: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(count, width))
        nn.init.trunc_normal_(self.tokens, std=0.02)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Put them in front."""
        return torch.cat((self.tokens.expand(len(x_BLD), -1, -1), x_BLD), dim=1)


def number_features(values_B: Tensor, width: int, *, base: float = 10000.0) -> Tensor:
    """Cosines, then sines, of numbers at geometric frequencies from 1 to ``1 / base``.

    Args:
        values_B: floats or integers, such as the time steps of a diffusion.
        width: even.
        base: see above.

    Returns:
        float32 ``(B, width)``.

    Raises:
        ValueError: if ``width`` is odd.

    Reference:
        Ho et al., 2020 (arXiv:2006.11239), appendix B, in the order of Dhariwal and Nichol's code.

    Example:
        >>> number_features(torch.tensor([0.0]), 4).tolist()
        [[1.0, 1.0, 0.0, 0.0]]
    """
    if width % 2:
        raise ValueError(f"width={width}: cosines and sines need an even one")
    frequencies = base ** -(torch.arange(width // 2, device=values_B.device).double() / (width // 2))
    angles = torch.outer(values_B.double(), frequencies)
    return torch.cat((angles.cos(), angles.sin()), dim=1).float()


@final
class NumberEmbedding(nn.Module):
    """A number as a vector: its :func:`number_features` through two layers with SiLU between them.

    Args:
        width: D of the result.
        features: of the number, even.

    Example:
        >>> NumberEmbedding(width=8, features=4)(torch.tensor([0.0, 10.0])).shape
        torch.Size([2, 8])
    """

    def __init__(self, *, width: int, features: int = 256) -> None:
        super().__init__()
        self.features = features
        self.enter = nn.Linear(features, width)
        self.leave = nn.Linear(width, width)

    def forward(self, values_B: Tensor) -> Tensor:
        """Embed ``(B,)``."""
        found = number_features(values_B, self.features).to(self.enter.weight.dtype)
        return self.leave(F.silu(self.enter(found)))
