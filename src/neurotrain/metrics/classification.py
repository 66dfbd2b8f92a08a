"""Running classification metrics that torchmetrics lacks or has otherwise.

For accuracy, precision, recall, F1, AUROC and MCC of one label a sample use ``torchmetrics.classification``, which is
right. The maths here are in :mod:`neurotrain.metrics.functional`.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from neurotrain.metrics.functional.classification import (
    CalibrationNorm,
    ClassAverage,
    ThresholdFigure,
    figure_from_counts,
    threshold_counts,
    top_k_counts,
    top_k_scores_from_counts,
)
from neurotrain.metrics.functional.classification_curves import (
    average_precision,
    calibration_error_of,
    confidences,
    threshold_at_precision,
    threshold_at_recall,
)
from neurotrain.metrics.functional.labels import check_choice
from neurotrain.metrics.records import Plotted, SampleRecords, bits_float, float_bits


class TopKScores(Plotted):
    """Precision, recall and F1 of the k best guesses; see :func:`neurotrain.metrics.functional.top_k_scores`.

    Example:
        >>> metric = TopKScores(num_classes=3, k=2, average="micro")
        >>> metric.update(torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([1]))
        >>> metric.compute()["precision"].item()
        0.5
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    counts: Tensor

    def __init__(self, *, num_classes: int = 10, k: int = 5, average: ClassAverage = "macro") -> None:
        """Set the problem.

        Args:
            num_classes: K.
            k: number of guesses, at most K.
            average: see :data:`neurotrain.metrics.functional.classification.ClassAverage`.

        Raises:
            ValueError: if the choice is unknown, or k is not from 1 to K.
        """
        super().__init__()
        check_choice("average", average, get_args(ClassAverage))
        if not 1 <= k <= num_classes:
            raise ValueError(f"k={k} must be from 1 to num_classes={num_classes}")
        self.num_classes = num_classes
        self.k = k
        self.average: ClassAverage = average
        self.add_state("counts", torch.zeros(num_classes, 3, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            scores: floats ``(N, K)``.
            target: integer class ``(N,)``, or labels in {0, 1} ``(N, K)``.

        Raises:
            ValueError: if shapes, types or values do not fit.
        """
        if scores.shape[1:] != (self.num_classes,):
            raise ValueError(f"scores has shape {tuple(scores.shape)}, expected (N, {self.num_classes})")
        self.counts = self.counts + top_k_counts(scores, target, k=self.k)

    def compute(self) -> dict[str, Tensor]:
        """``precision``, ``recall`` and ``f1`` of all samples of all ranks, float64."""
        return top_k_scores_from_counts(self.counts, average=self.average)


class FigureAtThreshold(Plotted):
    """A figure of a binary problem; see :func:`neurotrain.metrics.functional.figure_at_threshold`.

    Example:
        >>> metric = FigureAtThreshold(figure="recall", threshold=0.5)
        >>> metric.update(torch.tensor([0.2, 0.7]), torch.tensor([1, 1]))
        >>> metric.compute().item()
        0.5
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    counts: Tensor

    def __init__(self, *, figure: ThresholdFigure = "f1", threshold: float = 0.5) -> None:
        """Set the figure.

        Args:
            figure: see :data:`neurotrain.metrics.functional.classification.ThresholdFigure`.
            threshold: scores from here on are positive.

        Raises:
            ValueError: if the figure is unknown.
        """
        super().__init__()
        check_choice("figure", figure, get_args(ThresholdFigure))
        self.figure: ThresholdFigure = figure
        self.threshold = threshold
        self.add_state("counts", torch.zeros(4, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            scores: floats of any shape.
            target: labels in {0, 1} or bool, same shape.

        Raises:
            ValueError: if shapes, types or values do not fit.
        """
        thresholds = torch.tensor([self.threshold], dtype=torch.float64)
        self.counts = self.counts + threshold_counts(scores, target, thresholds)[0]

    def compute(self) -> Tensor:
        """The figure of all samples of all ranks, float64; NaN for 0 / 0."""
        return figure_from_counts(self.counts, figure=self.figure)


class _ScoreRecords(SampleRecords):
    """Scores and labels of all samples: what figures of a whole ranking need."""

    is_differentiable = False

    def __init__(self, *, num_labels: int) -> None:
        super().__init__()
        if num_labels < 1:
            raise ValueError(f"num_labels={num_labels} must be at least 1")
        self.num_labels = num_labels
        self._add_rows("scores", shape=(num_labels,), dtype=torch.int64)
        self._add_rows("labels", shape=(num_labels,), dtype=torch.int8)

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            scores: floats ``(N,)``, or ``(N, K)`` of several labels.
            target: labels in {0, 1} or bool, same shape.

        Raises:
            ValueError: if shapes, types or values do not fit.
        """
        shape = (len(scores), self.num_labels) if scores.ndim == 2 or self.num_labels > 1 else (len(scores),)
        if scores.shape != shape or target.shape != scores.shape:
            raise ValueError(f"scores {tuple(scores.shape)} and target {tuple(target.shape)} must be {shape}")
        if not scores.is_floating_point() or scores.isnan().any():
            raise ValueError(f"scores must be floats without NaN, not {scores.dtype}")
        if not ((target == 0) | (target == 1)).all():
            raise ValueError("target must hold the labels 0 and 1 only")
        self._append("scores", float_bits(scores.detach()).reshape(-1, self.num_labels))
        self._append("labels", target.to(torch.int8).reshape(-1, self.num_labels))

    def _all(self) -> tuple[Tensor, Tensor]:
        return bits_float(self._rows("scores")), self._rows("labels")


class MultilabelMAP(_ScoreRecords):
    """Mean over labels of the average precision; see :func:`neurotrain.metrics.functional.average_precision`.

    Example:
        >>> metric = MultilabelMAP(num_labels=2)
        >>> metric.update(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[1, 0], [0, 1]]))
        >>> metric.compute().item()
        1.0
    """

    higher_is_better = True

    def __init__(self, *, num_labels: int = 1) -> None:
        """Set the problem.

        Args:
            num_labels: K; 1 for a binary problem.

        Raises:
            ValueError: if it is less than 1.
        """
        super().__init__(num_labels=num_labels)

    def compute(self) -> Tensor:
        """Mean over the labels that have a positive, of all samples of all ranks, float64; NaN where none has."""
        return average_precision(*self._all()).nanmean()


class ThresholdAt(_ScoreRecords):
    """The threshold that gives a wanted recall or precision on the data set.

    See :func:`neurotrain.metrics.functional.threshold_at_recall` and
    :func:`neurotrain.metrics.functional.threshold_at_precision`.

    Example:
        >>> metric = ThresholdAt(figure="recall", value=0.5)
        >>> metric.update(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 0, 1]))
        >>> round(metric.compute()["threshold"].item(), 4)
        0.9
    """

    higher_is_better = None

    def __init__(self, *, figure: Literal["recall", "precision"] = "recall", value: float = 0.9) -> None:
        """Set what is wanted.

        Args:
            figure: what must be reached.
            value: how much of it, in (0, 1].

        Raises:
            ValueError: if the figure is unknown or the value is not a share.
        """
        super().__init__(num_labels=1)
        check_choice("figure", figure, ("recall", "precision"))
        if not 0 < value <= 1:
            raise ValueError(f"value={value} must be in (0, 1]")
        self.figure: Literal["recall", "precision"] = figure
        self.value = value

    def compute(self) -> dict[str, Tensor]:
        """``threshold``, ``precision`` and ``recall``, float64; NaN where it is never reached."""
        scores, target = self._all()
        if self.figure == "recall":
            return threshold_at_recall(scores, target, recall=self.value)._asdict()
        return threshold_at_precision(scores, target, precision=self.value)._asdict()


class CalibrationError(SampleRecords):
    """Calibration error over a data set; see :func:`neurotrain.metrics.functional.calibration_error`.

    Example:
        >>> metric = CalibrationError(bins=10)
        >>> metric.update(torch.tensor([0.9, 0.9]), torch.tensor([1, 0]))
        >>> round(metric.compute().item(), 6)
        0.4
    """

    is_differentiable = False
    higher_is_better = False

    def __init__(self, *, bins: int = 15, norm: CalibrationNorm = "l1") -> None:
        """Set the bins.

        Args:
            bins: how many, of equal width.
            norm: see :data:`neurotrain.metrics.functional.classification.CalibrationNorm`.

        Raises:
            ValueError: if the choice is unknown or there is no bin.
        """
        super().__init__()
        check_choice("norm", norm, get_args(CalibrationNorm))
        if bins < 1:
            raise ValueError(f"bins={bins} must be at least 1")
        self.bins = bins
        self.norm: CalibrationNorm = norm
        self._add_rows("confidence", shape=(), dtype=torch.int64)
        self._add_rows("right", shape=(), dtype=torch.bool)

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            probabilities: of the positive label ``(N,)``, or of each class ``(N, K)``.
            target: labels in {0, 1} or bool ``(N,)``, or integer classes ``(N,)``.

        Raises:
            ValueError: if shapes, types or values do not fit.
        """
        confidence, right = confidences(probabilities, target)
        self._append("confidence", float_bits(confidence))
        self._append("right", right)

    def compute(self) -> Tensor:
        """Of all samples of all ranks, float64 in [0, 1]; NaN without samples."""
        confidence, right = bits_float(self._rows("confidence")), self._rows("right")
        return calibration_error_of(confidence, right, bins=self.bins, norm=self.norm)
