"""A loss over several heads of a network: that of the main one, and those of coarser ones, less and less."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neurotrain.losses.inputs import LossInputs
from neurotrain.losses.modules import SegmentationLoss


class DeepSupervisionLoss(SegmentationLoss):
    """``sum_i w_i loss(head_i)`` with ``w_i`` proportional to ``decay^i`` and of sum 1, the main head first.

    A head of fewer voxels than the labels is compared with labels taken at the nearest voxel. Without further heads, as
    in evaluation, it is the loss itself.

    Reference:
        Isensee et al., 2021 (doi:10.1038/s41592-020-01008-z), supplementary note 2: each coarser head weighs half.

    Example:
        >>> from neurotrain.losses import DiceLoss
        >>> loss = DeepSupervisionLoss(loss=DiceLoss(mode="multiclass"))
        >>> logits, coarse = torch.zeros(1, 2, 4, 4, 4), torch.zeros(1, 2, 2, 2, 2)
        >>> target = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
        >>> loss.over_heads(logits, (coarse,), target).shape
        torch.Size([])
    """

    def __init__(self, *, loss: SegmentationLoss, decay: float = 0.5) -> None:
        """Keep the loss and how it weighs.

        Args:
            loss: of each head.
            decay: weight of a head as a share of the next finer one's, in (0, 1].

        Raises:
            ValueError: if ``decay`` is out of range.
        """
        super().__init__(mode=loss.mode)
        if not 0 < decay <= 1:
            raise ValueError(f"decay={decay} must be in (0, 1]")
        self.loss = loss
        self.decay = decay

    def compute(self, inputs: LossInputs) -> Tensor:
        """Compute the loss of one head."""
        return self.loss.compute(inputs)

    def over_heads(self, logits: Tensor, aux: Sequence[Tensor], target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the weighted sum.

        Args:
            logits: of the main head, ``(B, K, *spatial)``.
            aux: of the others, the most detailed first; each of that size or a smaller one.
            target: as the loss takes it.
            valid: bool ``(B, *spatial)``; all count when None.

        Returns:
            Scalar.
        """
        heads = (logits, *aux)
        weights = [self.decay**index for index in range(len(heads))]
        losses = [self.loss(head, *_at_size(head, target, valid)) for head in heads]
        return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum() / sum(weights)


def _at_size(head: Tensor, target: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
    size = head.shape[2:]
    if target.shape[-len(size) :] == size:
        return target, valid
    for axis in range(len(size)):
        # Centre of the coarse voxel, as ``nearest-exact`` of torch.
        old = target.shape[axis - len(size)]
        places = (torch.arange(size[axis], device=target.device) + 0.5) * (old / size[axis])
        index = places.long().clamp_(max=old - 1)
        target = target.index_select(axis - len(size), index)
        valid = None if valid is None else valid.index_select(axis - len(size), index)
    return target, valid
