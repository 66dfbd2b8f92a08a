"""Label maps: what they must satisfy, how probabilities become one, and which voxels belong to a class.

Shape legend: ``B`` batch, ``L`` labels of a multilabel problem, ``K`` classes, ``*spatial`` two or three axes.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import get_args

import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value outside its choices.

    Args:
        key: name of the setting, for the message.
        value: what was given.
        choices: what is allowed.

    Raises:
        ValueError: names the key, the value, the choices and the nearest one.
    """
    if value not in choices:
        nearest = get_close_matches(str(value), choices, n=1, cutoff=0.4)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"{key}={value!r} is not one of {', '.join(map(repr, choices))}{hint}")


def check_classes(mode: SegmentationMode, num_classes: int) -> None:
    """Refuse a number of classes that the mode cannot have.

    Args:
        mode: see :data:`neurotrain.batch.SegmentationMode`.
        num_classes: number of channels of the logits: 1 for binary, at least 2 for multiclass, L for multilabel.

    Raises:
        ValueError: if the mode is unknown or the number does not fit it.
    """
    check_choice("mode", mode, get_args(SegmentationMode))
    if mode == "binary" and num_classes != 1:
        raise ValueError(f"num_classes={num_classes}: mode 'binary' has one channel, num_classes=1")
    least = 2 if mode == "multiclass" else 1
    if num_classes < least:
        raise ValueError(f"num_classes={num_classes}: mode {mode!r} needs at least {least}")


def check_valid(valid: Tensor | None, shape: torch.Size | tuple[int, ...]) -> None:
    """Refuse a validity mask that is not boolean or not ``(B, *spatial)``.

    Args:
        valid: the mask, or None.
        shape: the expected ``(B, *spatial)``.

    Raises:
        ValueError: if the type or the shape differs.
    """
    if valid is None:
        return
    if valid.dtype != torch.bool:
        raise ValueError(f"valid must be bool, not {valid.dtype}; use valid.bool()")
    if tuple(valid.shape) != tuple(shape):
        raise ValueError(f"valid has shape {tuple(valid.shape)}, expected {tuple(shape)}")


def check_labels(
    preds: Tensor, target: Tensor, valid: Tensor | None, *, mode: SegmentationMode, num_classes: int
) -> None:
    """Refuse label maps whose shapes or types cannot be compared. Values are not looked at.

    Args:
        preds: integer or bool labels ``(B, *spatial)``, for multilabel ``(B, L, *spatial)``.
        target: the same shape.
        valid: bool ``(B, *spatial)``, or None where every voxel counts.
        mode: see :data:`neurotrain.batch.SegmentationMode`.
        num_classes: number of classes.

    Raises:
        ValueError: if mode, number of classes, a shape or a type does not fit.
    """
    check_classes(mode, num_classes)
    if preds.shape != target.shape:
        raise ValueError(f"preds has shape {tuple(preds.shape)}, target {tuple(target.shape)}: they must be equal")
    for name, labels in (("preds", preds), ("target", target)):
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(f"{name} must hold integer labels, not {labels.dtype}; threshold or argmax it first")
    leading = 2 if mode == "multilabel" else 1
    if preds.ndim < leading + 1:
        raise ValueError(f"preds of shape {tuple(preds.shape)} has no spatial axis in mode {mode!r}")
    if mode == "multilabel" and preds.shape[1] != num_classes:
        raise ValueError(f"preds has {preds.shape[1]} labels on axis 1, num_classes={num_classes}")
    check_valid(valid, preds.shape[:1] + preds.shape[leading:])


def class_mask(labels: Tensor, index: int, *, mode: SegmentationMode) -> Tensor:
    """Voxels of one class.

    Args:
        labels: integer or bool labels ``(B, *spatial)``, for multilabel ``(B, L, *spatial)``.
        index: which class (multiclass) or label (multilabel); 0 in binary, where it means label 1.
        mode: see :data:`neurotrain.batch.SegmentationMode`.

    Returns:
        bool ``(B, *spatial)``.
    """
    if mode == "multilabel":
        return labels[:, index] == 1
    return labels == (1 if mode == "binary" else index)


def predict_labels(probabilities: Tensor, *, mode: SegmentationMode, threshold: float) -> Tensor:
    """Label map of predicted probabilities.

    A voxel is positive where its probability is strictly greater than the threshold, compared in fp32; multiclass takes
    the most probable class, and the threshold does not enter.

    Args:
        probabilities: floats in [0, 1], ``(B, K, *spatial)``.
        mode: see :data:`neurotrain.batch.SegmentationMode`.
        threshold: in [0, 1]; for binary and multilabel.

    Returns:
        int64 (multiclass) or bool labels ``(B, *spatial)``, for multilabel ``(B, K, *spatial)``.

    Example:
        >>> predict_labels(torch.tensor([[[[0.2, 0.5, 0.7]]]]), mode="binary", threshold=0.5).tolist()
        [[[False, False, True]]]
    """
    if mode == "multiclass":
        return probabilities.argmax(dim=1)
    positive = probabilities.float() > threshold
    return positive[:, 0] if mode == "binary" else positive


def check_probabilities(probabilities: Tensor, target: Tensor, *, mode: SegmentationMode, num_classes: int) -> None:
    """Refuse probabilities that are none, or whose shape does not fit the target's.

    Args:
        probabilities: ``(B, K, *spatial)``.
        target: integer labels ``(B, *spatial)``, for multilabel ``(B, K, *spatial)``.
        mode: see :data:`neurotrain.batch.SegmentationMode`.
        num_classes: K.

    Raises:
        ValueError: if a shape does not fit, or a value is NaN or outside [0, 1].
    """
    spatial = target.shape[2:] if mode == "multilabel" else target.shape[1:]
    expected = (target.shape[0], num_classes, *spatial)
    if tuple(probabilities.shape) != expected:
        raise ValueError(f"probabilities has shape {tuple(probabilities.shape)}, expected {expected} for mode {mode!r}")
    if not probabilities.is_floating_point():
        raise ValueError(f"probabilities must be floating point, not {probabilities.dtype}")
    if probabilities.numel() == 0:
        return
    low, high = (bound.item() for bound in probabilities.aminmax())
    # written so that NaN fails it too
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(f"probabilities must lie in [0, 1], found [{low}, {high}]; apply sigmoid or softmax first")
