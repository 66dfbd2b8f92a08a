"""Running detection metrics; the maths are in :mod:`neurotrain.metrics.functional.detection`.

They keep every detection and object as a row of 64 bytes, and masks as runs of 16 bytes a run, until the end: average
precision cannot be had from running sums. Images may be given ids, so that one which a distributed sampler evaluates
twice counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from neurotrain.metrics.functional.boxes import BoxFormat
from neurotrain.metrics.functional.detection import confusion_of_tables, f1_of_tables, summarize_curves
from neurotrain.metrics.functional.detection_curves import (
    COCO_AREAS,
    check_curve_settings,
    default_recalls,
    default_thresholds,
    detection_curves,
)
from neurotrain.metrics.functional.detection_inputs import COLUMNS, Image, OverlapOf, Tables, tabulate
from neurotrain.metrics.functional.labels import check_choice
from neurotrain.metrics.records import ID_BYTES, SampleRecords, bits_float, encode_ids, float_bits


class _DetectionRecords(SampleRecords):
    """What detection metrics share: tables of all images."""

    is_differentiable = False
    higher_is_better = True

    def __init__(self, *, iou_type: OverlapOf, box_format: BoxFormat) -> None:
        super().__init__()
        check_choice("iou_type", iou_type, get_args(OverlapOf))
        check_choice("box_format", box_format, get_args(BoxFormat))
        self.iou_type: OverlapOf = iou_type
        self.box_format: BoxFormat = box_format
        self._add_rows("detections", shape=(COLUMNS,), dtype=torch.int64)
        self._add_rows("objects", shape=(COLUMNS,), dtype=torch.int64)
        self._add_rows("images", shape=(4,), dtype=torch.int64)
        self._add_rows("detection_runs", shape=(2,), dtype=torch.int64)
        self._add_rows("object_runs", shape=(2,), dtype=torch.int64)
        self._add_rows("ids", shape=(ID_BYTES,), dtype=torch.uint8)

    def update(self, preds: Sequence[Image], target: Sequence[Image], *, ids: Sequence[str] | None = None) -> None:
        """Add a batch of images.

        Args:
            preds: one mapping an image, see :func:`neurotrain.metrics.functional.detection_inputs.tabulate`.
            target: one mapping an image.
            ids: name of each image; of images with one name the first counts, in the order of ranks and updates.

        Raises:
            ValueError: names the image and the key that is wrong.
        """
        tables = tabulate(preds, target, iou_type=self.iou_type, box_format=self.box_format)
        if ids is not None and len(ids) != len(tables.images):
            raise ValueError(f"{len(ids)} ids were given for {len(tables.images)} images")
        names = torch.zeros(len(tables.images), ID_BYTES, dtype=torch.uint8) if ids is None else encode_ids(ids)
        self._append("ids", names)
        self._append("detections", float_bits(tables.detections))
        self._append("objects", float_bits(tables.objects))
        self._append("images", tables.images)
        self._append("detection_runs", tables.detection_runs)
        self._append("object_runs", tables.object_runs)

    def _tables(self) -> Tables:
        """All images of all ranks, each once, on the CPU: nameless ones as they came, then the others by name.

        Of equal scores the earlier one counts as the higher: the order must not depend on who evaluated what.
        """
        tables = Tables(
            bits_float(self._rows("detections").cpu()),
            bits_float(self._rows("objects").cpu()),
            self._rows("images").cpu(),
            self._rows("detection_runs").cpu(),
            self._rows("object_runs").cpu(),
        )
        names = self._rows("ids").cpu()
        if not names.any():
            return tables
        return _first_of_each(tables, names)


def _first_of_each(tables: Tables, names: Tensor) -> Tables:
    """Tables of the images that are nameless, or the first of their name.

    Raises:
        ValueError: if images of one name differ in their objects.
    """
    keep: list[int] = []
    objects = tables.objects.split(tables.images[:, 1].tolist())
    first: dict[bytes, int] = {}
    for place, row in enumerate(names.numpy()):
        name = bytes(row).rstrip(b"\0")
        if not name:
            keep.append(place)
        elif (known := first.setdefault(name, place)) != place and not torch.equal(objects[known], objects[place]):
            raise ValueError(f"the id {name.decode()!r} was given to two different images; ids must be unique")
    images = torch.tensor(keep + [first[name] for name in sorted(first)], dtype=torch.int64)
    found, shown = (_rows_of(images, tables.images[:, column]) for column in (0, 1))
    return Tables(
        tables.detections[found],
        tables.objects[shown],
        tables.images[images],
        tables.detection_runs[_rows_of(found, tables.detections[:, 7].long())],
        tables.object_runs[_rows_of(shown, tables.objects[:, 7].long())],
    )


def _rows_of(owners: Tensor, counts: Tensor) -> Tensor:
    """Rows that belong to chosen owners, in their order, where owner ``i`` has ``counts[i]`` rows after those before.

    Example:
        >>> _rows_of(torch.tensor([2, 0]), torch.tensor([2, 1, 3])).tolist()
        [3, 4, 5, 0, 1]
    """
    firsts = counts.cumsum(0) - counts
    own = counts[owners]
    within = torch.arange(int(own.sum())) - (own.cumsum(0) - own).repeat_interleave(own)
    return firsts[owners].repeat_interleave(own) + within


class MeanAveragePrecision(_DetectionRecords):
    """COCO's figures over a data set; see :func:`neurotrain.metrics.functional.mean_average_precision`.

    Example:
        >>> metric = MeanAveragePrecision()
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> preds = [{"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}]
        >>> metric.update(preds, [{"boxes": box, "labels": torch.tensor([1])}])
        >>> round(metric.compute()["map_50"].item(), 9)
        1.0
    """

    def __init__(
        self,
        *,
        iou_type: OverlapOf = "bbox",
        box_format: BoxFormat = "xyxy",
        iou_thresholds: tuple[float, ...] | None = None,
        recall_thresholds: tuple[float, ...] | None = None,
        max_detections: tuple[int, ...] = (1, 10, 100),
        area_ranges: Mapping[str, tuple[float, float]] | None = None,
        class_agnostic: bool = False,
        per_class: bool = False,
        undefined: float = float("nan"),
    ) -> None:
        """Set what is compared and where the curves are read.

        Args:
            iou_type: ``"bbox"`` or ``"segm"``.
            box_format: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``.
            iou_thresholds: overlaps, ascending; COCO's when not given.
            recall_thresholds: where precision is read, ascending; COCO's when not given.
            max_detections: best detections of each image and class that count, ascending.
            area_ranges: lowest and highest area of each size class, one of them ``"all"``; COCO's when not given.
            class_agnostic: whether all labels count as one class.
            per_class: whether the result holds ``classes`` and the figures of each beside the scalars.
            undefined: value of a figure that no object contributes to; COCO's is -1.

        Raises:
            ValueError: if a choice is unknown, or thresholds, limits or ranges make no curve.
        """
        super().__init__(iou_type=iou_type, box_format=box_format)
        self.iou_thresholds = default_thresholds() if iou_thresholds is None else list(iou_thresholds)
        self.recall_thresholds = default_recalls() if recall_thresholds is None else list(recall_thresholds)
        self.max_detections = tuple(max_detections)
        self.area_ranges = dict(COCO_AREAS if area_ranges is None else area_ranges)
        check_curve_settings(
            iou_thresholds=self.iou_thresholds,
            recall_thresholds=self.recall_thresholds,
            max_detections=self.max_detections,
            area_ranges=self.area_ranges,
        )
        self.class_agnostic = class_agnostic
        self.per_class = per_class
        self.undefined = undefined

    def compute(self) -> dict[str, Tensor]:
        """Figures of all images of all ranks, float64; see the function for their names."""
        curves = detection_curves(
            self._tables(),
            iou_thresholds=self.iou_thresholds,
            recall_thresholds=self.recall_thresholds,
            max_detections=self.max_detections,
            area_ranges=self.area_ranges,
            class_agnostic=self.class_agnostic,
        )
        figures = summarize_curves(curves, undefined=self.undefined)
        return {name: value.to(self.device) for name, value in figures.items() if self.per_class or value.ndim == 0}


class DetectionF1(_DetectionRecords):
    """F1 of the detections above a score over a data set; see :func:`neurotrain.metrics.functional.mean_f1`.

    Example:
        >>> metric = DetectionF1(iou_thresholds=(0.5,))
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> preds = [{"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}]
        >>> metric.update(preds, [{"boxes": torch.cat([box, box + 20]), "labels": torch.tensor([1, 1])}])
        >>> round(metric.compute().item(), 4)
        0.6667
    """

    def __init__(
        self,
        *,
        iou_type: OverlapOf = "bbox",
        box_format: BoxFormat = "xyxy",
        iou_thresholds: tuple[float, ...] | None = None,
        score_threshold: float = 0.5,
        max_detections: int | None = None,
    ) -> None:
        """Set what is compared; arguments as of :func:`neurotrain.metrics.functional.mean_f1`."""
        super().__init__(iou_type=iou_type, box_format=box_format)
        self.iou_thresholds = default_thresholds() if iou_thresholds is None else list(iou_thresholds)
        self.score_threshold = score_threshold
        self.max_detections = max_detections

    def compute(self) -> Tensor:
        """Mean F1 over classes and overlaps, float64; NaN where there is neither detection nor object."""
        figures = f1_of_tables(
            self._tables(),
            iou_thresholds=self.iou_thresholds,
            score_threshold=self.score_threshold,
            max_detections=self.max_detections,
        )
        return figures["mean_f1"].to(self.device)


class DetectionConfusion(_DetectionRecords):
    """Which class is taken for which; see :func:`neurotrain.metrics.functional.detection_confusion`.

    Example:
        >>> metric = DetectionConfusion(num_classes=1)
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> preds = [{"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([0])}]
        >>> metric.update(preds, [{"boxes": torch.cat([box, box + 20]), "labels": torch.tensor([0, 0])}])
        >>> metric.compute().tolist()
        [[1, 1], [0, 0]]
    """

    higher_is_better = None

    def __init__(
        self,
        *,
        num_classes: int = 1,
        iou_type: OverlapOf = "bbox",
        box_format: BoxFormat = "xyxy",
        iou_threshold: float = 0.5,
        score_threshold: float = 0.5,
    ) -> None:
        """Set what is compared; arguments as of :func:`neurotrain.metrics.functional.detection_confusion`."""
        super().__init__(iou_type=iou_type, box_format=box_format)
        self.num_classes = num_classes
        self.iou_threshold = iou_threshold
        self.score_threshold = score_threshold

    def compute(self) -> Tensor:
        """int64 ``(K + 1, K + 1)`` over all images of all ranks."""
        counts = confusion_of_tables(
            self._tables(),
            num_classes=self.num_classes,
            iou_threshold=self.iou_threshold,
            score_threshold=self.score_threshold,
        )
        return counts.to(self.device)
