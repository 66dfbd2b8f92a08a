"""Running segmentation scores over label maps: Dice, IoU, sensitivity, specificity, normalised surface Dice.

The maths are in :mod:`neurotrain.metrics.functional`. Every class keeps what its score is a ratio of, for each sample
(32 bytes a class for the counts, 16 for the areas), so both averages are exact for any split into batches and ranks.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.metrics.functional.boundaries import Boundary
from neurotrain.metrics.functional.labels import check_choice, check_classes
from neurotrain.metrics.functional.overlap import (
    EmptyScore,
    confusion_counts,
    dice_from_counts,
    iou_from_counts,
    sensitivity_from_counts,
    specificity_from_counts,
)
from neurotrain.metrics.functional.surface import (
    EmptySurface,
    check_tolerance,
    surface_dice_from_areas,
    surface_overlap,
)
from neurotrain.metrics.records import SampleRecords, bits_float, float_bits

Average = Literal["sample", "pooled"]
"""``sample``: mean of the samples' scores; ``pooled``: score of the summed counts (areas) of all samples."""

Reduction = Literal["mean", "none"]
"""``mean``: one figure, the mean over classes; ``none``: one figure a class."""


def scored_classes(mode: SegmentationMode, num_classes: int, *, include_background: bool) -> slice:
    """Classes that enter a mean over classes: of a multiclass problem, class 0 is background unless included.

    Args:
        mode: see :data:`neurotrain.batch.SegmentationMode`.
        num_classes: K.
        include_background: whether class 0 of a multiclass problem counts as the others do.

    Raises:
        ValueError: if mode and number of classes do not fit, or the background is to be included where there is none.
    """
    check_classes(mode, num_classes)
    if include_background and mode != "multiclass":
        raise ValueError(f"include_background=True has no effect in mode {mode!r}, which has no background class")
    return slice(1 if mode == "multiclass" and not include_background else 0, num_classes)


