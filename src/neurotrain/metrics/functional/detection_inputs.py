"""Detections and annotated objects of a batch of images, checked and laid out as flat tables.

Tables are what a metric keeps between batches: one row per detection or object, images one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from neurotrain.metrics.functional.boxes import BoxFormat, check_boxes, to_xywh
from neurotrain.metrics.functional.labels import check_choice
from neurotrain.metrics.functional.rle import Runs, encode_masks, runs_from_coco

Image: TypeAlias = Mapping[str, Any]
"""What is known of one image, by name: ``boxes``, ``scores``, ``labels``, ``masks``, ``iscrowd``, ``area``."""

OverlapOf = Literal["bbox", "segm"]
"""What overlap is measured of: ``bbox``: boxes; ``segm``: masks."""

COLUMNS = 8
"""Of a row: label, score (of an object: 1 for a crowd), x, y, width, height, area, number of runs."""

_OPTIONAL = ("iscrowd", "area", "masks")
_KNOWN = (*_OPTIONAL, "boxes", "labels", "scores")


@dataclass(frozen=True)
class Tables:
    """A batch, or a whole data set.

    Attributes:
        detections: float64 ``(N, 8)``, see :data:`COLUMNS`.
        objects: float64 ``(M, 8)``.
        images: int64 ``(B, 4)``: numbers of detections and objects, height and width (0 without masks).
        detection_runs: int64 ``(R, 2)``, see :class:`neurotrain.metrics.functional.rle.Runs`.
        object_runs: int64 ``(S, 2)``.
    """

    detections: Tensor
    objects: Tensor
    images: Tensor
    detection_runs: Tensor
    object_runs: Tensor


def tabulate(
    preds: Sequence[Image], target: Sequence[Image], *, iou_type: OverlapOf = "bbox", box_format: BoxFormat = "xyxy"
) -> Tables:
    """Check a batch and lay it out.

    Args:
        preds: for each image ``scores`` (floats, ``(N,)``), ``labels`` (integers, ``(N,)``) and, as ``iou_type`` asks,
            ``boxes`` (``(N, 4)``) or ``masks`` (bool or integer ``(N, H, W)``, or a list of COCO's run-length
            encodings).
        target: for each image ``labels``, ``boxes`` or ``masks``, and optionally ``iscrowd`` (0 or 1, ``(M,)``) and
            ``area`` (``(M,)``, of the box or mask where it is not given), which decides about an object's size class.
        iou_type: see :data:`OverlapOf`.
        box_format: see :data:`neurotrain.metrics.functional.boxes.BoxFormat`.

    Raises:
        ValueError: names the image and the key that does not fit.
    """
    check_choice("iou_type", iou_type, get_args(OverlapOf))
    check_choice("box_format", box_format, get_args(BoxFormat))
    if len(preds) != len(target):
        raise ValueError(f"preds holds {len(preds)} images, target {len(target)}: they must be equal")
    labels_p, labels_t = _labels("preds", preds), _labels("target", target)
    detections, runs_p = _rows("preds", preds, labels_p, iou_type, box_format)
    objects, runs_t = _rows("target", target, labels_t, iou_type, box_format)
    detections[:, 1] = _column("preds", preds, "scores", labels_p)
    objects[:, 1] = _column("target", target, "iscrowd", labels_t, default=0.0)
    if not ((objects[:, 1] == 0) | (objects[:, 1] == 1)).all():
        raise ValueError("target's iscrowd must hold 0 and 1 only")
    if any(image.get("area") is not None for image in target):
        own = list(objects[:, 6].split([len(labels) for labels in labels_t]))
        given = [item if image.get("area") is None else image["area"] for image, item in zip(target, own, strict=True)]
        objects[:, 6] = _column("target", [{"area": area} for area in given], "area", labels_t)
    if not (detections.isfinite().all() and objects.isfinite().all()):
        raise ValueError("boxes, scores and areas must be finite numbers")
    images = torch.tensor(
        [[len(p), len(t), 0, 0] for p, t in zip(labels_p, labels_t, strict=True)], dtype=torch.int64
    ).reshape(-1, 4)
    if iou_type == "segm":
        images[:, 2:] = _sizes(images, runs_p, runs_t)
    return Tables(detections, objects, images, torch.from_numpy(runs_p.bounds), torch.from_numpy(runs_t.bounds))


def _labels(name: str, images: Sequence[Image]) -> list[Tensor]:
    labels: list[Tensor] = []
    for place, image in enumerate(images):
        for key in image.keys() - set(_KNOWN):
            nearest = get_close_matches(key, _OPTIONAL, n=1, cutoff=0.8)
            if nearest:
                raise ValueError(f"{name}[{place}] has the key {key!r}; did you mean {nearest[0]!r}?")
        given = _tensor(name, place, image, "labels")
        if given.ndim != 1 or given.is_floating_point():
            raise ValueError(f"{name}[{place}]['labels'] must be integers (N,), not {given.dtype} {tuple(given.shape)}")
        labels.append(given)
    return labels


def _tensor(name: str, place: int, image: Image, key: str) -> Tensor:
    value = image.get(key)
    if not isinstance(value, Tensor):
        found = "is missing" if value is None else f"is a {type(value).__name__}"
        raise ValueError(f"{name}[{place}][{key!r}] {found}; a tensor is needed")
    return value


def _column(
    name: str, images: Sequence[Image], key: str, labels: list[Tensor], *, default: float | None = None
) -> Tensor:
    """One number for each row of all images, float64 on the CPU."""
    if default is not None and all(image.get(key) is None for image in images):
        return torch.full((sum(map(len, labels)),), default, dtype=torch.float64)
    pieces: list[Tensor] = []
    for place, (image, rows) in enumerate(zip(images, labels, strict=True)):
        if default is not None and image.get(key) is None:
            pieces.append(torch.full((len(rows),), default, dtype=torch.float64))
            continue
        value = _tensor(name, place, image, key)
        if value.shape != rows.shape:
            raise ValueError(
                f"{name}[{place}][{key!r}] has shape {tuple(value.shape)}, but there are {len(rows)} labels"
            )
        pieces.append(value)
    return _joined(pieces, (0,))


def _joined(pieces: Sequence[Tensor], empty: tuple[int, ...]) -> Tensor:
    """All pieces as float64 on the CPU, with one transfer where they are of one type and device."""
    if not pieces:
        return torch.empty(empty, dtype=torch.float64)
    dtype, device = pieces[0].dtype, pieces[0].device
    if all(piece.dtype == dtype and piece.device == device for piece in pieces):
        return torch.cat(list(pieces)).detach().to("cpu", torch.float64)
    return torch.cat([piece.detach().to("cpu", torch.float64) for piece in pieces])


def _rows(
    name: str, images: Sequence[Image], labels: list[Tensor], iou_type: OverlapOf, box_format: BoxFormat
) -> tuple[Tensor, Runs]:
    """The table without its second column, and the runs of its masks."""
    numbers = _joined(labels, (0,))
    rows = torch.zeros(len(numbers), COLUMNS, dtype=torch.float64)
    rows[:, 0] = numbers
    if iou_type == "segm":
        runs = _runs(name, images, labels)
        rows[:, 2:6] = torch.from_numpy(runs.boxes())
        rows[:, 6] = torch.from_numpy(runs.areas())
        rows[:, 7] = torch.from_numpy(runs.counts)
        return rows, runs
    pieces: list[Tensor] = []
    for place, (image, own) in enumerate(zip(images, labels, strict=True)):
        boxes = _tensor(name, place, image, "boxes")
        check_boxes(f"{name}[{place}]['boxes']", boxes)
        if len(boxes) != len(own):
            raise ValueError(f"{name}[{place}] holds {len(boxes)} boxes and {len(own)} labels")
        pieces.append(boxes)
    rows[:, 2:6] = to_xywh(_joined(pieces, (0, 4)), box_format=box_format)
    rows[:, 6] = rows[:, 4] * rows[:, 5]
    none = np.zeros(0, np.int64)
    return rows, Runs(none.reshape(0, 2), none, none, none)


def _runs(name: str, images: Sequence[Image], labels: list[Tensor]) -> Runs:
    pieces: list[Runs] = []
    for place, (image, own) in enumerate(zip(images, labels, strict=True)):
        masks = image.get("masks")
        if masks is None:
            raise ValueError(f"{name}[{place}]['masks'] is missing; iou_type='segm' compares masks")
        runs = encode_masks(masks) if isinstance(masks, Tensor) else runs_from_coco(masks)
        if len(runs.counts) != len(own):
            raise ValueError(f"{name}[{place}] holds {len(runs.counts)} masks and {len(own)} labels")
        if len({*zip(runs.heights.tolist(), runs.widths.tolist(), strict=True)}) > 1:
            raise ValueError(f"{name}[{place}]['masks'] are of different sizes")
        pieces.append(runs)
    none = np.zeros(0, np.int64)
    return Runs(
        np.concatenate([none.reshape(0, 2), *(runs.bounds for runs in pieces)]),
        np.concatenate([none, *(runs.counts for runs in pieces)]),
        np.concatenate([none, *(runs.heights for runs in pieces)]),
        np.concatenate([none, *(runs.widths for runs in pieces)]),
    )


def _sizes(images: Tensor, preds: Runs, target: Runs) -> Tensor:
    """Height and width ``(B, 2)`` of each image; zeros where it has no mask."""
    sizes = torch.zeros(len(images), 2, dtype=torch.int64)
    for column, runs in enumerate((preds, target)):
        owner = torch.repeat_interleave(torch.arange(len(images)), images[:, column])
        own = torch.stack([torch.from_numpy(runs.heights), torch.from_numpy(runs.widths)], dim=1)
        different = (sizes[owner] != own).any(dim=1) & (sizes[owner] > 0).any(dim=1)
        if different.any():
            place = int(owner[different][0])
            raise ValueError(f"image {place}: masks of preds and target differ in size")
        sizes[owner] = own
    return sizes
