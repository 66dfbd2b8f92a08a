"""Precision at given recall: what average precision is the mean of, for every class, size class and threshold.

Precision, recall and scores are equal to those of pycocotools to the last bit. Only true positives are visited: between
two of them recall stands still and precision falls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from neurotrain.metrics.functional.detection_inputs import Tables
from neurotrain.metrics.functional.detection_matching import (
    WORD,
    Bits,
    Flags,
    Scene,
    arrange,
    match,
    overlapping_pairs,
    spread,
    stable_by,
)
from neurotrain.metrics.functional.rle import Floats, Ints

COCO_AREAS: Mapping[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""COCO's size classes: lowest and highest area, both inclusive."""


@dataclass(frozen=True)
class Curves:
    """Precision and recall of ``K`` classes, ``A`` size classes and ``T`` thresholds; NaN where a class has no object.

    Attributes:
        classes: int64 ``(K,)``: labels, ascending.
        areas: names of the size classes.
        thresholds: ``(T,)``: overlaps from which on a detection is right.
        recalls: ``(R,)``: where precision is read.
        max_detections: ``(M,)``: numbers of detections of an image and class that recall is read at.
        precision: ``(T, R, K, A)``: greatest precision at this recall or a greater one, with the largest number of
            detections; 0 where the recall is not reached.
        scores: ``(T, R, K, A)``: score of the detection that reaches the recall; 0 where none does.
        recall: ``(T, K, A, M)``: share of the objects that are found.
    """

    classes: Ints
    areas: tuple[str, ...]
    thresholds: Floats
    recalls: Floats
    max_detections: tuple[int, ...]
    precision: Floats
    scores: Floats
    recall: Floats


def default_thresholds() -> list[float]:
    """COCO's overlaps: 0.5, 0.55, ..., 0.95."""
    return np.linspace(0.5, 0.95, 10).tolist()


def default_recalls() -> list[float]:
    """COCO's recalls: 0, 0.01, ..., 1."""
    return np.linspace(0.0, 1.0, 101).tolist()


def check_curve_settings(
    *,
    iou_thresholds: Sequence[float],
    recall_thresholds: Sequence[float],
    max_detections: Sequence[int],
    area_ranges: Mapping[str, tuple[float, float]],
) -> None:
    """Refuse settings that no curve can be made of.

    Raises:
        ValueError: if a list is empty, does not ascend or leaves its range, or an area's bounds are the wrong way.
    """
    for key, values in (("iou_thresholds", iou_thresholds), ("recall_thresholds", recall_thresholds)):
        ascending = all(low < high for low, high in pairwise(values))
        if not (values and ascending and values[0] >= 0 and values[-1] <= 1):
            raise ValueError(f"{key}={list(values)} must ascend within [0, 1]")
    ascending = all(low < high for low, high in pairwise(max_detections))
    if not (max_detections and ascending and max_detections[0] >= 1):
        raise ValueError(f"max_detections={list(max_detections)} must ascend from at least 1")
    if "all" not in area_ranges:
        raise ValueError(f"area_ranges={dict(area_ranges)} needs an entry 'all'")
    for name, (low, high) in area_ranges.items():
        if not low <= high:
            raise ValueError(f"area_ranges[{name!r}]={low, high} must be (lowest, highest)")
    if len(area_ranges) > WORD:
        raise ValueError(f"area_ranges has {len(area_ranges)} entries, at most {WORD} are possible")


def detection_curves(
    tables: Tables,
    *,
    iou_thresholds: Sequence[float],
    recall_thresholds: Sequence[float],
    max_detections: Sequence[int] = (1, 10, 100),
    area_ranges: Mapping[str, tuple[float, float]] = COCO_AREAS,
    class_agnostic: bool = False,
) -> Curves:
    """Match a data set and read its curves.

    Args:
        tables: of :func:`neurotrain.metrics.functional.detection_inputs.tabulate`.
        iou_thresholds: overlaps, ascending.
        recall_thresholds: recalls, ascending.
        max_detections: best detections of each image and class that count, ascending.
        area_ranges: size classes by name; objects outside are ignored, and so are unmatched detections outside.
        class_agnostic: whether all labels count as one class.

    Raises:
        ValueError: if a setting is wrong.
    """
    check_curve_settings(
        iou_thresholds=iou_thresholds,
        recall_thresholds=recall_thresholds,
        max_detections=max_detections,
        area_ranges=area_ranges,
    )
    thresholds, bounds = np.asarray(iou_thresholds, dtype=float), np.array(list(area_ranges.values()), dtype=float)
    scene = arrange(tables, max_detections=max_detections[-1], class_agnostic=class_agnostic)
    # an overlap of 1 that was rounded down must pass a threshold of 1
    pairs = overlapping_pairs(scene, least=min(thresholds[0], 1 - 1e-10))
    ignored = _outside(scene.objects.table, bounds) | (scene.objects.table[:, 1] > 0)
    outside = _outside(scene.detections.table, bounds)
    reader = _Reader(scene, ignored, recalls=np.asarray(recall_thresholds, dtype=float), limits=max_detections)
    shape, block = (len(reader.recalls), len(scene.classes), len(bounds)), WORD // len(bounds)
    precision, scores = np.zeros((2, len(thresholds), *shape))
    recall = np.zeros((len(thresholds), *shape[1:], len(max_detections)))
    for begin in range(0, len(thresholds), block):
        steps = thresholds[begin : begin + block]
        matched, to_ignored = match(scene, pairs, thresholds=steps, ignored=ignored)
        lost = to_ignored | (~matched & spread(outside, len(steps)) * np.uint64((1 << len(steps)) - 1))
        right, counted = (_unpacked(bits[reader.order]) for bits in (matched & ~to_ignored, ~lost))
        for step, area in np.ndindex(len(steps), len(bounds)):
            bit = area * len(steps) + step
            read = reader.read(right[bit], counted[bit], area=area)
            precision[begin + step, :, :, area], scores[begin + step, :, :, area], recall[begin + step, :, area] = read
    settings = tuple(area_ranges), thresholds, reader.recalls, tuple(max_detections)
    return Curves(scene.classes, *settings, precision, scores, recall)


