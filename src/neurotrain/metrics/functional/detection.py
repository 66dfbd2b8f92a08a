"""Detection and instance segmentation: COCO's average precision and recall, F1 at an overlap, and confusion.

Definitions are those of https://cocodataset.org/#detection-eval, values those of pycocotools 2.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from neurotrain.metrics.functional.boxes import BoxFormat
from neurotrain.metrics.functional.detection_curves import (
    COCO_AREAS,
    Curves,
    check_curve_settings,
    default_recalls,
    default_thresholds,
    detection_curves,
)
from neurotrain.metrics.functional.detection_inputs import Image, OverlapOf, Tables, tabulate
from neurotrain.metrics.functional.detection_matching import Flags, arrange, match, overlapping_pairs
from neurotrain.metrics.functional.rle import Floats, Ints


def mean_average_precision(
    preds: Sequence[Image],
    target: Sequence[Image],
    *,
    iou_type: OverlapOf = "bbox",
    box_format: BoxFormat = "xyxy",
    iou_thresholds: Sequence[float] | None = None,
    recall_thresholds: Sequence[float] | None = None,
    max_detections: Sequence[int] = (1, 10, 100),
    area_ranges: Mapping[str, tuple[float, float]] = COCO_AREAS,
    class_agnostic: bool = False,
    undefined: float = float("nan"),
) -> dict[str, Tensor]:
    """COCO's average precision and recall of boxes or masks, equal to pycocotools.

    Args:
        preds: one mapping an image, see :func:`neurotrain.metrics.functional.detection_inputs.tabulate`.
        target: one mapping an image; ``iscrowd`` and ``area`` may be left out.
        iou_type: ``"bbox"`` or ``"segm"``.
        box_format: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``.
        iou_thresholds: overlaps, ascending; COCO's 0.5, 0.55, ..., 0.95 when not given.
        recall_thresholds: where precision is read, ascending; COCO's 0, 0.01, ..., 1 when not given.
        max_detections: best detections of each image and class that count, ascending.
        area_ranges: lowest and highest area of each size; ``"all"`` must be one of them.
        class_agnostic: whether all labels count as one class.
        undefined: figure that no object contributes to; COCO's is -1.

    Returns:
        float64 scalars ``map``, ``map_50`` and ``map_75`` (where these thresholds are given), ``map_SIZE`` and
        ``mar_SIZE`` of every size but ``all``, ``mar_N`` of every number of detections; ``classes``, ``map_per_class``
        and ``mar_N_per_class`` of the greatest number ``(K,)``. Means are over the classes that have an object.

    Raises:
        ValueError: names the setting, or the image and the key, that is wrong.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> preds = [{"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}]
        >>> mean_average_precision(preds, [{"boxes": box, "labels": torch.tensor([1])}], undefined=-1)["map_small"]
        tensor(1.0000, dtype=torch.float64)
    """
    curves = detection_curves(
        tabulate(preds, target, iou_type=iou_type, box_format=box_format),
        iou_thresholds=default_thresholds() if iou_thresholds is None else iou_thresholds,
        recall_thresholds=default_recalls() if recall_thresholds is None else recall_thresholds,
        max_detections=max_detections,
        area_ranges=area_ranges,
        class_agnostic=class_agnostic,
    )
    return summarize_curves(curves, undefined=undefined)


def summarize_curves(curves: Curves, *, undefined: float = float("nan")) -> dict[str, Tensor]:
    """The figures that :func:`mean_average_precision` returns, of curves.

    Args:
        curves: of :func:`neurotrain.metrics.functional.detection_curves.detection_curves`.
        undefined: value of a figure that no object contributes to.
    """
    whole = curves.areas.index("all")
    precision, recall, most = curves.precision, curves.recall, curves.max_detections[-1]
    figures = {"map": _mean(precision[..., whole])}
    for name, threshold in (("map_50", 0.5), ("map_75", 0.75)):
        at = np.isclose(curves.thresholds, threshold, rtol=0, atol=1e-9)
        if at.any():
            figures[name] = _mean(precision[at, ..., whole])
    sizes = [(place, name) for place, name in enumerate(curves.areas) if name != "all"]
    figures |= {f"map_{name}": _mean(precision[..., place]) for place, name in sizes}
    figures |= {f"mar_{n}": _mean(recall[:, :, whole, place]) for place, n in enumerate(curves.max_detections)}
    figures |= {f"mar_{name}": _mean(recall[:, :, place, -1]) for place, name in sizes}
    per_class = {
        "map_per_class": precision[..., whole].mean(axis=(0, 1)),
        f"mar_{most}_per_class": recall[:, :, whole, -1].mean(axis=0),
    }
    found = {name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}
    found |= {name: torch.from_numpy(value) for name, value in per_class.items()}
    found = {name: torch.where(value.isnan(), undefined, value) for name, value in found.items()}
    return found | {"classes": torch.from_numpy(curves.classes)}


def _mean(values: Floats) -> float:
    """Mean of what is defined."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def detection_precision_recall(
    preds: Sequence[Image],
    target: Sequence[Image],
    *,
    iou_type: OverlapOf = "bbox",
    box_format: BoxFormat = "xyxy",
    iou_thresholds: Sequence[float] = (0.5,),
    recall_thresholds: Sequence[float] | None = None,
    max_detections: int = 100,
) -> dict[str, Tensor]:
    """Interpolated precision and the score it needs, at given recalls, for every threshold and class.

    Args:
        preds: one mapping an image, see :func:`neurotrain.metrics.functional.detection_inputs.tabulate`.
        target: one mapping an image.
        iou_type: ``"bbox"`` or ``"segm"``.
        box_format: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``.
        iou_thresholds: ``T`` overlaps, ascending.
        recall_thresholds: ``R`` recalls, ascending; 0, 0.01, ..., 1 when not given.
        max_detections: best detections of each image and class that count.

    Returns:
        ``precision`` and ``scores`` ``(T, K, R)``, ``recall`` ``(R,)`` (all float64) and ``classes`` ``(K,)``.
        Precision and score are 0 at recalls that are not reached and NaN for a class without objects.

    Raises:
        ValueError: names the setting, or the image and the key, that is wrong.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> preds = [{"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}]
        >>> found = detection_precision_recall(preds, [{"boxes": box + 1, "labels": torch.tensor([1])}])
        >>> tuple(found["precision"].shape), round(found["scores"].max().item(), 4)
        ((1, 1, 101), 0.9)
    """
    curves = detection_curves(
        tabulate(preds, target, iou_type=iou_type, box_format=box_format),
        iou_thresholds=iou_thresholds,
        recall_thresholds=default_recalls() if recall_thresholds is None else recall_thresholds,
        max_detections=(max_detections,),
        area_ranges={"all": (0.0, float("inf"))},
    )
    return {
        "precision": torch.from_numpy(curves.precision[..., 0].swapaxes(1, 2).copy()),
        "scores": torch.from_numpy(curves.scores[..., 0].swapaxes(1, 2).copy()),
        "recall": torch.from_numpy(curves.recalls),
        "classes": torch.from_numpy(curves.classes),
    }


def mean_f1(
    preds: Sequence[Image],
    target: Sequence[Image],
    *,
    iou_type: OverlapOf = "bbox",
    box_format: BoxFormat = "xyxy",
    iou_thresholds: Sequence[float] | None = None,
    score_threshold: float = 0.5,
    max_detections: int | None = None,
) -> dict[str, Tensor]:
    """F1 of the detections above a score, ``2 TP / (2 TP + FP + FN)``, over all images, a class and overlap at a time.

    Detections are assigned as for :func:`mean_average_precision`; crowds and what is assigned to them do not count.

    Args:
        preds: one mapping an image, see :func:`neurotrain.metrics.functional.detection_inputs.tabulate`.
        target: one mapping an image.
        iou_type: ``"bbox"`` or ``"segm"``.
        box_format: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``.
        iou_thresholds: ``T`` overlaps, ascending; COCO's 0.5, 0.55, ..., 0.95 when not given.
        score_threshold: detections with this score or a greater one count.
        max_detections: best detections of each image and class that count; None for all.

    Returns:
        ``f1``, ``precision`` and ``recall``, float64 ``(T, K)``, NaN where nothing defines them (a class that is only
        predicted has F1 0); ``classes`` ``(K,)``; ``mean_f1``, the mean of what is defined in ``f1``.

    Raises:
        ValueError: names the setting, or the image and the key, that is wrong.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> preds = [{"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}]
        >>> mean_f1(preds, [{"boxes": box + 1, "labels": torch.tensor([1])}])["f1"].flatten().tolist()
        [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    thresholds = default_thresholds() if iou_thresholds is None else iou_thresholds
    tables = tabulate(preds, target, iou_type=iou_type, box_format=box_format)
    return f1_of_tables(
        tables, iou_thresholds=thresholds, score_threshold=score_threshold, max_detections=max_detections
    )


def f1_of_tables(
    tables: Tables, *, iou_thresholds: Sequence[float], score_threshold: float, max_detections: int | None
) -> dict[str, Tensor]:
    """What :func:`mean_f1` returns, of tables; arguments as there.

    Raises:
        ValueError: if the thresholds do not ascend within [0, 1] or are more than 64, or the limit is less than 1.
    """
    check_curve_settings(
        iou_thresholds=iou_thresholds,
        recall_thresholds=(0.0,),
        max_detections=(1 if max_detections is None else max_detections,),
        area_ranges=COCO_AREAS,
    )
    thresholds = np.asarray(iou_thresholds, dtype=float)
    scene = arrange(tables, max_detections=max_detections)
    pairs = overlapping_pairs(scene, least=min(thresholds[0], 1 - 1e-10))
    crowd = scene.objects.table[:, 1] > 0
    # a detection's match does not depend on worse ones: the score may be looked at afterwards
    outcomes = match(scene, pairs, thresholds=thresholds, ignored=crowd[None])
    order = scene.detections.order
    chosen = order[scene.detections.table[order, 1] >= score_threshold]
    number = len(scene.classes)
    found, predicted = np.zeros((len(thresholds), number), int), np.zeros((len(thresholds), number), int)
    for step in range(len(thresholds)):
        matched, to_crowd = (((bits[chosen] >> np.uint64(step)) & np.uint64(1)).astype(bool) for bits in outcomes)
        found[step] = np.bincount(scene.detection_class[chosen[matched & ~to_crowd]], minlength=number)
        predicted[step] = np.bincount(scene.detection_class[chosen[~to_crowd]], minlength=number)
    present = np.bincount(scene.object_class[~crowd], minlength=number)
    hits, claims, wanted = (torch.from_numpy(values).double() for values in (found, predicted, present))
    f1 = 2 * hits / (claims + wanted)  # 0 / 0 is NaN
    return {
        "mean_f1": f1.nanmean(),
        "f1": f1,
        "precision": hits / claims,
        "recall": hits / wanted,
        "classes": torch.from_numpy(scene.classes),
    }


def detection_confusion(
    preds: Sequence[Image],
    target: Sequence[Image],
    *,
    num_classes: int,
    iou_type: OverlapOf = "bbox",
    box_format: BoxFormat = "xyxy",
    iou_threshold: float = 0.5,
    score_threshold: float = 0.5,
) -> Tensor:
    """Which class is taken for which: detections and objects paired by overlap alone, whatever their labels.

    Each detection and object is in one pair at most, those with the greatest overlap first (of equal ones the better
    score). Crowds do not count, nor do unpaired detections that lie in one by ``iou_threshold``.

    Args:
        preds: one mapping an image, see :func:`neurotrain.metrics.functional.detection_inputs.tabulate`.
        target: one mapping an image.
        num_classes: K; labels are 0 to K - 1.
        iou_type: ``"bbox"`` or ``"segm"``.
        box_format: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``.
        iou_threshold: overlap from which on a pair is one, in (0, 1].
        score_threshold: detections with this score or a greater one count.

    Returns:
        int64 ``(K + 1, K + 1)``: rows are true classes, columns predicted ones; the last row holds detections of
        nothing, the last column objects that were missed.

    Raises:
        ValueError: names the setting, or the image and the key, that is wrong.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> preds = [{"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}]
        >>> detection_confusion(preds, [{"boxes": box + 1, "labels": torch.tensor([0])}], num_classes=2).tolist()
        [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    """
    tables = tabulate(preds, target, iou_type=iou_type, box_format=box_format)
    return confusion_of_tables(
        tables, num_classes=num_classes, iou_threshold=iou_threshold, score_threshold=score_threshold
    )


def confusion_of_tables(tables: Tables, *, num_classes: int, iou_threshold: float, score_threshold: float) -> Tensor:
    """What :func:`detection_confusion` returns, of tables; arguments as there.

    Raises:
        ValueError: if the overlap is not in (0, 1], or a label is not in [0, K).
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold={iou_threshold} must be in (0, 1]")
    scene = arrange(tables, class_agnostic=True)
    detections, objects = scene.detections.table, scene.objects.table
    labels_d, labels_o = detections[:, 0].astype(np.int64), objects[:, 0].astype(np.int64)
    for labels in (labels_d, labels_o):
        if ((labels < 0) | (labels >= num_classes)).any():
            raise ValueError(
                f"labels are {labels.min()} to {labels.max()}; num_classes={num_classes} allows 0 to K - 1"
            )
    pairs = overlapping_pairs(scene, least=iou_threshold)
    crowd, chosen = objects[:, 1] > 0, detections[:, 1] >= score_threshold
    apart = ~crowd[pairs.object] & chosen[pairs.detection]
    partner = np.full(len(objects), -1)
    left = chosen.copy()
    rows = np.flatnonzero(apart)
    rows = rows[np.lexsort((-detections[pairs.detection[rows], 1], -pairs.iou[rows]))]
    for detection, item in zip(pairs.detection[rows].tolist(), pairs.object[rows].tolist(), strict=True):
        if left[detection] and partner[item] < 0:
            left[detection], partner[item] = False, detection
    left[pairs.detection[crowd[pairs.object]]] = False
    return _confusion(labels_d, labels_o[~crowd], partner[~crowd], left, num_classes)


def _confusion(labels_d: Ints, labels_o: Ints, partner: Ints, left: Flags, num_classes: int) -> Tensor:
    """Counts of pairs, missed objects (``partner`` -1) and detections that are ``left``."""
    predicted = np.append(labels_d, num_classes)[partner]
    true = np.concatenate([labels_o, np.full(int(left.sum()), num_classes)])
    cells = true * (num_classes + 1) + np.concatenate([predicted, labels_d[left]])
    counts = np.bincount(cells, minlength=(num_classes + 1) ** 2)
    return torch.from_numpy(counts.reshape(num_classes + 1, num_classes + 1))
