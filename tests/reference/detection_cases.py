"""Random and adversarial detections, and what pycocotools says of them."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Images = list[dict[str, Any]]

FIGURES = [
    "map",
    "map_50",
    "map_75",
    "map_small",
    "map_medium",
    "map_large",
    "mar_1",
    "mar_10",
    "mar_100",
    "mar_small",
    "mar_medium",
    "mar_large",
]


def random_boxes(
    seed: int, *, images: int, per: int, classes: int, jitter: float = 3, crowd: float = 0, levels: int = 0
) -> tuple[Images, Images]:
    """Jittered copies of random boxes in xywh; ``levels`` makes ties of scores and of overlaps."""
    rng = np.random.default_rng(seed)
    preds, target = [], []
    for _ in range(images):
        boxes = np.concatenate([rng.uniform(0, 300, (per, 2)), rng.uniform(4, 150, (per, 2))], axis=1)
        found = boxes + rng.normal(0, jitter, boxes.shape)
        found[:, 2:] = np.maximum(found[:, 2:], 1)
        labels = rng.integers(0, classes, per)
        guesses = np.where(rng.random(per) < 0.1, rng.integers(0, classes, per), labels)
        scores = rng.random(per)
        if levels:
            scores, found, boxes = np.round(scores * levels) / levels, np.round(found / 8) * 8, np.round(boxes / 8) * 8
        preds.append({"boxes": as_float(found), "scores": as_float(scores), "labels": torch.from_numpy(guesses)})
        flags = torch.from_numpy((rng.random(per) < crowd).astype(np.int64))
        target.append({"boxes": as_float(boxes), "labels": torch.from_numpy(labels), "iscrowd": flags})
    return preds, target


def as_float(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def with_masks(preds: Images, target: Images, *, size: int = 96) -> tuple[Images, Images]:
    """Ellipses in place of the boxes, on images of a third of the extent."""

    def ellipses(boxes: torch.Tensor) -> torch.Tensor:
        x, y, w, h = (boxes.double() / 3).unbind(1)
        row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        dx = (column - (x + w / 2)[:, None, None]) / (w / 2)[:, None, None].clamp(min=0.5)
        dy = (row - (y + h / 2)[:, None, None]) / (h / 2)[:, None, None].clamp(min=0.5)
        return dx**2 + dy**2 < 1

    return (
        [{**image, "masks": ellipses(image["boxes"])} for image in preds],
        [{**image, "masks": ellipses(image["boxes"])} for image in target],
    )


def coco_figures(preds: Images, target: Images, *, iou_type: str = "bbox") -> COCOeval:
    """What pycocotools says of images of xywh boxes or dense masks."""
    annotations, results = [], []
    for number, (found, wanted) in enumerate(zip(preds, target, strict=True)):
        for row, label in enumerate(wanted["labels"].tolist()):
            shape = _shape(wanted, row, iou_type)
            own = wanted["area"][row].item() if "area" in wanted else _area(shape)
            flag = int(wanted["iscrowd"][row]) if "iscrowd" in wanted else 0
            about = {"id": len(annotations) + 1, "image_id": number, "category_id": label}
            annotations.append({**about, **shape, "area": own, "iscrowd": flag})
        for row, label in enumerate(found["labels"].tolist()):
            about = {"image_id": number, "category_id": label, "score": found["scores"][row].double().item()}
            results.append({**about, **_shape(found, row, iou_type)})
    labels = {item["category_id"] for item in annotations + results}
    images = [
        {"id": number, "height": size[0], "width": size[1]}
        for number, size in enumerate(item["masks"].shape[1:] if "masks" in item else (1, 1) for item in target)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": k} for k in sorted(labels)],
        }
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(results) if results else _nothing(known), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _nothing(known: COCO) -> COCO:
    empty = COCO()
    empty.dataset = {**known.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _shape(image: dict[str, Any], row: int, iou_type: str) -> dict[str, Any]:
    if iou_type == "bbox":
        return {"bbox": image["boxes"][row].double().tolist()}
    return {"segmentation": coco_mask.encode(np.asfortranarray(image["masks"][row].numpy().astype(np.uint8)))}


def _area(shape: dict[str, Any]) -> float:
    if "bbox" in shape:
        return shape["bbox"][2] * shape["bbox"][3]
    return float(coco_mask.area(shape["segmentation"]))
