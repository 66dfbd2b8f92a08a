"""Overlap of label maps: confusion counts per image and class, and the scores that follow from them.

One pass counts, everything else is arithmetic on ``(..., 4)`` integers, so a score of a whole data set is the score of
the summed counts (``*_from_counts``), never a mean of batch means.

Conventions for an empty denominator (``empty``), where libraries differ:

- ``"nan"`` (default): NaN, to be skipped by a mean. nnU-Net v2 does so for Dice and IoU: NaN where the class is absent
  from prediction and reference, 0 where it is absent from one.
- ``"one"``: a correct "nothing here" scores 1. MONAI's ``DiceMetric(ignore_empty=False)`` does so for Dice.
- ``"nan_target"``: NaN wherever the class is absent from the *reference*, even under false positives. MONAI's default,
  ``ignore_empty=True``, does so for Dice.
- ``"zero"``: 0, as scikit-learn's ``zero_division=0``.

Shape legend: ``B`` batch, ``K`` classes, ``*spatial`` any number of axes.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.metrics.functional.labels import check_choice, check_labels

EmptyScore = Literal["nan", "one", "zero", "nan_target"]
"""What a score is where its denominator is zero; see the module's docstring."""

_EMPTY_VALUES = {"nan": float("nan"), "one": 1.0, "zero": 0.0, "nan_target": float("nan")}
# most cells of a joint table whose codes fit in seven bits, so that a pair of them is a positive int16
_PAIRED_CELLS = 128


def confusion_counts(
    preds: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode = "binary",
    num_classes: int = 1,
    valid: Tensor | None = None,
) -> Tensor:
    """True and false positives and negatives of every image and class, in one pass over the voxels.

    Args:
        preds: integer or bool labels ``(B, *spatial)``, for multilabel ``(B, L, *spatial)``.
        target: the same shape.
        mode: see :data:`neurotrain.batch.SegmentationMode`.
        num_classes: K: 1 for binary, where only label 1 is counted.
        valid: bool ``(B, *spatial)``; voxels that are False count nowhere, and their labels may be anything.

    Returns:
        int64 ``(B, K, 4)``: TP, FP, FN, TN. They sum to the number of valid voxels of the image.

    Raises:
        ValueError: if shapes or types do not fit, or a label of a valid voxel is outside its range.

    Example:
        >>> confusion_counts(torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, 0, 1, 0]])).tolist()
        [[[1, 1, 1, 1]]]
    """
    check_labels(preds, target, valid, mode=mode, num_classes=num_classes)
    levels = num_classes if mode == "multiclass" else 2
    rows = preds.shape[0] * (num_classes if mode == "multilabel" else 1)
    if valid is not None and mode == "multilabel":
        valid = valid.unsqueeze(1).expand_as(preds)
    keep = None if valid is None else valid.reshape(rows, -1)
    flat_preds = _labels_in_range("preds", preds.reshape(rows, -1), levels, keep)
    flat_target = _labels_in_range("target", target.reshape(rows, -1), levels, keep)
    table = _joint_table(flat_preds, flat_target, levels, keep)
    return _counts_of_table(table, mode).reshape(preds.shape[0], num_classes, 4)


def _labels_in_range(name: str, labels: Tensor, levels: int, keep: Tensor | None) -> Tensor:
    """Labels as uint8 or int32, 0 where they do not count; refuses what is outside ``0..levels-1``."""
    if labels.dtype == torch.bool:
        labels = labels.view(torch.uint8)
    if keep is not None:
        labels = labels * keep  # several times faster than masked_fill
    if labels.numel():
        low, high = (int(bound) for bound in labels.aminmax())
        if low < 0 or high >= levels:
            wrong = low if low < 0 else high
            raise ValueError(f"{name} holds the label {wrong} inside the valid region; labels are 0..{levels - 1}")
    return labels.to(torch.uint8 if levels**2 <= _PAIRED_CELLS else torch.int32)


