"""Evaluation of a segmentation test set: figures per image, their means, and pooled figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.metrics.functional.distances import average_surface_distance, hausdorff_distance
from neurotrain.metrics.functional.labels import (
    check_probabilities,
    check_valid,
    class_mask,
    predict_labels,
)
from neurotrain.metrics.functional.overlap import (
    accuracy_from_counts,
    confusion_counts,
    dice_from_counts,
    iou_from_counts,
    sensitivity_from_counts,
    specificity_from_counts,
)
from neurotrain.metrics.functional.ranking import auroc, auroc_from_histogram, histogram_thresholds, score_histogram
from neurotrain.metrics.functional.surface import check_tolerance, normalized_surface_dice
from neurotrain.metrics.records import IdentifiedRecords, bits_float, float_bits
from neurotrain.metrics.segmentation import scored_classes

_COUNT_SCORES = {
    "dice": dice_from_counts,
    "iou": iou_from_counts,
    "sensitivity": sensitivity_from_counts,
    "specificity": specificity_from_counts,
    "accuracy": accuracy_from_counts,
}
# with auc, with surface, with distances
_MEASURES = (("auc", "auc_rectangle"), ("nsd",), ("hd95", "assd"))
_SIGN_BIT = -(2**31)


@dataclass(frozen=True)
class _Table:
    """The evaluated images, each once, ascending by id.

    Attributes:
        ids: n names.
        values: float64 ``(n, K)`` for each figure.
        pooled: float64 ``(K,)`` for each pooled figure.
    """

    ids: list[str]
    values: dict[str, Tensor]
    pooled: dict[str, Tensor]


class SegmentationReport(IdentifiedRecords):
    """Everything that a segmentation paper's table needs, from predicted probabilities.

    Per image and class, inside the valid region: Dice, IoU, sensitivity, specificity, accuracy, AUC (one class against
    the rest), NSD (normalised surface Dice), on demand HD95 and ASSD (infinite where a class is absent from one of
    prediction and reference); and ``auc_rectangle``, the AUC over the whole image with a score of 0
    outside the valid region, which some papers report: that easy background makes it greater, so the two never compare.
    Pooled: the same of all valid voxels of all images together.

    A figure that is undefined (class absent, one class only) is NaN; means skip it and say how often. An image's figure
    is the mean over its classes, the background of a multiclass problem left out unless included.

    Under DDP, images that a sampler repeats to fill the last batch count once, by their id.

    Example:
        >>> report = SegmentationReport(tolerance=1.0)
        >>> probabilities = torch.tensor([[[[0.9, 0.8, 0.3], [0.7, 0.1, 0.2]]]])
        >>> target = torch.tensor([[[1, 1, 1], [0, 0, 0]]])
        >>> report.update(probabilities, target, torch.ones(1, 2, 3).bool(), ids=["21"], threshold=0.5)
        >>> figures = report.compute()
        >>> round(figures["dice"].item(), 4), round(figures["auc"].item(), 4), figures["nsd"].item()
        (0.6667, 0.8889, 1.0)
        >>> report.rows()[0]["id"]
        '21'
    """

    is_differentiable = False
    higher_is_better = True

    def __init__(
        self,
        *,
        mode: SegmentationMode = "binary",
        num_classes: int = 1,
        class_names: tuple[str, ...] | None = None,
        include_background: bool = False,
        tolerance: float = 1.0,
        spacing: tuple[float, ...] | None = None,
        surface: bool = True,
        distances: bool = False,
        auc: bool = True,
        pooled_auc_bins: int | None = None,
    ) -> None:
        """Set the problem and the figures.

        Args:
            mode: see :data:`neurotrain.batch.SegmentationMode`.
            num_classes: K: 1 for binary, L for multilabel.
            class_names: K names for the keys ``dice/<class>``; ``class_0``, ``class_1``, ... when not given.
            include_background: whether class 0 of a multiclass problem enters the means over classes.
            tolerance: of NSD, in the unit of ``spacing``.
            spacing: size of a voxel along each spatial axis; 1 when not given.
            surface: whether to measure NSD.
            distances: whether to measure HD95 and ASSD.
            auc: whether to measure the areas under the ROC curve.
            pooled_auc_bins: None keeps every valid score (float32, 4 bytes a voxel and class, on the metric's device)
                and the pooled AUC is exact; a number keeps a histogram of that many bins for each image instead (16
                bytes a bin and class), as volumes may need.

        Raises:
            ValueError: if the settings contradict each other or a value is out of range.
        """
        super().__init__()
        self._scored = scored_classes(mode, num_classes, include_background=include_background)
        check_tolerance(tolerance)
        if spacing is not None and not (surface or distances):
            raise ValueError(f"spacing={spacing} has no effect with surface=False")
        self.mode: SegmentationMode = mode
        self.num_classes = num_classes
        self.class_names = _checked_names(class_names, num_classes)
        self.tolerance = tolerance
        self.spacing = spacing
        self.surface = surface
        self.distances = distances
        self.auc = auc
        self.pooled_auc_bins = pooled_auc_bins
        self._table: _Table | None = None
        self._add_states()

    def _add_states(self) -> None:
        chosen = zip((self.auc, self.surface, self.distances), _MEASURES, strict=True)
        self._measured = [figure for wanted, figures in chosen if wanted for figure in figures]
        self._add_rows("counts", shape=(self.num_classes, 4), dtype=torch.int64)
        self._add_rows("measures", shape=(self.num_classes, len(self._measured)), dtype=torch.int64)
        if self.pooled_auc_bins is None:
            self._add_rows("scores", shape=(), dtype=torch.int32)
            return
        if not self.auc:
            raise ValueError(f"pooled_auc_bins={self.pooled_auc_bins} has no effect with auc=False")
        histogram_thresholds(self.pooled_auc_bins)  # refuses fewer than one
        self._add_rows("histograms", shape=(self.num_classes, 2, self.pooled_auc_bins + 1), dtype=torch.int64)

    def update(self, probabilities: Tensor, target: Tensor, valid: Tensor, *, ids: list[str], threshold: float) -> None:
        """Measure a batch of images.

        Args:
            probabilities: floats in [0, 1], ``(B, K, *spatial)``; all comparisons are in fp32.
            target: integer labels ``(B, *spatial)``, for multilabel ``(B, K, *spatial)``.
            valid: bool ``(B, *spatial)``; the field of view. Targets outside may be anything (for
                ``auc_rectangle`` they are negative unless they are the class's label).
            ids: B names, unique in the test set.
            threshold: a voxel is positive where its probability is strictly greater; multiclass takes the argmax, where
                the threshold does not enter.

        Raises:
            ValueError: if shapes, types, values or ids do not fit.
        """
        check_probabilities(probabilities, target, mode=self.mode, num_classes=self.num_classes)
        check_valid(valid, (probabilities.shape[0], *probabilities.shape[2:]))
        # adding zero turns -0.0, whose sign bit is taken for the label, into 0.0
        probabilities = probabilities.detach().float() + 0.0
        labels = predict_labels(probabilities, mode=self.mode, threshold=threshold)
        counts = confusion_counts(labels, target, mode=self.mode, num_classes=self.num_classes, valid=valid)
        measures = self._measure(probabilities, labels, target, valid)
        self._append_ids(ids, count=len(counts))
        self._append("counts", counts)
        self._append("measures", float_bits(measures))
        if self.auc:
            self._append_scores(probabilities, target, valid)
        self._table = None

    def _measure(self, probabilities: Tensor, labels: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """float64 ``(B, K, len(self._measured))``."""
        columns: list[Tensor] = []
        if self.auc:
            areas = self._areas(probabilities, target, valid)
            inside = probabilities * valid.unsqueeze(1)  # nothing is predicted where the mask says that nothing is
            columns += [areas, areas if valid.all() else self._areas(inside, target, None)]
        columns += self._boundaries(labels, target, valid)
        return torch.stack(columns, dim=-1) if columns else torch.zeros(*probabilities.shape[:2], 0)

    def _boundaries(self, labels: Tensor, target: Tensor, valid: Tensor) -> list[Tensor]:
        """``(B, K)`` of each figure of the boundaries."""
        measures: list[Callable[..., Tensor]] = []
        if self.surface:
            measures.append(partial(normalized_surface_dice, tolerance=self.tolerance))
        if self.distances:
            measures += [partial(hausdorff_distance, percentile=95.0), average_surface_distance]
        return [
            measure(labels, target, spacing=self.spacing, mode=self.mode, num_classes=self.num_classes, valid=valid)
            for measure in measures
        ]

    def _areas(self, probabilities: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
        """AUC ``(B, K)`` of each class against the rest."""
        areas = torch.empty(probabilities.shape[:2], dtype=torch.float64, device=probabilities.device)
        for index in range(self.num_classes):
            positive = class_mask(target, index, mode=self.mode)
            for image in range(len(positive)):
                keep = None if valid is None else valid[image]
                areas[image, index] = auroc(probabilities[image, index], positive[image], valid=keep)
        return areas

    def _append_scores(self, probabilities: Tensor, target: Tensor, valid: Tensor) -> None:
        """Keep what the pooled AUC needs: per image, class after class."""
        positive = torch.stack([class_mask(target, k, mode=self.mode) for k in range(self.num_classes)], dim=1)
        for scores, marks, keep in zip(probabilities, positive, valid, strict=True):
            inside, labels = scores[:, keep], marks[:, keep]
            if self.pooled_auc_bins is None:
                # probabilities have no sign: its bit carries the label
                bits = inside.contiguous().view(torch.int32) | labels.to(torch.int32) * _SIGN_BIT
                self._append("scores", bits.flatten())
            else:
                bins = self.pooled_auc_bins
                cells = [score_histogram(s, p, bins=bins) for s, p in zip(inside, labels, strict=True)]
                self._append("histograms", torch.stack(cells).unsqueeze(0))

    def reset(self) -> None:
        """Forget every image."""
        super().reset()
        self._table = None

    def compute(self) -> dict[str, Tensor]:
        """Figures of the images of all ranks.

        Returns:
            float64 scalars. Means over images: ``dice, iou, sensitivity, specificity, accuracy, auc, auc_rectangle,
            nsd``; for all valid voxels together: ``pooled_dice, pooled_iou, pooled_sensitivity, pooled_specificity,
            pooled_accuracy, pooled_auc``; with several classes each also as ``<key>/<class>``; ``nan/<key>``, where
            greater than 0: how many images a mean has skipped.

        Raises:
            ValueError: if one id was given to different images.
        """
        table = self._tabulate()
        # torchmetrics' forward computes the value of one batch with this flag off
        if self._should_unsync:
            self._table = table
        figures: dict[str, Tensor] = {}
        skipped: dict[str, Tensor] = {}
        for key, column in self._columns(table.values).items():
            figures[key] = column.nanmean()
            missing = column.isnan().sum().double()
            if missing:
                skipped[f"nan/{key}"] = missing
        pooled = {f"pooled_{key}": value.unsqueeze(0) for key, value in table.pooled.items()}
        figures |= {key: column[0] for key, column in self._columns(pooled).items()} | skipped
        return {key: value.to(self.device) for key, value in figures.items()}

    def rows(self) -> list[dict[str, str | float]]:
        """Figures of every image, ascending by id.

        Under DDP it returns the images of all ranks, and communicates (so every rank must call it) unless ``compute``
        was called since the last update.

        Returns:
            one dict an image: ``id``, then the keys of the means of :meth:`compute`; NaN where undefined.

        Raises:
            ValueError: if one id was given to different images.
        """
        if self._table is None and self._is_synced:
            self._table = self._tabulate()
        elif self._table is None:
            with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
                self._table = self._tabulate()
        columns = {key: column.tolist() for key, column in self._columns(self._table.values).items()}
        return [
            {"id": name} | {key: column[row] for key, column in columns.items()}
            for row, name in enumerate(self._table.ids)
        ]

    def _columns(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """``(n,)`` for every key, from ``(n, K)``: the mean over the scored classes, then each class."""
        columns: dict[str, Tensor] = {}
        for key, value in values.items():
            columns[key] = value[:, self._scored].nanmean(dim=1)
            if self.num_classes > 1:
                columns |= {f"{key}/{name}": value[:, k] for k, name in enumerate(self.class_names)}
        return columns

    def _tabulate(self) -> _Table:
        counts = self._rows("counts")
        tp, fp, fn, tn = counts.unbind(dim=-1)
        first = self._distinct(torch.stack([tp + fn, fp + tn], dim=-1))
        order = torch.tensor(list(first.values()), dtype=torch.int64, device=counts.device)
        kept = counts[order].cpu()
        measures = bits_float(self._rows("measures"))[order].cpu()
        values = {key: score(kept) for key, score in _COUNT_SCORES.items()}
        values |= {key: measures[..., column] for column, key in enumerate(self._measured)}
        pooled = {key: score(kept.sum(dim=0)) for key, score in _COUNT_SCORES.items()}
        if self.auc:
            pooled["auc"] = self._pooled_auc(counts, order).cpu()
        return _Table(ids=list(first), values=values, pooled=pooled)

    def _pooled_auc(self, counts: Tensor, order: Tensor) -> Tensor:
        """``(K,)`` over the valid voxels of the images in ``order``."""
        if self.pooled_auc_bins is not None:
            negatives, positives = self._rows("histograms")[order].sum(dim=0).unbind(dim=1)
            return auroc_from_histogram(positives, negatives)
        voxels = counts[:, 0].sum(dim=-1)
        pieces = self._rows("scores").split((self.num_classes * voxels).tolist())
        areas: list[Tensor] = []
        for index in range(self.num_classes):
            kept = [pieces[image].reshape(self.num_classes, -1)[index] for image in order.tolist()]
            bits = torch.cat(kept) if kept else self._rows("scores")
            areas.append(auroc((bits & ~_SIGN_BIT).view(torch.float32), bits < 0))
        return torch.stack(areas)


def _checked_names(names: tuple[str, ...] | None, num_classes: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"class_{index}" for index in range(num_classes))
    if len(names) != num_classes or len(set(names)) != num_classes:
        raise ValueError(f"class_names={tuple(names)} must be {num_classes} different names")
    return tuple(names)
