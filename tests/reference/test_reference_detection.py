"""Average precision against pycocotools and faster-coco-eval: every number of every curve, to the last bit."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detection_cases import FIGURES, coco_figures, random_boxes, with_masks

from neurotrain.metrics.functional import mean_average_precision
from neurotrain.metrics.functional.detection_curves import default_recalls, default_thresholds, detection_curves
from neurotrain.metrics.functional.detection_inputs import tabulate

CASES: dict[str, dict[str, Any]] = {
    "plain": {"images": 12, "per": 20, "classes": 3},
    "crowds": {"images": 12, "per": 20, "classes": 2, "crowd": 0.3},
    "ties": {"images": 8, "per": 40, "classes": 2, "crowd": 0.2, "levels": 5, "jitter": 8},
    "more than 100 of a class": {"images": 2, "per": 130, "classes": 1, "crowd": 0.1, "levels": 10, "jitter": 10},
    "one object an image": {"images": 20, "per": 1, "classes": 4},
}


def compare(preds: list[dict[str, Any]], target: list[dict[str, Any]], *, iou_type: str = "bbox") -> None:
    expected = coco_figures(preds, target, iou_type=iou_type)
    tables = tabulate(preds, target, iou_type=iou_type, box_format="xywh")
    curves = detection_curves(tables, iou_thresholds=default_thresholds(), recall_thresholds=default_recalls())
    np.testing.assert_array_equal(np.nan_to_num(curves.precision, nan=-1), expected.eval["precision"][..., -1])
    np.testing.assert_array_equal(np.nan_to_num(curves.scores, nan=-1), expected.eval["scores"][..., -1])
    np.testing.assert_array_equal(np.nan_to_num(curves.recall, nan=-1), expected.eval["recall"])
    found = mean_average_precision(preds, target, iou_type=iou_type, box_format="xywh", undefined=-1.0)
    for name, value in zip(FIGURES, expected.stats, strict=True):
        assert found[name].item() == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("case", CASES)
def test_boxes_equal_pycocotools(case: str) -> None:
    compare(*random_boxes(3, **CASES[case]))


@pytest.mark.parametrize("case", ["plain", "crowds", "ties"])
def test_masks_equal_pycocotools(case: str) -> None:
    compare(*with_masks(*random_boxes(4, **CASES[case])), iou_type="segm")


def test_images_without_detections_or_objects() -> None:
    preds, target = random_boxes(5, images=6, per=5, classes=2)
    for image, keys in ((preds[1], preds[1]), (target[2], target[2]), (preds[3], preds[3]), (target[3], target[3])):
        for key in list(keys):
            image[key] = image[key][:0]
    compare(preds, target)


def test_no_detection_at_all() -> None:
    preds, target = random_boxes(6, images=3, per=5, classes=2)
    compare([{key: value[:0] for key, value in image.items()} for image in preds], target)


def test_area_of_the_annotation_decides_about_the_size() -> None:
    preds, target = random_boxes(7, images=8, per=10, classes=2)
    for image in target:
        image["area"] = image["boxes"][:, 2:].prod(1) / 2
    compare(preds, target)


def test_equal_boxes_and_degenerate_ones() -> None:
    box = torch.tensor([[10.0, 10, 20, 20]])
    flat = torch.tensor([[10.0, 10, 0, 20]])
    preds = [{"boxes": torch.cat([box] * 4 + [flat]), "scores": torch.full((5,), 0.5), "labels": torch.zeros(5).long()}]
    target = [
        {"boxes": torch.cat([box] * 3 + [flat]), "labels": torch.zeros(4).long(), "iscrowd": torch.tensor([1, 0, 0, 0])}
    ]
    compare(preds, target)


def coco_mini(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path = folder / "COCO-MINI" / "annotations" / "instances_val2017.json"
    if not path.is_file():
        pytest.skip(f"COCO-MINI is not in {folder}")
    known = json.loads(path.read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)
    results = []
    for item in known["annotations"]:
        for _ in range(int(rng.integers(0, 4))):
            box = np.array(item["bbox"]) + rng.normal(0, 0.06, 4) * np.array(item["bbox"])[[2, 3, 2, 3]]
            label = item["category_id"] if rng.random() < 0.9 else int(rng.choice(known["categories"])["id"])
            results.append(
                {
                    "image_id": item["image_id"],
                    "category_id": label,
                    "bbox": np.maximum(box, 0.1).tolist(),
                    "score": float(np.round(rng.random(), 2)),
                }
            )
    return known, results


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_coco_annotations(shared_data: Path, iou_type: str) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    dataset, results = coco_mini(shared_data)
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = dataset
        known.createIndex()
        if iou_type == "segm":
            for item in results:  # the rectangle, as a polygon
                x, y, w, h = item.pop("bbox")
                size = known.imgs[item["image_id"]]
                outline = {"segmentation": [[x, y, x, y + h, x + w, y + h, x + w, y]], "image_id": size["id"]}
                item["segmentation"] = known.annToRLE(outline)
        evaluation = COCOeval(known, known.loadRes(results), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert 0.1 < evaluation.stats[0] < 0.9
    preds, target = [], []
    for number in sorted(known.getImgIds()):
        mine = [item for item in results if item["image_id"] == number]
        theirs = known.loadAnns(known.getAnnIds(number))
        columns = {"labels": [item["category_id"] for item in mine]}
        preds.append(
            {
                "labels": torch.tensor(columns["labels"], dtype=torch.long),
                "scores": torch.tensor([item["score"] for item in mine], dtype=torch.float64),
            }
        )
        target.append(
            {
                "labels": torch.tensor([item["category_id"] for item in theirs], dtype=torch.long),
                "iscrowd": torch.tensor([item["iscrowd"] for item in theirs]),
                "area": torch.tensor([item["area"] for item in theirs], dtype=torch.float64),
            }
        )
        if iou_type == "segm":
            preds[-1]["masks"] = [item["segmentation"] for item in mine]
            target[-1]["masks"] = [known.annToRLE(item) for item in theirs]
        else:
            preds[-1]["boxes"] = torch.tensor([item["bbox"] for item in mine], dtype=torch.float64).reshape(-1, 4)
            target[-1]["boxes"] = torch.tensor([item["bbox"] for item in theirs], dtype=torch.float64).reshape(-1, 4)
    found = mean_average_precision(preds, target, iou_type=iou_type, box_format="xywh", undefined=-1.0)
    for name, value in zip(FIGURES, evaluation.stats, strict=True):
        assert found[name].item() == pytest.approx(value, abs=1e-9), name


def test_faster_coco_eval_agrees() -> None:
    from faster_coco_eval import COCO, COCOeval_faster

    preds, target = random_boxes(8, images=10, per=15, classes=3, crowd=0.1)
    expected = coco_figures(preds, target)
    known = COCO(expected.cocoGt.dataset)
    results = [
        {key: item[key] for key in ("image_id", "category_id", "bbox", "score")}
        for item in expected.cocoDt.dataset["annotations"]
    ]
    evaluation = COCOeval_faster(known, known.loadRes(results), "bbox", print_function=lambda *_: None)
    evaluation.run()
    found = mean_average_precision(preds, target, box_format="xywh", undefined=-1.0)
    for name, value in zip(FIGURES, evaluation.stats, strict=False):
        assert found[name].item() == pytest.approx(value, abs=1e-9), name