def _joint_table(preds: Tensor, target: Tensor, levels: int, keep: Tensor | None) -> Tensor:
    """int64 ``(rows, levels, levels)``: how often each (target, prediction) occurs in each row."""
    rows, voxels = preds.shape
    cells = levels * levels
    paired = cells <= _PAIRED_CELLS and voxels >= 256 * cells and preds.device.type == "cpu"
    count = _count_in_pairs if paired else _count_at_once
    table = count(torch.add(preds, target, alpha=levels), cells).reshape(rows, levels, levels)
    if keep is not None:
        table[:, 0, 0] -= voxels - keep.sum(dim=1)  # what does not count was made (0, 0)
    return table


def _count_in_pairs(code: Tensor, cells: int) -> Tensor:
    """Histogram ``(rows, cells)`` of bytes: two neighbours make one number, so that half as many are counted."""
    odd = code.shape[1] % 2
    if odd:
        code = torch.nn.functional.pad(code, (0, 1))
    pairs = [torch.bincount(row, minlength=256 * cells) for row in code.view(torch.int16)]
    table = torch.stack(pairs).reshape(-1, cells, 256)
    histogram = table.sum(dim=2) + table[..., :cells].sum(dim=1)
    histogram[:, 0] -= odd
    return histogram


def _count_at_once(code: Tensor, cells: int) -> Tensor:
    """Histogram ``(rows, cells)`` of all rows together: for many short rows, many cells and other devices."""
    rows = len(code)
    assert rows * cells < 2**31, "codes are int32"
    offsets = cells * torch.arange(rows, dtype=torch.int32, device=code.device)
    return torch.bincount((code + offsets.unsqueeze(1)).flatten(), minlength=rows * cells).reshape(rows, cells)


def _counts_of_table(table: Tensor, mode: SegmentationMode) -> Tensor:
    """``(rows, classes, 4)`` from ``(rows, target, prediction)``; without multiclass only label 1 is a class."""
    hits = table.diagonal(dim1=1, dim2=2)
    false_positives = table.sum(dim=1) - hits
    false_negatives = table.sum(dim=2) - hits
    rest = table.sum(dim=(1, 2)).unsqueeze(1) - hits - false_positives - false_negatives
    counts = torch.stack([hits, false_positives, false_negatives, rest], dim=-1)
    return counts if mode == "multiclass" else counts[:, 1:]


def _ratio(numerator: Tensor, denominator: Tensor, relevant: Tensor, empty: EmptyScore) -> Tensor:
    """Quotient in float64: counts of a whole data set exceed the 24 bits of a float32."""
    check_choice("empty", empty, get_args(EmptyScore))
    score = numerator.double() / denominator.double()
    return torch.where(relevant == 0 if empty == "nan_target" else denominator == 0, _EMPTY_VALUES[empty], score)


