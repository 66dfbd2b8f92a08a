"""Which detection finds which object: COCO's greedy assignment, for all images, classes, sizes, thresholds at once.

Only pairs that overlap by the lowest threshold can ever match, which are few. The outcome of a pair for every size
class and threshold is one bit of a 64-bit integer, so what COCO decides in a loop over size classes, thresholds,
detections and objects is one pass over the pairs; a pair whose members have no other candidate needs not even that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from neurotrain.metrics.functional.detection_inputs import Tables
from neurotrain.metrics.functional.rle import Floats, Ints, Runs, intersections

Bits: TypeAlias = npt.NDArray[np.uint64]
Flags: TypeAlias = npt.NDArray[np.bool_]

WORD = 64
"""Bits of an outcome: at most so many combinations of size class and threshold are matched at once."""

# pairs that are held at once: bounds the memory of crowded images
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Side:
    """Detections or objects of a data set: those of one image and class together.

    Attributes:
        table: ``(N, 8)``, see :data:`neurotrain.metrics.functional.detection_inputs.COLUMNS`, rows in the given order.
        group: ``(N,)``: image and class as one number, of each row.
        order: rows with ascending group; detections of one group from the best score down, objects as given.
        runs: masks of the rows; None where boxes are compared.
    """

    table: Floats
    group: Ints
    order: Ints
    runs: Runs | None


@dataclass(frozen=True)
class Scene:
    """A data set, ready to be matched.

    Attributes:
        detections: the detections.
        objects: the objects.
        classes: labels of both, ascending.
        detection_class: position in ``classes`` of each detection's label.
        object_class: the same of each object's.
        by_score: detections from the best score down, those with equal scores in the given order.
        rank: number of better detections of the image and class of each detection.
    """

    detections: Side
    objects: Side
    classes: Ints
    detection_class: Ints
    object_class: Ints
    by_score: Ints
    rank: Ints


@dataclass(frozen=True)
class Pairs:
    """Detections and objects of one image and class that overlap.

    Attributes:
        detection: row of the detection, in the order of the side.
        object: row of the object, in its side's order for each detection.
        iou: overlap; with a crowd the share of the detection inside it.
    """

    detection: Ints
    object: Ints
    iou: Floats


def arrange(tables: Tables, *, max_detections: int | None = None, class_agnostic: bool = False) -> Scene:
    """Sort a data set for matching.

    Args:
        tables: of one or many batches.
        max_detections: best detections of each image and class that take part; None for all.
        class_agnostic: whether all labels count as one class, 0.
    """
    detections, objects = tables.detections.numpy(), tables.objects.numpy()
    images, numbers = tables.images.numpy(), np.arange(len(tables.images))
    image_d, image_o = np.repeat(numbers, images[:, 0]), np.repeat(numbers, images[:, 1])
    labels_d, labels_o = detections[:, 0].astype(np.int64), objects[:, 0].astype(np.int64)
    if class_agnostic:
        labels_d, labels_o = np.zeros_like(labels_d), np.zeros_like(labels_o)
    classes = np.unique(np.concatenate([np.unique(labels_d), np.unique(labels_o)]))
    class_d, class_o = np.searchsorted(classes, labels_d), np.searchsorted(classes, labels_o)
    group_d = class_d * len(images) + image_d
    by_score = np.argsort(-detections[:, 1], kind="stable")
    order_d = stable_by(by_score, image_d, class_d)
    order_o = stable_by(np.arange(len(objects)), class_o)
    rank = _ranks(group_d, order_d)
    if max_detections is not None:
        by_score, order_d = by_score[rank[by_score] < max_detections], order_d[rank[order_d] < max_detections]
    masks_d, masks_o = _masks(tables.detection_runs, detections, images[image_d]), None
    if masks_d is not None:
        masks_o = _masks(tables.object_runs, objects, images[image_o])
    return Scene(
        Side(detections, group_d, order_d, masks_d),
        Side(objects, class_o * len(images) + image_o, order_o, masks_o),
        classes,
        class_d,
        class_o,
        by_score,
        rank,
    )


def _ranks(group: Ints, order: Ints) -> Ints:
    """Position of each row within its group, ``order`` having the groups together."""
    sorted_groups = group[order]
    starts = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return rank


def _masks(bounds: Tensor, table: Floats, images: Ints) -> Runs | None:
    """Masks of a table; None where the images have no size, which those with masks have."""
    if not images[:, 2].any():
        return None
    return Runs(bounds.numpy(), table[:, 7].astype(np.int64), images[:, 2], images[:, 3])


def stable_by(order: Ints, *keys: Ints) -> Ints:
    """Sort rows by the last key, then by those before it, then by their present order.

    Args:
        order: rows.
        keys: numbers of at least 0 for each row.
    """
    for key in keys:
        # numpy sorts numbers of 16 bits by radix, several times faster
        narrow = key.astype(np.min_scalar_type(int(key.max(initial=0))))
        order = order[np.argsort(narrow[order], kind="stable")]
    return order


def overlapping_pairs(scene: Scene, *, least: float) -> Pairs:
    """All pairs of one image and class that overlap by ``least`` or more.

    Args:
        scene: the data set.
        least: lowest overlap, in [0, 1].

    Returns:
        The pairs, with overlaps that are equal to those of pycocotools to the last bit.
    """
    columns = _columns(scene.detections), _columns(scene.objects)
    found = [_overlapping(scene, columns, *chunk, least) for chunk in _candidates(scene.detections, scene.objects)]
    none = np.zeros(0, np.int64)
    return Pairs(
        scene.detections.order[np.concatenate([none, *(pairs.detection for pairs in found)])],
        scene.objects.order[np.concatenate([none, *(pairs.object for pairs in found)])],
        np.concatenate([np.zeros(0), *(pairs.iou for pairs in found)]),
    )


def _candidates(detections: Side, objects: Side) -> Iterator[tuple[Ints, Ints]]:
    """All pairs of one image and class, as places in the orders of the sides, chunk by chunk."""
    wanted, present = detections.group[detections.order], objects.group[objects.order]
    first = np.searchsorted(present, wanted, side="left")
    numbers = np.searchsorted(present, wanted, side="right") - first
    total = np.cumsum(numbers)
    begin = 0
    while begin < len(numbers):
        before = int(total[begin - 1]) if begin else 0
        end = max(int(np.searchsorted(total, before + _CHUNK, side="right")), begin + 1)
        own = numbers[begin:end]
        # position within the detection's own candidates, plus where they begin
        shift = first[begin:end] - (total[begin:end] - own - before)
        yield np.repeat(np.arange(begin, end), own), np.arange(own.sum()) + np.repeat(shift, own)
        begin = end


def _columns(side: Side) -> Floats:
    """``(6, N)``: left, top, right and bottom, area and whether it is a crowd, in the order of the side."""
    table = side.table[side.order].T
    area = table[4] * table[5] if side.runs is None else side.runs.areas()[side.order].astype(np.float64)
    return np.stack([table[2], table[3], table[2] + table[4], table[3] + table[5], area, table[1]])


def _overlapping(scene: Scene, columns: tuple[Floats, Floats], detection: Ints, target: Ints, least: float) -> Pairs:
    left, right = columns
    shared: Floats = np.ones(len(detection))
    for low, high in ((0, 2), (1, 3)):
        extent = np.minimum(left[high][detection], right[high][target])
        extent -= np.maximum(left[low][detection], right[low][target])
        keep = np.flatnonzero(extent > 0) if least > 0 else np.arange(len(extent))
        detection, target, shared = detection[keep], target[keep], shared[keep] * np.maximum(extent[keep], 0.0)
    area_d, area_o, crowd = left[4][detection], right[4][target], right[5][target] > 0
    if scene.detections.runs is not None and scene.objects.runs is not None:
        # the greatest overlap that areas and boxes allow: most pairs need no look at their masks
        bound = _ratio(np.minimum(shared, np.minimum(area_d, area_o)), area_d, area_o, crowd)
        keep = np.flatnonzero(bound >= least)
        detection, target, crowd = detection[keep], target[keep], crowd[keep]
        area_d, area_o = area_d[keep], area_o[keep]
        rows = scene.detections.order[detection], scene.objects.order[target]
        shared = intersections(scene.detections.runs, scene.objects.runs, rows).astype(np.float64)
    iou = _ratio(shared, area_d, area_o, crowd)
    keep = np.flatnonzero(iou >= least)
    return Pairs(detection[keep], target[keep], iou[keep])


def _ratio(shared: Floats, area_d: Floats, area_o: Floats, crowd: Flags) -> Floats:
    """``shared / union``, with a crowd ``shared / detection``; 0 where nothing is shared."""
    # pycocotools' order of the sum: another one differs in the last bit
    union = np.where(crowd, area_d, area_d + area_o - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def match(scene: Scene, pairs: Pairs, *, thresholds: Floats, ignored: Flags) -> tuple[Bits, Bits]:
    """Assign detections to objects, from the best score down, each to the free object with the greatest overlap.

    An ignored object is taken only where no other is free, and a crowd by any number of detections; of objects with
    equal overlap the later one is taken.

    Args:
        scene: the data set.
        pairs: all that overlap by the lowest threshold.
        thresholds: ascending overlaps ``(T,)`` from which on a pair may match.
        ignored: ``(A, M)``: objects that do not count in a size class.

    Returns:
        For each detection, bit ``a * T + t`` says for size class ``a`` and threshold ``t`` whether it is matched, and
        whether to an ignored object.

    Raises:
        ValueError: if there are more than 64 combinations.
    """
    sizes, steps = len(ignored), len(thresholds)
    if sizes * steps > WORD:
        raise ValueError(f"{sizes} size classes x {steps} thresholds exceed {WORD} bits")
    # an overlap of 1 that was rounded down must pass a threshold of 1
    passed = np.searchsorted(np.minimum(thresholds, 1 - 1e-10), pairs.iou, side="right")
    reached = np.array([(1 << count) - 1 for count in range(steps + 1)], dtype=np.uint64)[passed]
    number = len(scene.detections.table)
    every = spread(np.ones((sizes, 1), dtype=np.bool_), steps)
    unwanted = spread(ignored, steps)[pairs.object]
    crowd = scene.objects.table[pairs.object, 1] > 0
    alone = np.bincount(pairs.detection, minlength=number)[pairs.detection] == 1
    alone &= crowd | (np.bincount(pairs.object, minlength=len(scene.objects.table))[pairs.object] == 1)
    matched, to_ignored = np.zeros(number, dtype=np.uint64), np.zeros(number, dtype=np.uint64)
    matched[pairs.detection[alone]] = (reached * every)[alone]
    to_ignored[pairs.detection[alone]] = (reached * unwanted)[alone]
    rest = np.flatnonzero(~alone)
    _contest(
        Pairs(pairs.detection[rest], pairs.object[rest], pairs.iou[rest]),
        (reached * (every ^ unwanted))[rest],
        (reached * unwanted)[rest],
        crowd[rest],
        matched,
        to_ignored,
    )
    return matched, to_ignored


def spread(flags: Flags, steps: int) -> Bits:
    """Bit ``a * steps`` of each column's word is the flag of size class ``a``.

    Args:
        flags: ``(A, N)``.
        steps: number of thresholds.
    """
    words = np.zeros(flags.shape[1], dtype=np.uint64)
    for size, row in enumerate(flags):
        words |= row.astype(np.uint64) << np.uint64(size * steps)
    return words


def _contest(pairs: Pairs, wanted: Bits, unwanted: Bits, crowd: Flags, matched: Bits, to_ignored: Bits) -> None:
    """Let detections choose in turn; writes ``matched`` and ``to_ignored`` of those that do."""
    if not len(pairs.detection):
        return
    starts = np.flatnonzero(np.diff(pairs.detection, prepend=-1))
    turn = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(pairs.detection))))
    place = np.arange(len(turn))  # of the object in its order: the later of two equal ones is preferred
    second = np.repeat([False, True], len(turn))
    twice = np.tile(place, 2)
    masks = np.concatenate([wanted, unwanted])
    order = np.lexsort((-twice, -pairs.iou[twice], second, turn[twice]))
    order = order[masks[order] > 0]
    choice = twice[order]
    objects, codes = np.unique(pairs.object, return_inverse=True)
    free = [-1] * len(objects)
    open_, lost = [-1] * len(starts), [0] * len(starts)
    columns = (turn[choice], codes[choice], masks[order], second[order], crowd[choice])
    for detection, target, mask, ignored, shared in zip(*(column.tolist() for column in columns), strict=True):
        accepted = mask & open_[detection] & free[target]
        if accepted:
            open_[detection] ^= accepted
            if not shared:
                free[target] ^= accepted
            if ignored:
                lost[detection] |= accepted
    rows = pairs.detection[starts]
    matched[rows] = np.array([~left for left in open_], dtype=np.uint64)
    to_ignored[rows] = np.array(lost, dtype=np.uint64)
