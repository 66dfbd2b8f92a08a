"""Classification figures that torchmetrics lacks or has otherwise; its own are right for the rest.

Accuracy, precision, recall, F1, MCC, AUROC of one label a sample: ``torchmetrics.classification``. Here: top-k scores
in which all k guesses count, and binary figures at thresholds; in ``classification_curves`` thresholds at figures,
average precision in float64 and the calibration error. Counts are integers and are divided once, in float64.

Shape legend: ``N`` samples, ``K`` classes or labels, ``T`` thresholds.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from neurotrain.metrics.functional.labels import check_choice

ClassAverage = Literal["macro", "micro", "weighted", "none"]
"""``macro``: mean over classes; ``micro``: of the summed counts; ``weighted``: mean weighted by the classes' samples;
``none``: one figure a class."""

ThresholdFigure = Literal[
    "accuracy", "balanced_accuracy", "f1", "iou", "mcc", "npv", "precision", "recall", "specificity"
]
"""A figure of a binary confusion."""

CalibrationNorm = Literal["l1", "l2", "max"]
"""Of the bins' gaps: ``l1``: mean by share of samples (ECE); ``l2``: root of that of squares;
``max``: greatest (MCE)."""


def top_k_counts(scores: Tensor, target: Tensor, *, k: int) -> Tensor:
    """What top-k scores are made of; counts of a data set are the sum of those of its batches.

    Args:
        scores: floats ``(N, K)``. Of equal scores the lower class is the better guess.
        target: integer class ``(N,)``, or labels in {0, 1} ``(N, K)`` where a sample has several.
        k: number of guesses.

    Returns:
        int64 ``(K, 3)``: of each class the guesses that are right, all guesses, and the samples that have it.

    Raises:
        ValueError: if shapes, types or values do not fit.

    Example:
        >>> top_k_counts(torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([1]), k=2).tolist()
        [[0, 1, 0], [1, 1, 1], [0, 0, 0]]
    """
    relevant = _relevant(scores, target)
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k={k} must be from 1 to the number of classes, {scores.shape[1]}")
    best = scores.detach().argsort(dim=1, descending=True, stable=True)[:, :k]
    guessed = torch.zeros_like(relevant).scatter_(1, best, torch.ones_like(best, dtype=torch.bool))
    return torch.stack([(guessed & relevant).sum(dim=0), guessed.sum(dim=0), relevant.sum(dim=0)], dim=1)


def _relevant(scores: Tensor, target: Tensor) -> Tensor:
    """Whether each sample has each class, ``(N, K)``."""
    if scores.ndim != 2 or not scores.is_floating_point():
        raise ValueError(f"scores must be floats (N, K), not {scores.dtype} {tuple(scores.shape)}")
    if scores.isnan().any():
        raise ValueError("scores must not hold NaN")
    if target.is_floating_point() or target.shape not in (scores.shape, scores.shape[:1]):
        raise ValueError(f"target must be integers (N,) or (N, K), not {target.dtype} {tuple(target.shape)}")
    if target.ndim == 2:
        if not ((target == 0) | (target == 1)).all():
            raise ValueError("target of several labels must hold 0 and 1 only")
        return target.bool()
    if ((target < 0) | (target >= scores.shape[1])).any():
        raise ValueError(f"target must hold classes from 0 to {scores.shape[1] - 1}")
    return torch.nn.functional.one_hot(target.long(), scores.shape[1]).bool()


def top_k_scores(scores: Tensor, target: Tensor, *, k: int, average: ClassAverage = "macro") -> dict[str, Tensor]:
    """Precision, recall and F1 of the k best guesses of each sample, every guess being counted.

    torchmetrics with ``top_k`` counts one guess a sample, the right one where it is among the k.

    Args:
        scores: floats ``(N, K)``. Of equal scores the lower class is the better guess.
        target: integer class ``(N,)``, or labels in {0, 1} ``(N, K)``.
        k: number of guesses.
        average: see :data:`ClassAverage`.

    Returns:
        ``precision``, ``recall`` and ``f1``, float64 scalars, ``(K,)`` with ``average="none"``. NaN where nothing
        defines a figure: a class that is never guessed has no precision. Means skip it.

    Raises:
        ValueError: if shapes, types, values or a choice do not fit.

    Example:
        >>> found = top_k_scores(torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([1]), k=2, average="micro")
        >>> found["precision"].item(), found["recall"].item()
        (0.5, 1.0)
    """
    check_choice("average", average, get_args(ClassAverage))
    return top_k_scores_from_counts(top_k_counts(scores, target, k=k), average=average)


def top_k_scores_from_counts(counts: Tensor, *, average: ClassAverage) -> dict[str, Tensor]:
    """What :func:`top_k_scores` returns, of counts.

    Args:
        counts: int64 ``(K, 3)`` of :func:`top_k_counts`.
        average: see :data:`ClassAverage`.
    """
    if average == "micro":
        counts = counts.sum(dim=0)
    right, guessed, relevant = counts.double().unbind(dim=-1)
    figures = {"precision": right / guessed, "recall": right / relevant, "f1": 2 * right / (guessed + relevant)}
    if average == "macro":
        return {name: values.nanmean() for name, values in figures.items()}
    if average == "weighted":
        return {name: _weighted(values, relevant) for name, values in figures.items()}
    return figures


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    weights = weights.where(~values.isnan(), 0.0)
    return (values.nan_to_num() * weights).sum() / weights.sum()


def threshold_counts(scores: Tensor, target: Tensor, thresholds: Tensor) -> Tensor:
    """Binary confusion at thresholds, from one sort; a sample is positive where ``score >= threshold``.

    Args:
        scores: floats of any shape; half precision is compared in float32.
        target: labels in {0, 1} or bool, same shape.
        thresholds: floats ``(T,)`` in any order.

    Returns:
        int64 ``(T, 4)``: true positives, false positives, false negatives, true negatives.

    Raises:
        ValueError: if shapes, types or values do not fit.

    Example:
        >>> threshold_counts(torch.tensor([0.2, 0.7]), torch.tensor([0, 1]), torch.tensor([0.2, 0.5])).tolist()
        [[1, 1, 0, 0], [1, 0, 0, 1]]
    """
    ordered, positive = _sorted(scores, target)
    at = torch.searchsorted(ordered, thresholds.to(ordered).contiguous(), side="left")
    below = torch.nn.functional.pad(positive.cumsum(0), (1, 0))[at]
    positives, number = positive.sum(), len(ordered)
    hits = positives - below
    return torch.stack([hits, number - at - hits, below, at - below], dim=1)


def _sorted(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Scores, at least float32, ascending, and int64 labels in their order."""
    if scores.shape != target.shape:
        raise ValueError(f"scores has shape {tuple(scores.shape)}, target {tuple(target.shape)}: they must be equal")
    if not scores.is_floating_point():
        raise ValueError(f"scores must be floating point, not {scores.dtype}")
    if scores.isnan().any():
        raise ValueError("scores must not hold NaN")
    if not ((target == 0) | (target == 1)).all():
        raise ValueError("target must hold the labels 0 and 1 only")
    flat = scores.detach().flatten()
    ordered, order = flat.to(torch.promote_types(flat.dtype, torch.float32)).sort()
    return ordered, target.flatten()[order].long()


