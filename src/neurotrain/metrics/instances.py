"""Running mAP and mF1 of instances in label maps."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from neurotrain.metrics.functional.instances import (
    COCO_THRESHOLDS,
    check_thresholds,
    instance_counts,
    instance_f1,
    instance_precision,
)
from neurotrain.metrics.functional.labels import check_choice
from neurotrain.metrics.records import SampleRecords
from neurotrain.metrics.segmentation import Average


class InstanceScores(SampleRecords):
    """Instances matched at thresholds of overlap, over a data set.

    See :mod:`neurotrain.metrics.functional.instances` for what is counted, and why this average precision is not
    COCO's.

    Example:
        >>> metric = InstanceScores(thresholds=(0.5, 0.75))
        >>> metric.update(torch.tensor([[7, 7, 0, 0, 3]]), torch.tensor([[1, 1, 0, 2, 2]]))
        >>> {key: round(value.item(), 4) for key, value in metric.compute().items()}
        {'map': 0.6667, 'mf1': 0.75, 'ap/0.5': 1.0, 'ap/0.75': 0.3333, 'f1/0.5': 1.0, 'f1/0.75': 0.5}
    """

    is_differentiable = False
    higher_is_better = True

    def __init__(self, *, thresholds: tuple[float, ...] = COCO_THRESHOLDS, average: Average = "pooled") -> None:
        """Set the thresholds and what is averaged.

        Args:
            thresholds: an overlap of at least this much is a match, each in (0, 1].
            average: of the pooled counts, or over samples, where one without any instance is skipped.

        Raises:
            ValueError: if a threshold is out of range, or ``average`` is unknown.
        """
        super().__init__()
        check_thresholds(thresholds)
        check_choice("average", average, get_args(Average))
        self.thresholds = thresholds
        self.average: Average = average
        self._add_rows("counts", shape=(len(thresholds), 3), dtype=torch.int64)

    def update(self, preds: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Add a batch of instance maps.

        Args:
            preds: integer instance numbers ``(B, *spatial)``; 0 is background.
            target: the same shape.
            valid: bool ``(B, *spatial)``; only True voxels count.

        Raises:
            ValueError: if shapes, types or numbers do not fit.
        """
        if preds.shape != target.shape:
            raise ValueError(f"preds has shape {tuple(preds.shape)}, target {tuple(target.shape)}: they must be equal")
        for image in range(len(preds)):
            inside = None if valid is None else valid[image]
            counts = instance_counts(preds[image], target[image], thresholds=self.thresholds, valid=inside)
            self._append("counts", counts.unsqueeze(0))

    def compute(self) -> dict[str, Tensor]:
        """Scores of all samples of all ranks.

        Returns:
            float64 scalars: ``map`` and ``mf1``, the means over the thresholds, then ``ap/<threshold>`` and
            ``f1/<threshold>``; NaN where there is no instance at all.
        """
        counts = self._rows("counts")
        if self.average == "pooled":
            counts = counts.sum(dim=0, keepdim=True)
        precision, f1 = (score(counts).nanmean(dim=0) for score in (instance_precision, instance_f1))
        figures = {"map": precision.mean(), "mf1": f1.mean()}
        for key, column in (("ap", precision), ("f1", f1)):
            figures |= {f"{key}/{at:g}": value for at, value in zip(self.thresholds, column, strict=True)}
        return figures
