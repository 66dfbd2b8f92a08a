"""Centreline Dice: whether thin structures are connected as they should be, whatever their width.

Shape legend: ``B`` batch, ``K`` classes, ``*spatial`` two or three axes.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.metrics.functional.labels import check_choice, check_labels, class_mask
from neurotrain.metrics.functional.surface import EmptySurface

_EMPTY_VALUES = {"nan": float("nan"), "one": 1.0, "zero": 0.0}


def centerline_dice(
    preds: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode = "binary",
    num_classes: int = 1,
    valid: Tensor | None = None,
    empty: EmptySurface = "nan",
) -> Tensor:
    """Harmonic mean of the shares of the predicted skeleton in the target, and of the target's in the prediction.

    Not differentiable; the loss of the same name has soft skeletons, hence a gradient:
    :func:`neurotrain.losses.functional.centerline_dice_loss`. Skeletons are scikit-image's (2-D: Zhang and Suen's
    thinning, 3-D: Lee's), on the processor.

    Args:
        preds: integer or bool labels ``(B, *spatial)``, for multilabel ``(B, L, *spatial)``; 2-D or 3-D.
        target: the same shape.
        mode: see :data:`neurotrain.batch.SegmentationMode`.
        num_classes: K.
        valid: bool ``(B, *spatial)``; skeletons are those of the whole masks, and only their True voxels count.
        empty: score where neither skeleton has a voxel that counts. Where one has none, the score is 0.

    Returns:
        float64 ``(B, K)`` in [0, 1].

    Raises:
        ValueError: if shapes or types do not fit, or there are not two or three spatial axes.

    Reference:
        Shit et al., 2021 (arXiv:2003.07311), equations 1 to 3; reference code ``jocpae/clDice``.

    Example:
        >>> target = torch.zeros(1, 7, 9, dtype=torch.long)
        >>> target[0, 2:5, 1:8] = 1
        >>> centerline_dice(target, target).item()
        1.0
    """
    check_labels(preds, target, valid, mode=mode, num_classes=num_classes)
    check_choice("empty", empty, get_args(EmptySurface))
    axes = preds.ndim - (2 if mode == "multilabel" else 1)
    if axes not in (2, 3):
        raise ValueError(f"skeletons are defined for two or three spatial axes, not {axes}")
    scores = torch.empty(preds.shape[0], num_classes, dtype=torch.float64)
    for index in range(num_classes):
        pair = [class_mask(labels, index, mode=mode) for labels in (preds, target)]
        for image in range(preds.shape[0]):
            inside = None if valid is None else valid[image]
            scores[image, index] = _harmonic_mean(pair[0][image], pair[1][image], inside, _EMPTY_VALUES[empty])
    return scores.to(preds.device)


def _harmonic_mean(predicted: Tensor, wanted: Tensor, inside: Tensor | None, empty: float) -> float:
    found, skeleton_size = _covered(predicted, wanted, inside)
    right, reference_size = _covered(wanted, predicted, inside)
    if not (skeleton_size or reference_size):
        return empty
    if not (found and right):
        return 0.0
    precision, sensitivity = found / skeleton_size, right / reference_size
    return 2 * precision * sensitivity / (precision + sensitivity)


def _covered(mask: Tensor, other: Tensor, inside: Tensor | None) -> tuple[int, int]:
    """Voxels of the mask's skeleton inside the other mask, and all of them."""
    from skimage.morphology import skeletonize

    skeleton = torch.from_numpy(skeletonize(mask.cpu().numpy()).astype(bool)).to(mask.device)
    if inside is not None:
        skeleton = skeleton & inside
    return int((skeleton & other).sum()), int(skeleton.sum())
