"""Figures of a ranking: average precision, thresholds at a wanted recall or precision, and the calibration error.

Shape legend: ``N`` samples, ``K`` labels.
"""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch
from torch import Tensor

from neurotrain.metrics.functional.classification import CalibrationNorm
from neurotrain.metrics.functional.labels import check_choice


class OperatingPoint(NamedTuple):
    """A threshold and what it gives; all NaN where no threshold reaches what is wanted.

    Attributes:
        threshold: scores from here on are positive.
        precision: share of the positives that are right.
        recall: share of the positive labels that are found.
    """

    threshold: Tensor
    precision: Tensor
    recall: Tensor


def average_precision(scores: Tensor, target: Tensor) -> Tensor:
    """Average precision, ``sum (R_n - R_{n-1}) P_n`` over distinct scores, of one label or of each of several.

    Args:
        scores: floats ``(N,)`` or ``(N, K)``.
        target: labels in {0, 1} or bool, same shape.

    Returns:
        float64 scalar or ``(K,)``, whose ``nanmean()`` is the multilabel mAP; NaN for a label without positives.

    Raises:
        ValueError: if shapes, types or values do not fit.

    Example:
        >>> average_precision(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 0, 1])).item()
        0.8333333333333333
    """
    if scores.ndim not in (1, 2):
        raise ValueError(f"scores must be (N,) or (N, K), not {tuple(scores.shape)}")
    if scores.ndim == 1:
        return _area(*_points(scores, target)[1:])
    if scores.shape != target.shape:
        raise ValueError(f"scores has shape {tuple(scores.shape)}, target {tuple(target.shape)}: they must be equal")
    columns = zip(scores.unbind(1), target.unbind(1), strict=True)
    return torch.stack([_area(*_points(column, labels)[1:]) for column, labels in columns])


