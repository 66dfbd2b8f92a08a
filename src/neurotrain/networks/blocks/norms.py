"""Normalisation over the width of a sequence, or over the channels of a map.

Shape legend: ``B`` batch, ``L`` places, ``D`` width, ``C`` channels, ``*spatial`` axes of a map (``S`` in suffixes).
"""

from __future__ import annotations

from typing import Literal, final

import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.networks.blocks.convolution import check_choice

SequenceNorm = Literal["layer", "rms"]
"""``layer``: mean and variance over the width, with scale and shift; ``rms``: the root mean square, with scale."""


def sequence_norm(kind: SequenceNorm, width: int, *, eps: float = 1e-5) -> nn.Module:
    """Normalisation over the last axis, by torch's own layers.

    Args:
        kind: see :data:`SequenceNorm`.
        width: length of that axis.
        eps: added to the variance or the mean square.

    Returns:
        ``nn.LayerNorm`` or ``nn.RMSNorm``.

    Raises:
        ValueError: if ``kind`` is unknown.

    Reference:
        Ba et al., 2016 (arXiv:1607.06450); Zhang and Sennrich, 2019 (arXiv:1910.07467).

    Example:
        >>> sequence_norm("rms", 8)
        RMSNorm((8,), eps=1e-05, elementwise_affine=True)
    """
    check_choice("norm", kind, ("layer", "rms"))
    return nn.LayerNorm(width, eps=eps) if kind == "layer" else nn.RMSNorm(width, eps=eps)


@final
class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel of a map, as in ConvNeXt.

    Args:
        channels: C.
        eps: added to the variance.

    Reference:
        Liu et al., 2022 (arXiv:2201.03545), section 2.6.

    Example:
        >>> import torch
        >>> ChannelNorm(channels=4)(torch.zeros(1, 4, 3, 3)).shape
        torch.Size([1, 4, 3, 3])
    """

    def __init__(self, *, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=eps)

    def forward(self, x_BCS: Tensor) -> Tensor:
        """Normalise ``(B, C, *spatial)``."""
        norm = self.norm
        return F.layer_norm(x_BCS.movedim(1, -1), norm.normalized_shape, norm.weight, norm.bias, norm.eps).movedim(
            -1, 1
        )
