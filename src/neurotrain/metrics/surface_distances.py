"""Running distances between boundaries: Hausdorff with its percentiles, and the average surface distance."""

from __future__ import annotations

from math import inf
from typing import get_args

from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.metrics.functional.boundaries import Boundary
from neurotrain.metrics.functional.distances import (
    EmptyDistance,
    average_surface_distance,
    check_percentile,
    hausdorff_distance,
)
from neurotrain.metrics.functional.labels import check_choice
from neurotrain.metrics.records import bits_float, float_bits
from neurotrain.metrics.segmentation import Reduction, SegmentationScore


class _BoundaryDistance(SegmentationScore):
    """What the distances share: everything but the distance."""

    higher_is_better = False

    def __init__(
        self,
        *,
        spacing: tuple[float, ...] | None = None,
        boundary: Boundary = "surfels",
        mode: SegmentationMode = "binary",
        num_classes: int = 1,
        reduction: Reduction = "mean",
        include_background: bool = False,
        empty: EmptyDistance = "nan",
        missing: float = inf,
    ) -> None:
        """Set the boundary and what is averaged.

        Args:
            spacing: size of a voxel along each spatial axis; 1 when not given.
            boundary: of what the boundary consists; see :data:`~neurotrain.metrics.functional.boundaries.Boundary`.
            mode: see :data:`neurotrain.batch.SegmentationMode`.
            num_classes: K: 1 for binary, L for multilabel.
            reduction: over classes, within each sample first; see
                :data:`~neurotrain.metrics.segmentation.Reduction`.
            include_background: whether class 0 of a multiclass problem enters the mean over classes.
            empty: distance of a class that is absent from prediction and target; ``"nan"`` skips it.
            missing: distance of a class that is absent from one of both; NaN skips it, and infinity, the default,
                makes every mean infinite that it enters.

        Raises:
            ValueError: if a choice is unknown, or the settings contradict each other.
        """
        super().__init__(
            parts=1,
            mode=mode,
            num_classes=num_classes,
            average="sample",
            reduction=reduction,
            include_background=include_background,
        )
        check_choice("boundary", boundary, get_args(Boundary))
        check_choice("empty", empty, get_args(EmptyDistance))
        self.spacing = spacing
        self.boundary: Boundary = boundary
        self.empty: EmptyDistance = empty
        self.missing = missing

    def _score(self, records: Tensor) -> Tensor:
        return bits_float(records).squeeze(-1)


class HausdorffDistance(_BoundaryDistance):
    """Hausdorff distance over a data set; see :func:`neurotrain.metrics.functional.hausdorff_distance`.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 6, 6, dtype=torch.long)
        >>> target[0, 1:4, 1:4] = 1
        >>> metric = HausdorffDistance(percentile=95)
        >>> metric.update(target.roll(2, dims=2), target)
        >>> metric.compute().item()
        2.0
    """

    def __init__(
        self,
        *,
        percentile: float = 100.0,
        spacing: tuple[float, ...] | None = None,
        boundary: Boundary = "surfels",
        mode: SegmentationMode = "binary",
        num_classes: int = 1,
        reduction: Reduction = "mean",
        include_background: bool = False,
        empty: EmptyDistance = "nan",
        missing: float = inf,
    ) -> None:
        """Set the percentile, the boundary and what is averaged.

        Args:
            percentile: in (0, 100]; 95 for HD95.
            spacing: size of a voxel along each spatial axis; 1 when not given.
            boundary: of what the boundary consists; see :data:`~neurotrain.metrics.functional.boundaries.Boundary`.
            mode: see :data:`neurotrain.batch.SegmentationMode`.
            num_classes: K: 1 for binary, L for multilabel.
            reduction: over classes, within each sample first.
            include_background: whether class 0 of a multiclass problem enters the mean over classes.
            empty: distance of a class that is absent from prediction and target; ``"nan"`` skips it.
            missing: distance of a class that is absent from one of both; NaN skips it.

        Raises:
            ValueError: if a choice is unknown, a value is out of range, or the settings contradict each other.
        """
        super().__init__(
            spacing=spacing,
            boundary=boundary,
            mode=mode,
            num_classes=num_classes,
            reduction=reduction,
            include_background=include_background,
            empty=empty,
            missing=missing,
        )
        check_percentile(percentile)
        self.percentile = percentile

    def _measure(self, preds: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
        distances = hausdorff_distance(
            preds,
            target,
            percentile=self.percentile,
            spacing=self.spacing,
            boundary=self.boundary,
            mode=self.mode,
            num_classes=self.num_classes,
            valid=valid,
            empty=self.empty,
            missing=self.missing,
        )
        return float_bits(distances).unsqueeze(-1)


class AverageSurfaceDistance(_BoundaryDistance):
    """Average symmetric surface distance over a data set.

    See :func:`neurotrain.metrics.functional.average_surface_distance`.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 5, 5, dtype=torch.long)
        >>> target[0, 2] = 1
        >>> metric = AverageSurfaceDistance(boundary="voxels")
        >>> metric.update(target.roll(1, dims=1), target)
        >>> metric.compute().item()
        1.0
    """

    def _measure(self, preds: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
        distances = average_surface_distance(
            preds,
            target,
            spacing=self.spacing,
            boundary=self.boundary,
            mode=self.mode,
            num_classes=self.num_classes,
            valid=valid,
            empty=self.empty,
            missing=self.missing,
        )
        return float_bits(distances).unsqueeze(-1)