def _points(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct scores from the highest down, with the int64 numbers of hits and of samples down to each."""
    if scores.shape != target.shape:
        raise ValueError(f"scores has shape {tuple(scores.shape)}, target {tuple(target.shape)}: they must be equal")
    if not scores.is_floating_point() or scores.isnan().any():
        raise ValueError(f"scores must be floats without NaN, not {scores.dtype}")
    if not ((target == 0) | (target == 1)).all():
        raise ValueError("target must hold the labels 0 and 1 only")
    ordered, order = scores.detach().flatten().sort(descending=True)
    hits = target.flatten()[order].long().cumsum(0)
    last = torch.ones(len(ordered), dtype=torch.bool, device=scores.device)
    last[:-1] = ordered[1:] != ordered[:-1]
    ends = last.nonzero().flatten()
    return ordered[ends], hits[ends], ends + 1


def _area(hits: Tensor, samples: Tensor) -> Tensor:
    positives = hits[-1:].double().sum()
    gained = hits.diff(prepend=hits.new_zeros(1)).double()
    return (gained * (hits.double() / samples)).sum() / positives


def threshold_at_recall(scores: Tensor, target: Tensor, *, recall: float) -> OperatingPoint:
    """The highest threshold whose recall is at least ``recall``: fewest false alarms at that sensitivity.

    Args:
        scores: floats of any shape.
        target: labels in {0, 1} or bool, same shape.
        recall: wanted, in (0, 1].

    Returns:
        Threshold in the scores' type, precision and recall in float64; a sample is positive where
        ``score >= threshold``. NaN without positives.

    Raises:
        ValueError: if shapes, types or values do not fit.

    Example:
        >>> point = threshold_at_recall(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 0, 1]), recall=0.5)
        >>> round(point.threshold.item(), 4), point.precision.item()
        (0.9, 1.0)
    """
    _check_share("recall", recall)
    levels, hits, samples = _points(scores.flatten(), target.flatten())
    found = hits.double() / hits[-1:].double().sum()
    return _point(levels, hits, samples, (found >= recall).nonzero().flatten()[:1])


def threshold_at_precision(scores: Tensor, target: Tensor, *, precision: float) -> OperatingPoint:
    """The lowest threshold whose precision is at least ``precision``: greatest recall at that reliability.

    Args:
        scores: floats of any shape.
        target: labels in {0, 1} or bool, same shape.
        precision: wanted, in (0, 1].

    Returns:
        As :func:`threshold_at_recall`; NaN where no threshold is that precise.

    Raises:
        ValueError: if shapes, types or values do not fit.

    Example:
        >>> point = threshold_at_precision(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 0, 1]), precision=0.6)
        >>> round(point.threshold.item(), 4), point.recall.item()
        (0.7, 1.0)
    """
    _check_share("precision", precision)
    levels, hits, samples = _points(scores.flatten(), target.flatten())
    right = (hits > 0) & (hits.double() / samples >= precision)
    return _point(levels, hits, samples, right.nonzero().flatten()[-1:])


def _point(levels: Tensor, hits: Tensor, samples: Tensor, place: Tensor) -> OperatingPoint:
    if not len(place):
        nan = torch.full((), float("nan"), dtype=torch.float64, device=levels.device)
        return OperatingPoint(nan.to(levels.dtype), nan, nan)
    found = hits[place[0]].double()
    return OperatingPoint(levels[place[0]], found / samples[place[0]], found / hits[-1])


def _check_share(key: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{key}={value} must be in (0, 1]")


def calibration_error(probabilities: Tensor, target: Tensor, *, bins: int = 15, norm: CalibrationNorm = "l1") -> Tensor:
    """Gap between confidence and accuracy over bins of equal width, ``sum |B_m| / N * |acc(B_m) - conf(B_m)|``.

    The bins are ``((m - 1) / M, m / M]``, the first one closed; torchmetrics gives confidences of exactly 1 a bin of
    their own beyond the last.

    Args:
        probabilities: of the positive label ``(N,)``, or of each class ``(N, K)``, whose greatest is the confidence.
        target: labels in {0, 1} or bool ``(N,)``, or integer classes ``(N,)``.
        bins: M.
        norm: see :data:`~neurotrain.metrics.functional.classification.CalibrationNorm`.

    Returns:
        float64 scalar in [0, 1]; NaN without samples.

    Raises:
        ValueError: if shapes, types, values or the choice do not fit.

    Reference:
        Guo et al., 2017 (arXiv:1706.04599), equation 3; Naeini et al., 2015, for the maximum.

    Example:
        >>> round(calibration_error(torch.tensor([0.9, 0.9]), torch.tensor([1, 0]), bins=10).item(), 6)
        0.4
    """
    confidence, right = confidences(probabilities, target)
    return calibration_error_of(confidence, right, bins=bins, norm=norm)


def confidences(probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence, float64, and whether it was justified, bool; arguments as of :func:`calibration_error`.

    Raises:
        ValueError: if shapes, types or values do not fit.
    """
    if not probabilities.is_floating_point() or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError(f"probabilities must be floats in [0, 1], not {probabilities.dtype}; give softmax or sigmoid")
    if target.shape != probabilities.shape[:1] or probabilities.ndim > 2 or target.is_floating_point():
        raise ValueError(
            f"probabilities {tuple(probabilities.shape)} must be (N,) or (N, K) and "
            f"target {tuple(target.shape)} integers (N,)"
        )
    if probabilities.ndim == 1:
        if not ((target == 0) | (target == 1)).all():
            raise ValueError("target must hold the labels 0 and 1 only")
        return probabilities.detach().double(), target.bool()
    if ((target < 0) | (target >= probabilities.shape[1])).any():
        raise ValueError(f"target must hold classes from 0 to {probabilities.shape[1] - 1}")
    greatest = probabilities.detach().max(dim=1)
    return greatest.values.double(), greatest.indices == target


def calibration_error_of(confidence: Tensor, right: Tensor, *, bins: int, norm: CalibrationNorm) -> Tensor:
    """What :func:`calibration_error` returns, of confidences.

    Args:
        confidence: float64 ``(N,)``.
        right: bool ``(N,)``.
        bins: M.
        norm: see :data:`~neurotrain.metrics.functional.classification.CalibrationNorm`.

    Raises:
        ValueError: if the choice is unknown or there is no bin.
    """
    check_choice("norm", norm, get_args(CalibrationNorm))
    if bins < 1:
        raise ValueError(f"bins={bins} must be at least 1")
    if not len(confidence):
        return torch.full((), float("nan"), dtype=torch.float64, device=confidence.device)
    edges = torch.arange(1, bins, dtype=torch.float64, device=confidence.device) / bins
    cell = torch.bucketize(confidence.contiguous(), edges)
    number = torch.bincount(cell, minlength=bins).double()
    gap = torch.bincount(cell, weights=confidence - right.double(), minlength=bins).abs()
    if norm == "l1":
        return gap.sum() / len(confidence)
    mean_gap = gap / number.clamp(min=1)
    if norm == "max":
        return mean_gap.max()
    return ((number / len(confidence)) * mean_gap.square()).sum().sqrt()
