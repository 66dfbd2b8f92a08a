"""What a segmentation network returns while it trains with auxiliary outputs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class SegmentationOutput(NamedTuple):
    """Logits of the main head with those of the auxiliary heads.

    A network returns this in training mode if it has auxiliary heads, and the plain ``logits`` otherwise.

    Attributes:
        logits: ``(B, K, *spatial)`` at the resolution of the input.
        aux: auxiliary logits, each of the same shape; the most detailed one first. Networks for volumes return them at
            their own, coarser resolution.

    Example:
        >>> import torch
        >>> output = SegmentationOutput(logits=torch.zeros(1, 1, 8, 8), aux=(torch.ones(1, 1, 8, 8),))
        >>> len(output.aux)
        1
    """

    logits: Tensor
    aux: tuple[Tensor, ...]