class SegmentationScore(SampleRecords):
    """Abstract: labels in, records of ``parts`` numbers per class, one score out."""

    is_differentiable = False
    higher_is_better = True

    def __init__(
        self,
        *,
        parts: int,
        mode: SegmentationMode,
        num_classes: int,
        average: Average,
        reduction: Reduction,
        include_background: bool,
    ) -> None:
        """Set what is averaged and how.

        Args:
            parts: numbers that are kept of each image and class.
            mode: see :data:`neurotrain.batch.SegmentationMode`.
            num_classes: K.
            average: over samples, or of the pooled records; see :data:`Average`.
            reduction: over classes; see :data:`Reduction`.
            include_background: whether class 0 of a multiclass problem enters the mean over classes.

        Raises:
            ValueError: if a choice is unknown, or the settings contradict each other.
        """
        super().__init__()
        check_choice("average", average, get_args(Average))
        check_choice("reduction", reduction, get_args(Reduction))
        if reduction == "none" and include_background:
            raise ValueError("include_background=True has no effect with reduction='none', which returns every class")
        self.mode: SegmentationMode = mode
        self.num_classes = num_classes
        self.average: Average = average
        self.reduction: Reduction = reduction
        self._scored = scored_classes(mode, num_classes, include_background=include_background)
        self._add_rows("records", shape=(num_classes, parts), dtype=torch.int64)

    @abstractmethod
    def _measure(self, preds: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
        """int64 ``(B, K, parts)``."""

    @abstractmethod
    def _score(self, records: Tensor) -> Tensor:
        """Scores ``(samples, K)``, or ``(1, K)`` where ``self.average`` is pooled."""

    def update(self, preds: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Add a batch of label maps.

        Args:
            preds: integer or bool labels ``(B, *spatial)``, for multilabel ``(B, L, *spatial)``.
            target: the same shape.
            valid: bool ``(B, *spatial)``; only True voxels count.

        Raises:
            ValueError: if shapes, types or labels do not fit.
        """
        self._append("records", self._measure(preds, target, valid))

    def compute(self) -> Tensor:
        """Score of all samples of all ranks.

        Returns:
            float64 scalar, or ``(K,)`` with ``reduction="none"`` (a scalar for K = 1). Undefined (NaN) scores are
            skipped by every mean; NaN where nothing is left.
        """
        scores = self._score(self._rows("records"))
        if self.reduction == "mean":
            scores = scores[:, self._scored].nanmean(dim=1)
        return scores.nanmean(dim=0)


class _CountScore(SegmentationScore):
    """What the scores of confusion counts share: everything but the ratio."""

    def __init__(
        self,
        *,
        mode: SegmentationMode = "binary",
        num_classes: int = 1,
        average: Average = "sample",
        reduction: Reduction = "mean",
        include_background: bool = False,
        empty: EmptyScore = "nan",
    ) -> None:
        """Set what is averaged and how.

        Args:
            mode: see :data:`neurotrain.batch.SegmentationMode`.
            num_classes: K: 1 for binary, L for multilabel.
            average: over samples, or of the pooled counts; see :data:`Average`.
            reduction: over classes; see :data:`Reduction`. Within each sample first, then over samples (MONAI's
                ``"mean"``).
            include_background: whether class 0 of a multiclass problem enters the mean over classes.
            empty: score of a class that is absent from prediction and target; ``"nan"`` skips it.

        Raises:
            ValueError: if a choice is unknown, or the settings contradict each other.
        """
        super().__init__(
            parts=4,
            mode=mode,
            num_classes=num_classes,
            average=average,
            reduction=reduction,
            include_background=include_background,
        )
        check_choice("empty", empty, get_args(EmptyScore))
        self.empty: EmptyScore = empty

    def _measure(self, preds: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
        return confusion_counts(preds, target, mode=self.mode, num_classes=self.num_classes, valid=valid)

    def _pool(self, records: Tensor) -> Tensor:
        return records.sum(dim=0, keepdim=True) if self.average == "pooled" else records


class DiceScore(_CountScore):
    """Dice coefficient over a data set; see :func:`neurotrain.metrics.functional.dice_score`.

    Example:
        >>> metric = DiceScore()
        >>> metric.update(torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, 0, 0, 0]]))
        >>> metric.update(torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 0, 1]]))
        >>> round(metric.compute().item(), 4)
        0.8333
    """

    def _score(self, records: Tensor) -> Tensor:
        return dice_from_counts(self._pool(records), empty=self.empty)


class Sensitivity(_CountScore):
    """Sensitivity (recall) over a data set; see :func:`neurotrain.metrics.functional.sensitivity`.

    Example:
        >>> metric = Sensitivity()
        >>> metric.update(torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, 0, 1, 0]]))
        >>> metric.compute().item()
        0.5
    """

    def _score(self, records: Tensor) -> Tensor:
        return sensitivity_from_counts(self._pool(records), empty=self.empty)


class Specificity(_CountScore):
    """Specificity over a data set; see :func:`neurotrain.metrics.functional.specificity`.

    Example:
        >>> metric = Specificity()
        >>> metric.update(torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, 0, 0, 0]]))
        >>> round(metric.compute().item(), 4)
        0.6667
    """

    def _score(self, records: Tensor) -> Tensor:
        return specificity_from_counts(self._pool(records), empty=self.empty)


class IoUScore(_CountScore):
    """Intersection over union over a data set; see :func:`neurotrain.metrics.functional.iou_score`.

    Example:
        >>> metric = IoUScore()
        >>> metric.update(torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, 0, 0, 0]]))
        >>> metric.compute().item()
        0.5
    """

    def _score(self, records: Tensor) -> Tensor:
        return iou_from_counts(self._pool(records), empty=self.empty)


class NormalizedSurfaceDice(SegmentationScore):
    """Normalised surface Dice over a data set; see :func:`neurotrain.metrics.functional.normalized_surface_dice`.

    Example:
        >>> target = torch.zeros(1, 6, 6, dtype=torch.long)
        >>> target[0, 1:4, 1:4] = 1
        >>> metric = NormalizedSurfaceDice(tolerance=1.0)
        >>> metric.update(target.roll(1, dims=2), target)
        >>> metric.compute().item()
        1.0
    """

    def __init__(
        self,
        *,
        tolerance: float = 1.0,
        spacing: tuple[float, ...] | None = None,
        boundary: Boundary = "surfels",
        mode: SegmentationMode = "binary",
        num_classes: int = 1,
        average: Average = "sample",
        reduction: Reduction = "mean",
        include_background: bool = False,
        empty: EmptySurface = "nan",
    ) -> None:
        """Set the tolerance and what is averaged.

        Args:
            tolerance: distance in the unit of ``spacing``, at least 0.
            spacing: size of a voxel along each spatial axis; 1 when not given.
            boundary: of what the boundary consists; see :data:`~neurotrain.metrics.functional.boundaries.Boundary`.
            mode: see :data:`neurotrain.batch.SegmentationMode`.
            num_classes: K: 1 for binary, L for multilabel.
            average: over samples, or the ratio of the summed areas; see :data:`Average`.
            reduction: over classes, within each sample first; see :data:`Reduction`.
            include_background: whether class 0 of a multiclass problem enters the mean over classes.
            empty: score of a class that is absent from both; ``"nan"`` skips it.

        Raises:
            ValueError: if a choice is unknown, the tolerance is negative, or the settings contradict each other.
        """
        super().__init__(
            parts=2,
            mode=mode,
            num_classes=num_classes,
            average=average,
            reduction=reduction,
            include_background=include_background,
        )
        check_tolerance(tolerance)
        check_choice("boundary", boundary, get_args(Boundary))
        check_choice("empty", empty, get_args(EmptySurface))
        self.tolerance = tolerance
        self.spacing = spacing
        self.boundary: Boundary = boundary
        self.empty: EmptySurface = empty

    def _measure(self, preds: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
        areas = surface_overlap(
            preds,
            target,
            tolerance=self.tolerance,
            spacing=self.spacing,
            boundary=self.boundary,
            mode=self.mode,
            num_classes=self.num_classes,
            valid=valid,
        )
        return float_bits(areas)

    def _score(self, records: Tensor) -> Tensor:
        areas = bits_float(records)
        pooled = areas.sum(dim=0, keepdim=True) if self.average == "pooled" else areas
        return surface_dice_from_areas(pooled, empty=self.empty)