def _outside(table: Floats, bounds: Floats) -> Flags:
    """``(A, N)``: rows whose area is not in a size class."""
    return (table[:, 6] < bounds[:, :1]) | (table[:, 6] > bounds[:, 1:])


def _unpacked(bits: Bits) -> Flags:
    """``(64, N)``: each bit of each word."""
    flags = np.unpackbits(bits.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    return flags.T.astype(np.bool_, order="C")


class _Reader:
    """Reads one size class and threshold at a time, all classes at once."""

    def __init__(self, scene: Scene, ignored: Flags, *, recalls: Floats, limits: Sequence[int]) -> None:
        self.recalls = recalls
        number = len(scene.classes)
        self.order = stable_by(scene.by_score, scene.detection_class)
        """Detections class by class, from the best score down."""
        self._score = scene.detections.table[self.order, 1]
        owner = scene.detection_class[self.order]
        self._starts = np.searchsorted(owner, np.arange(number + 1))
        # class, and the first limit that lets the detection in
        self._cell = owner * len(limits) + np.searchsorted(limits, scene.rank[self.order], side="right")
        self._cells = (number, len(limits))
        self._objects = np.stack([np.bincount(scene.object_class[~flags], minlength=number) for flags in ignored])
        """Objects ``(A, K)`` that count."""
        self._needed = _needed(self._objects, recalls)

    def read(self, right: Flags, counted: Flags, *, area: int) -> tuple[Floats, Floats, Floats]:
        """Precision and scores ``(R, K)``, and recall ``(K, M)``.

        Args:
            right: detections, in the reader's order, of an object that counts.
            counted: those that are not ignored.
            area: number of the size class.
        """
        hits = np.flatnonzero(right)
        total = np.concatenate([[0], np.cumsum(counted, dtype=np.int64)])
        starts = np.searchsorted(hits, self._starts)
        found, first = np.diff(starts), starts[:-1]
        place = np.arange(1, len(hits) + 1) - np.repeat(first, found)
        among = total[1:][hits] - np.repeat(total[self._starts[:-1]], found)
        # pycocotools adds the distance from 1 to the next number to avoid 0 / 0
        precision = place / (among + np.spacing(1.0))
        curve, scores = self._at_recalls(precision, self._score[hits], first, found, self._needed[area])
        some = self._starts[1:] > self._starts[:-1]
        scores[np.ix_(self.recalls <= 0, some)] = self._score[self._starts[:-1][some]]
        number = self._objects[area]
        cells = np.bincount(self._cell[hits], minlength=self._cells[0] * self._cells[1]).reshape(self._cells)
        recall = cells.cumsum(axis=1)
        absent = number == 0
        curve[:, absent] = scores[:, absent] = np.nan
        return curve, scores, np.where(absent[:, None], np.nan, recall / np.maximum(number, 1)[:, None])

    def _at_recalls(
        self, precision: Floats, score: Floats, first: Ints, found: Ints, needed: Ints
    ) -> tuple[Floats, Floats]:
        """Greatest precision from each recall on, and the score there: ``(R, K)`` each, 0 beyond the last hit.

        Args:
            precision: at each hit, classes one after the other.
            score: of each hit.
            first: where each class begins.
            found: hits of each class.
            needed: ``(K, R)``: which hit reaches the recall, from 1.
        """
        # a first column at the beginning of the class makes the stretches between columns tile it
        needed = np.concatenate([np.ones_like(needed[:, :1]), needed], axis=1)
        reached = needed <= found[:, None]
        places = (first[:, None] + needed - 1)[reached]
        greatest, scores = np.zeros(needed.shape), np.zeros(needed.shape)
        if len(places):
            greatest[reached] = np.maximum.reduceat(precision, places)
            scores[reached] = score[places]
        greatest = np.maximum.accumulate(greatest[:, ::-1], axis=1)[:, ::-1]
        return greatest[:, 1:].T.copy(), scores[:, 1:].T.copy()


def _needed(objects: Ints, recalls: Floats) -> Ints:
    """``(A, K, R)``: least number of hits, at least 1, whose share of the objects is the recall or more."""
    number = np.maximum(objects, 1)[..., None]
    hits = np.maximum(np.ceil(recalls * number), 1).astype(np.int64)
    # the product was rounded; the quotient decides
    hits -= (hits > 1) & ((hits - 1) / number >= recalls)
    return hits + (hits / number < recalls)