def figure_from_counts(counts: Tensor, *, figure: ThresholdFigure) -> Tensor:
    """A figure of binary confusions.

    Args:
        counts: int64 ``(..., 4)``: true positives, false positives, false negatives, true negatives.
        figure: see :data:`ThresholdFigure`.

    Returns:
        float64 ``(...)``; NaN for 0 / 0.

    Raises:
        ValueError: if the figure is unknown.

    Example:
        >>> figure_from_counts(torch.tensor([3, 1, 1, 5]), figure="f1").item()
        0.75
    """
    check_choice("figure", figure, get_args(ThresholdFigure))
    tp, fp, fn, tn = counts.double().unbind(dim=-1)
    if figure == "mcc":
        # each root apart: the product of four counts of a large data set is beyond 2^53
        return (tp * tn - fp * fn) / ((tp + fp).sqrt() * (tp + fn).sqrt() * (tn + fp).sqrt() * (tn + fn).sqrt())
    if figure == "balanced_accuracy":
        return (tp / (tp + fn) + tn / (tn + fp)) / 2
    parts: dict[str, tuple[Tensor, Tensor]] = {
        "accuracy": (tp + tn, tp + fp + fn + tn),
        "f1": (2 * tp, 2 * tp + fp + fn),
        "iou": (tp, tp + fp + fn),
        "npv": (tn, tn + fn),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "specificity": (tn, tn + fp),
    }
    part, whole = parts[figure]
    return part / whole


def figure_at_threshold(
    scores: Tensor, target: Tensor, *, figure: ThresholdFigure, thresholds: float | Tensor = 0.5
) -> Tensor:
    """A figure of a binary problem at one or more thresholds; a sample is positive where ``score >= threshold``.

    Args:
        scores: floats of any shape.
        target: labels in {0, 1} or bool, same shape.
        figure: see :data:`ThresholdFigure`.
        thresholds: one, or floats ``(T,)``.

    Returns:
        float64 scalar or ``(T,)``; NaN for 0 / 0.

    Raises:
        ValueError: if shapes, types, values or the choice do not fit.

    Example:
        >>> figure_at_threshold(torch.tensor([0.2, 0.7]), torch.tensor([0, 1]), figure="precision").item()
        1.0
    """
    many = torch.as_tensor(thresholds, dtype=torch.float64)
    counts = threshold_counts(scores, target, many.reshape(-1))
    return figure_from_counts(counts, figure=figure).reshape(many.shape)
