"""Detection metrics: by hand, empty inputs, settings, states, and what is refused."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch

from neurotrain.metrics import DetectionConfusion, DetectionF1, MeanAveragePrecision
from neurotrain.metrics.functional import (
    detection_confusion,
    detection_precision_recall,
    mean_average_precision,
    mean_f1,
)

Images = list[dict[str, Any]]


def boxes(*corners: tuple[float, float], size: float = 10) -> torch.Tensor:
    return torch.tensor([[x, y, x + size, y + size] for x, y in corners]).reshape(-1, 4)


def detections(scores: list[float], labels: list[int], *corners: tuple[float, float]) -> dict[str, Any]:
    return {"boxes": boxes(*corners), "scores": torch.tensor(scores), "labels": torch.tensor(labels, dtype=torch.long)}


def objects(labels: list[int], *corners: tuple[float, float], crowd: list[int] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"boxes": boxes(*corners), "labels": torch.tensor(labels, dtype=torch.long)}
    return found if crowd is None else found | {"iscrowd": torch.tensor(crowd)}


def random_images(number: int = 6, *, masks: bool = False) -> tuple[Images, Images]:
    generator = torch.Generator().manual_seed(number)
    preds, target = [], []
    for _ in range(number):
        corner = torch.rand(7, 2, generator=generator) * 60
        found = torch.cat([corner, corner + 12], 1) + torch.randn(7, 4, generator=generator)
        labels = torch.randint(0, 3, (7,), generator=generator)
        preds.append({"boxes": found, "scores": torch.rand(7, generator=generator), "labels": labels})
        target.append({"boxes": torch.cat([corner, corner + 12], 1)[:5], "labels": labels[:5]})
    if masks:
        for image in (*preds, *target):
            image["masks"] = torch.stack([_filled(box) for box in image["boxes"]])
    return preds, target


def _filled(box: torch.Tensor) -> torch.Tensor:
    left, top, right, bottom = box.round().int().clamp(0, 80).tolist()
    mask = torch.zeros(80, 80, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def test_perfect_detections() -> None:
    preds = [detections([0.9, 0.8], [0, 1], (0, 0), (30, 30))]
    found = mean_average_precision(preds, [objects([0, 1], (0, 0), (30, 30))])
    assert found["map"].item() == pytest.approx(1, abs=1e-12)
    assert found["map_per_class"].tolist() == pytest.approx([1, 1], abs=1e-12)
    assert found["classes"].tolist() == [0, 1]
    assert found["map_large"].isnan()


def test_average_precision_worked_by_hand() -> None:
    # a hit, a miss, a hit, of two objects: precision 1 up to recall 0.5, then 2/3
    preds = [detections([0.9, 0.8, 0.7], [0, 0, 0], (0, 0), (60, 60), (30, 30))]
    found = mean_average_precision(preds, [objects([0, 0], (0, 0), (30, 30))], iou_thresholds=(0.5,))
    assert found["map"].item() == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-12)
    assert found["mar_1"].item() == 0.5
    assert found["mar_100"].item() == 1
    assert "map_75" not in found


def test_nothing_at_all_is_undefined() -> None:
    empty = [detections([], [])], [objects([])]
    for preds, target in (([], []), empty):
        found = mean_average_precision(preds, target)
        assert found["map"].isnan()
        assert found["classes"].numel() == 0
        assert mean_average_precision(preds, target, undefined=-1.0)["map"].item() == -1
        assert mean_f1(preds, target)["mean_f1"].isnan()
    assert detection_confusion(*empty, num_classes=2).sum() == 0


def test_detections_without_objects_score_nothing_and_objects_without_detections_zero() -> None:
    only_detections = mean_average_precision([detections([0.5], [3], (0, 0))], [objects([])])
    assert only_detections["map"].isnan()
    only_objects = mean_average_precision([detections([], [])], [objects([3], (0, 0))])
    assert only_objects["map"].item() == 0
    assert only_objects["mar_100"].item() == 0


def test_class_agnostic_ignores_labels() -> None:
    preds, target = [detections([0.9], [7], (0, 0))], [objects([2], (0, 0))]
    assert mean_average_precision(preds, target)["map"].item() == 0
    agnostic = mean_average_precision(preds, target, class_agnostic=True)
    assert agnostic["map"].item() == pytest.approx(1)
    assert agnostic["classes"].tolist() == [0]


def test_area_ranges_and_number_of_detections_are_settings() -> None:
    preds = [detections([0.9, 0.8], [0, 0], (0, 0), (30, 30))]
    target = [objects([0, 0], (0, 0), (30, 30))]
    ranges = {"all": (0.0, 1e10), "tiny": (0.0, 99.0), "rest": (99.0, 1e10)}
    found = mean_average_precision(preds, target, area_ranges=ranges, max_detections=(1, 2))
    assert found["map_tiny"].isnan()
    assert found["map_rest"].item() == pytest.approx(1)
    assert [found["mar_1"].item(), found["mar_2"].item()] == [0.5, 1]
    assert "map_small" not in found


def test_more_thresholds_than_fit_into_a_word() -> None:
    preds, target = random_images()
    steps = [k / 200 for k in range(80, 190)]
    many = detection_precision_recall(preds, target, iou_thresholds=steps)["precision"]
    for place in (0, 63, 64, 109):
        alone = detection_precision_recall(preds, target, iou_thresholds=steps[place : place + 1])["precision"]
        assert torch.equal(many[place], alone[0])


def test_formats_and_half_precision_agree() -> None:
    preds, target = random_images()
    rounded = [{**image, "boxes": image["boxes"].half(), "scores": image["scores"].bfloat16()} for image in preds]
    widened = [{**image, "boxes": image["boxes"].double(), "scores": image["scores"].float()} for image in rounded]
    half, double = mean_average_precision(rounded, target), mean_average_precision(widened, target)
    assert all(torch.equal(half[name], double[name]) or half[name].isnan().all() for name in half)
    integers = [{**image, "boxes": image["boxes"].round()} for image in preds]
    whole = [{**image, "boxes": image["boxes"].round()} for image in target]
    expected = mean_average_precision(integers, whole)
    for name in ("xywh", "cxcywh"):
        found = mean_average_precision(convert(integers, name), convert(whole, name), box_format=name)
        assert all(torch.equal(found[key], expected[key]) or found[key].isnan().all() for key in expected)


def convert(images: Images, name: str) -> Images:
    def one(corners: torch.Tensor) -> torch.Tensor:
        low, high = corners[:, :2], corners[:, 2:]
        return torch.cat([low if name == "xywh" else (low + high) / 2, high - low], 1)

    return [{**image, "boxes": one(image["boxes"])} for image in images]


def test_f1_worked_by_hand() -> None:
    # class 0: a hit and a miss of two objects; class 1: a false alarm only; class 2: below the score
    preds = [detections([0.9, 0.9, 0.6, 0.4], [0, 0, 1, 2], (0, 0), (60, 60), (90, 0), (30, 90))]
    target = [objects([0, 0, 2], (0, 0), (30, 30), (30, 90))]
    found = mean_f1(preds, target, iou_thresholds=(0.5,))
    assert found["f1"].tolist() == [[0.5, 0.0, 0.0]]
    assert found["precision"][0, :2].tolist() == [0.5, 0]
    assert found["precision"][0, 2].isnan()
    assert found["mean_f1"].item() == pytest.approx(1 / 6)
    metric = DetectionF1(iou_thresholds=(0.5,))
    metric.update(preds, target)
    assert metric.compute().item() == pytest.approx(1 / 6)


def test_a_detection_in_a_crowd_is_neither_hit_nor_false_alarm() -> None:
    preds = [detections([0.9, 0.8], [0, 0], (0, 0), (30, 30))]
    target = [objects([0, 0], (0, 0), (28, 28), crowd=[0, 1])]
    target[0]["boxes"][1] = torch.tensor([20.0, 20, 80, 80])
    assert mean_f1(preds, target)["mean_f1"].item() == 1
    assert detection_confusion(preds, target, num_classes=1).tolist() == [[1, 0], [0, 0]]
    assert mean_average_precision(preds, target)["map"].item() == pytest.approx(1)


def test_confusion_worked_by_hand() -> None:
    preds = [
        detections([0.9, 0.8, 0.7, 0.2], [1, 0, 0, 0], (0, 0), (0.5, 0), (60, 60), (30, 30)),
        detections([], []),
    ]
    target = [objects([0, 1], (0, 0), (30, 30)), objects([1], (0, 0))]
    # the label-1 detection overlaps best with the class-0 object; what is left of it is a false alarm
    expected = [[0, 1, 0], [0, 0, 2], [2, 0, 0]]
    assert detection_confusion(preds, target, num_classes=2).tolist() == expected
    metric = DetectionConfusion(num_classes=2)
    for found, wanted in zip(preds, target, strict=True):
        metric.update([found], [wanted])
    assert metric.compute().tolist() == expected


@pytest.mark.parametrize("masks", [False, True])
def test_the_class_accumulates(masks: bool) -> None:
    preds, target = random_images(masks=masks)
    iou_type = "segm" if masks else "bbox"
    expected = mean_average_precision(preds, target, iou_type=iou_type)
    metric = MeanAveragePrecision(iou_type=iou_type, per_class=True)
    metric.update(preds[:2], target[:2])
    metric.update([], [])
    clone = pickle.loads(pickle.dumps(copy.deepcopy(metric.clone())))
    for each in (metric, clone):
        for found, wanted in zip(preds[2:], target[2:], strict=True):
            each.update([found], [wanted])
        result = each.compute()
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(result[name], value, rtol=0, atol=0, equal_nan=True)
    metric.reset()
    metric.update([], [])
    assert metric.compute()["map"].isnan()
    scalars = MeanAveragePrecision()
    scalars.update([], [])
    assert set(scalars.compute()) == {name for name, value in expected.items() if value.ndim == 0}


def test_a_cast_of_the_module_changes_nothing() -> None:
    preds, target = random_images()
    metric = MeanAveragePrecision()
    metric.update(preds, target)
    before = metric.compute()
    holder = torch.nn.ModuleList([metric]).to(torch.bfloat16)
    holder[0].update([], [])
    assert all(torch.equal(value, before[name]) or value.isnan() for name, value in holder[0].compute().items())


def test_an_image_given_twice_counts_once() -> None:
    for masks in (False, True):
        preds, target = random_images(masks=masks)
        names = [f"image {place}" for place in range(len(preds))]
        metric = MeanAveragePrecision(iou_type="segm" if masks else "bbox")
        metric.update(preds, target, ids=names)
        once = metric.compute()
        metric.update(preds[1:3], target[1:3], ids=names[1:3])
        assert all(torch.equal(value, once[name]) or value.isnan() for name, value in metric.compute().items())
        metric.update(preds[:1], target[:1], ids=names[3:4])
        with pytest.raises(ValueError, match="'image 3' was given to two different images"):
            metric.compute()


def test_masks_as_run_length_encodings() -> None:
    from pycocotools import mask as coco_mask

    preds, target = random_images(masks=True)
    expected = mean_average_precision(preds, target, iou_type="segm")

    def encoded(images: Images) -> Images:
        return [
            {**image, "masks": [coco_mask.encode(mask.numpy().astype("uint8", order="F")) for mask in image["masks"]]}
            for image in images
        ]

    found = mean_average_precision(encoded(preds), encoded(target), iou_type="segm")
    assert all(torch.equal(found[name], expected[name]) or found[name].isnan().all() for name in expected)
    assert 0 < found["map"] < 1


GOOD = detections([0.9], [0], (0, 0))
REFUSED = {
    "preds holds 1 images, target 0": ([GOOD], []),
    r"preds\[0\]\['scores'\] is missing": ([{"boxes": boxes((0, 0)), "labels": torch.tensor([1])}], [objects([])]),
    r"target\[0\]\['boxes'\] is missing": ([GOOD], [{"labels": torch.tensor([1])}]),
    "did you mean 'iscrowd'": ([GOOD], [objects([0], (0, 0)) | {"is_crowd": torch.tensor([1])}]),
    "2 boxes and 1 labels": ([detections([0.9], [0], (0, 0), (1, 1))], [objects([])]),
    "finite": ([detections([math.nan], [0], (0, 0))], [objects([])]),
    "0 and 1 only": ([GOOD], [objects([0], (0, 0), crowd=[2])]),
    "labels'.*must be integers": ([GOOD | {"labels": torch.tensor([0.5])}], [objects([])]),
    "expected": ([GOOD | {"boxes": torch.zeros(4)}], [objects([])]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_images_are_named(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_average_precision(*REFUSED[message])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iou_type": "box"}, "did you mean 'bbox'"),
        ({"box_format": "xyhw"}, "did you mean"),
        ({"iou_thresholds": (0.7, 0.5)}, "must ascend"),
        ({"iou_thresholds": ()}, "must ascend"),
        ({"recall_thresholds": (0.0, 1.5)}, "must ascend"),
        ({"max_detections": (0,)}, "at least 1"),
        ({"area_ranges": {"small": (0.0, 1.0)}}, "needs an entry 'all'"),
        ({"area_ranges": {"all": (2.0, 1.0)}}, "lowest, highest"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeanAveragePrecision(**settings)
    with pytest.raises(ValueError, match=message):
        mean_average_precision([GOOD], [objects([0], (0, 0))], **settings)
