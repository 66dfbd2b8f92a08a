"""Instances in label maps: matched by overlap, without confidences.

Detections with confidences have a ranking, and COCO's average precision; a map of instances has none. What is in use
for it (cell segmentation, the Data Science Bowl 2018, StarDist, Cellpose) counts matches at an overlap threshold:
``TP / (TP + FP + FN)``, there called average precision, and F1; their means over thresholds are mAP and mF1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

COCO_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Overlaps from 0.5 to 0.95, as COCO and the Data Science Bowl average over."""


def instance_counts(
    preds: Tensor, target: Tensor, *, thresholds: Sequence[float] = COCO_THRESHOLDS, valid: Tensor | None = None
) -> Tensor:
    """Matched, superfluous and missed instances at each threshold of intersection over union.

    At most one target is matched to each prediction: above 0.5 no choice exists, below it as many pairs as possible are
    matched, of those with the greatest total overlap.

    Args:
        preds: integer instance numbers ``(*spatial)``; 0 is background.
        target: the same shape.
        thresholds: an overlap of at least this much is a match, each in (0, 1].
        valid: bool ``(*spatial)``; only True voxels count.

    Returns:
        int64 ``(T, 3)``: TP, FP, FN.

    Raises:
        ValueError: if shapes or types do not fit, a number is negative, or a threshold is out of range.

    Example:
        >>> target = torch.tensor([[1, 1, 0, 2, 2]])
        >>> instance_counts(torch.tensor([[7, 7, 0, 0, 3]]), target, thresholds=(0.5, 0.75)).tolist()
        [[2, 0, 0], [1, 1, 1]]
    """
    _check_maps(preds, target, valid)
    check_thresholds(thresholds)
    overlap = _overlaps(preds, target, valid)
    predicted, wanted = overlap.shape
    hits = torch.tensor([_matched(overlap, threshold) for threshold in thresholds], dtype=torch.int64)
    return torch.stack([hits, predicted - hits, wanted - hits], dim=-1).to(preds.device)


def instance_precision(counts: Tensor) -> Tensor:
    """``TP / (TP + FP + FN)``, what cell segmentation calls average precision; its mean over thresholds is mAP.

    Args:
        counts: integers ``(..., 3)`` of :func:`instance_counts`, or sums of them.

    Returns:
        float64 ``(...)``; NaN where there is no instance at all.

    Example:
        >>> instance_precision(torch.tensor([[2, 0, 0], [1, 1, 1]])).mean().item()
        0.6666666666666666
    """
    return counts[..., 0].double() / counts.sum(dim=-1).double()


def instance_f1(counts: Tensor) -> Tensor:
    """``2 TP / (2 TP + FP + FN)``; arguments as :func:`instance_precision`, and mF1 is its mean over thresholds."""
    hits, superfluous, missed = counts.unbind(dim=-1)
    return 2 * hits.double() / (2 * hits + superfluous + missed).double()


def label_instances(mask: Tensor) -> Tensor:
    """Connected parts of a mask as instances, neighbours along faces, edges and corners.

    Args:
        mask: bool ``(*spatial)``.

    Returns:
        int64 of the same shape: 0 background, then 1, 2, ...

    Example:
        >>> label_instances(torch.tensor([[True, False, True]])).tolist()
        [[1, 0, 2]]
    """
    import numpy as np
    from scipy.ndimage import generate_binary_structure, label

    numbers = np.zeros(tuple(mask.shape), dtype=np.int64)
    label(mask.cpu().numpy(), structure=generate_binary_structure(mask.ndim, mask.ndim), output=numbers)
    return torch.from_numpy(numbers).to(mask.device)


def _check_maps(preds: Tensor, target: Tensor, valid: Tensor | None) -> None:
    if preds.shape != target.shape:
        raise ValueError(f"preds has shape {tuple(preds.shape)}, target {tuple(target.shape)}: they must be equal")
    if valid is not None and (valid.dtype != torch.bool or valid.shape != preds.shape):
        raise ValueError(f"valid must be bool of shape {tuple(preds.shape)}, not {valid.dtype} {tuple(valid.shape)}")
    for name, numbers in (("preds", preds), ("target", target)):
        if numbers.is_floating_point() or numbers.is_complex():
            raise ValueError(f"{name} must hold integer instance numbers, not {numbers.dtype}")
        if numbers.numel() and numbers.min() < 0:
            raise ValueError(f"{name} holds the instance number {int(numbers.min())}; 0 is background")


def check_thresholds(thresholds: Sequence[float]) -> None:
    """Refuse thresholds that are none.

    Raises:
        ValueError: if there is none, or one is not greater than 0 and at most 1.
    """
    if not thresholds or not all(0 < threshold <= 1 for threshold in thresholds):
        raise ValueError(f"thresholds={tuple(thresholds)} must be numbers greater than 0 and at most 1")


def _overlaps(preds: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """float64 ``(predicted, wanted)`` intersections over union, on the processor."""
    flat = [numbers.flatten().long() if valid is None else numbers[valid].long() for numbers in (preds, target)]
    rows, columns = (torch.cat([part, part.new_zeros(1)]).unique(return_inverse=True)[1][:-1] for part in flat)
    height, width = (int(part.max()) + 1 if len(part) else 1 for part in (rows, columns))
    table = torch.bincount(rows * width + columns, minlength=height * width).reshape(height, width).double().cpu()
    union = table.sum(dim=1, keepdim=True) + table.sum(dim=0, keepdim=True) - table
    return (table / union)[1:, 1:]


def _matched(overlap: Tensor, threshold: float) -> int:
    """How many pairs reach the threshold, no instance being used twice."""
    enough = overlap >= threshold
    if not enough.any():
        return 0
    if threshold > 0.5:  # then masks of one map, which do not overlap, can't reach it with the same instance
        return int(enough.sum())
    from scipy.optimize import linear_sum_assignment

    # a further pair is worth more than any overlap
    rows, columns = linear_sum_assignment((enough + overlap / (2 * min(overlap.shape))).numpy(), maximize=True)
    return int(enough[rows, columns].sum())