def _unbind(counts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if counts.ndim < 1 or counts.shape[-1] != 4:
        raise ValueError(f"counts has shape {tuple(counts.shape)}, expected (..., 4): TP, FP, FN, TN")
    tp, fp, fn, tn = counts.unbind(dim=-1)
    return tp, fp, fn, tn


def dice_from_counts(counts: Tensor, *, empty: EmptyScore = "nan") -> Tensor:
    """Dice coefficient, ``2 TP / (2 TP + FP + FN)``.

    Args:
        counts: integers ``(..., 4)`` of :func:`confusion_counts`, or sums of them.
        empty: score where the class is absent from prediction and target; see the module's docstring.

    Returns:
        float64 ``(...)`` in [0, 1].

    Reference:
        Dice, "Measures of the amount of ecologic association between species", 1945.

    Example:
        >>> dice_from_counts(torch.tensor([[3, 1, 1, 5], [0, 0, 0, 9]])).tolist()
        [0.75, nan]
    """
    tp, fp, fn, _ = _unbind(counts)
    return _ratio(2 * tp, 2 * tp + fp + fn, tp + fn, empty)


def iou_from_counts(counts: Tensor, *, empty: EmptyScore = "nan") -> Tensor:
    """Intersection over union (Jaccard), ``TP / (TP + FP + FN)``; arguments as :func:`dice_from_counts`."""
    tp, fp, fn, _ = _unbind(counts)
    return _ratio(tp, tp + fp + fn, tp + fn, empty)


def sensitivity_from_counts(counts: Tensor, *, empty: EmptyScore = "nan") -> Tensor:
    """Sensitivity (recall), ``TP / (TP + FN)``, empty where the target is; as :func:`dice_from_counts`."""
    tp, _, fn, _ = _unbind(counts)
    return _ratio(tp, tp + fn, tp + fn, empty)


def specificity_from_counts(counts: Tensor, *, empty: EmptyScore = "nan") -> Tensor:
    """Specificity, ``TN / (TN + FP)``, empty where every valid voxel is positive; as :func:`dice_from_counts`."""
    tp, fp, fn, tn = _unbind(counts)
    return _ratio(tn, tn + fp, tp + fn, empty)


def accuracy_from_counts(counts: Tensor, *, empty: EmptyScore = "nan") -> Tensor:
    """Accuracy of one class against the rest, ``(TP + TN) / all``, empty without a valid voxel."""
    tp, fp, fn, tn = _unbind(counts)
    return _ratio(tp + tn, tp + fp + fn + tn, tp + fn, empty)


def dice_score(
    preds: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode = "binary",
    num_classes: int = 1,
    valid: Tensor | None = None,
    empty: EmptyScore = "nan",
) -> Tensor:
    """Dice coefficient of every image and class: :func:`dice_from_counts` of :func:`confusion_counts`.

    Args:
        preds: integer or bool labels ``(B, *spatial)``, for multilabel ``(B, L, *spatial)``.
        target: the same shape.
        mode: see :data:`neurotrain.batch.SegmentationMode`.
        num_classes: K.
        valid: bool ``(B, *spatial)``; only True voxels count.
        empty: score where the class is absent from both; see the module's docstring for other libraries.

    Returns:
        float64 ``(B, K)`` in [0, 1].

    Raises:
        ValueError: as :func:`confusion_counts`, or if ``empty`` is unknown.

    Example:
        >>> dice_score(torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, 0, 0, 0]])).tolist()
        [[0.6666666666666666]]
    """
    return dice_from_counts(
        confusion_counts(preds, target, mode=mode, num_classes=num_classes, valid=valid), empty=empty
    )


def iou_score(
    preds: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode = "binary",
    num_classes: int = 1,
    valid: Tensor | None = None,
    empty: EmptyScore = "nan",
) -> Tensor:
    """Intersection over union of every image and class, ``(B, K)``; arguments as :func:`dice_score`."""
    return iou_from_counts(
        confusion_counts(preds, target, mode=mode, num_classes=num_classes, valid=valid), empty=empty
    )


def sensitivity(
    preds: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode = "binary",
    num_classes: int = 1,
    valid: Tensor | None = None,
    empty: EmptyScore = "nan",
) -> Tensor:
    """Sensitivity of every image and class, ``(B, K)``; arguments as :func:`dice_score`."""
    counts = confusion_counts(preds, target, mode=mode, num_classes=num_classes, valid=valid)
    return sensitivity_from_counts(counts, empty=empty)


def specificity(
    preds: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode = "binary",
    num_classes: int = 1,
    valid: Tensor | None = None,
    empty: EmptyScore = "nan",
) -> Tensor:
    """Specificity of every image and class, ``(B, K)``; arguments as :func:`dice_score`."""
    counts = confusion_counts(preds, target, mode=mode, num_classes=num_classes, valid=valid)
    return specificity_from_counts(counts, empty=empty)


def accuracy(
    preds: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode = "binary",
    num_classes: int = 1,
    valid: Tensor | None = None,
    empty: EmptyScore = "nan",
) -> Tensor:
    """Accuracy of every image and class against the rest, ``(B, K)``; arguments as :func:`dice_score`."""
    counts = confusion_counts(preds, target, mode=mode, num_classes=num_classes, valid=valid)
    return accuracy_from_counts(counts, empty=empty)
