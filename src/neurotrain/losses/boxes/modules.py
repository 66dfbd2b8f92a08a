"""The losses of boxes as one module; the mathematics are in :mod:`neurotrain.losses.boxes.functional`."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn

from neurotrain.losses.boxes.functional import BoxMeasure, box_l1_loss, box_overlap_loss
from neurotrain.losses.options import bounded


class BoxLoss(nn.Module):
    """``l1_weight`` times :func:`~neurotrain.losses.boxes.box_l1_loss` plus ``overlap_weight`` times the other one.

    With its defaults, and boxes as shares of the image, it is DETR's.

    Args:
        measure: of the overlap, see :data:`~neurotrain.losses.boxes.BoxMeasure`.
        l1_weight: at least 0.
        overlap_weight: at least 0.
        beta: see :func:`~neurotrain.losses.boxes.box_l1_loss`.

    Raises:
        ValueError: if a number is out of range, the measure is unknown, or both weights are 0.

    Example:
        >>> boxes, target = torch.tensor([[0.0, 0, 0.2, 0.2]]), torch.tensor([[0.1, 0, 0.3, 0.2]])
        >>> round(BoxLoss(measure="iou", l1_weight=1.0, overlap_weight=3.0)(boxes, target).item(), 4)
        2.2
    """

    def __init__(
        self, *, measure: BoxMeasure = "giou", l1_weight: float = 5.0, overlap_weight: float = 2.0, beta: float = 0.0
    ) -> None:
        super().__init__()
        if measure not in get_args(BoxMeasure):
            raise ValueError(f"measure={measure!r}: choose from {list(get_args(BoxMeasure))}")
        self.measure: BoxMeasure = measure
        self.l1_weight = bounded("l1_weight", l1_weight, low=0)
        self.overlap_weight = bounded("overlap_weight", overlap_weight, low=0)
        self.beta = bounded("beta", beta, low=0)
        if not l1_weight and not overlap_weight:
            raise ValueError("l1_weight=0, overlap_weight=0: nothing would be left of the loss")
        if beta and not l1_weight:
            raise ValueError(f"beta={beta} has no effect with l1_weight=0")

    def forward(self, boxes_N4: Tensor, target_N4: Tensor, valid_N: Tensor | None = None) -> Tensor:
        """Compute the scalar; shapes and errors as at the functions."""
        # A weight of 0 leaves its term out: 0 times infinity would be NaN.
        terms: list[Tensor] = []
        if self.l1_weight:
            terms.append(self.l1_weight * box_l1_loss(boxes_N4, target_N4, valid_N=valid_N, beta=self.beta))
        if self.overlap_weight:
            overlap = box_overlap_loss(boxes_N4, target_N4, measure=self.measure, valid_N=valid_N)
            terms.append(self.overlap_weight * overlap)
        return torch.stack(terms).sum()
