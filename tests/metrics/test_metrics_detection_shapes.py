"""Boxes against torchvision and by hand, run-length encodings against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torchvision.ops import box_iou as reference_iou
from torchvision.ops import distance_box_iou as reference_diou
from torchvision.ops import generalized_box_iou as reference_giou

from neurotrain.metrics.functional import box_iou, distance_box_iou, generalized_box_iou
from neurotrain.metrics.functional.rle import (
    decode_masks,
    encode_masks,
    intersections,
    runs_from_coco,
    runs_to_coco,
)

PAIRS = [(box_iou, reference_iou), (generalized_box_iou, reference_giou), (distance_box_iou, reference_diou)]


def random_corners(number: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(number, 2, generator=generator, dtype=torch.float64) * 20
    return torch.cat([low, low + 0.5 + torch.rand(number, 2, generator=generator, dtype=torch.float64) * 15], 1)


@pytest.mark.parametrize(("ours", "reference"), PAIRS)
def test_equals_torchvision(ours, reference) -> None:  # noqa: ANN001 - functions
    a, b = random_corners(9, 0), random_corners(7, 1)
    torch.testing.assert_close(ours(a, b), reference(a, b), rtol=0, atol=1e-6)  # torchvision adds 1e-7 to a diagonal
    wide = torch.cat([a[:, :2], a[:, 2:] - a[:, :2]], 1), torch.cat([b[:, :2], b[:, 2:] - b[:, :2]], 1)
    torch.testing.assert_close(ours(*wide, box_format="xywh"), ours(a, b))
    assert ours(a.half(), b.half()).dtype == torch.float32
    assert ours(a.long(), b.long()).dtype == torch.float64
    assert ours(a[:0], b).shape == (0, 7)


@pytest.mark.parametrize("function", [box_iou, generalized_box_iou, distance_box_iou])
def test_degenerate_boxes_and_gradients(function) -> None:  # noqa: ANN001 - a function
    point = torch.zeros(1, 4, dtype=torch.float64)
    assert function(point, point).item() == 0
    boxes = torch.cat([random_corners(3, 2), point]).requires_grad_()
    function(boxes, point).sum().backward()
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()
    other = random_corners(2, 3)
    assert torch.autograd.gradcheck(lambda x: function(x, other), random_corners(3, 4).requires_grad_())


def test_wrong_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"preds has shape \(4,\)"):
        box_iou(torch.zeros(4), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="did you mean 'xywh'"):
        box_iou(torch.zeros(1, 4), torch.zeros(1, 4), box_format="xyhw")


def random_masks(height: int, width: int, share: float, number: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.rand(number, height, width, generator=generator) < share


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (7, 8), (13, 17), (64, 33)])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95, 1.0])
def test_encoding_equals_pycocotools(height: int, width: int, share: float) -> None:
    masks = random_masks(height, width, share)
    runs = encode_masks(masks)
    reference = [coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in masks]
    compressed = runs_from_coco(reference)
    np.testing.assert_array_equal(runs.bounds, compressed.bounds)
    np.testing.assert_array_equal(runs.counts, compressed.counts)
    np.testing.assert_array_equal(runs.areas(), coco_mask.area(reference))
    np.testing.assert_array_equal(runs.boxes(), coco_mask.toBbox(reference))
    assert torch.equal(decode_masks(runs), masks)
    again = runs_from_coco(runs_to_coco(runs))
    np.testing.assert_array_equal(again.bounds, runs.bounds)
    assert [coco_mask.frPyObjects(item, height, width)["counts"] for item in runs_to_coco(runs)] == [
        item["counts"] for item in reference
    ]


def test_text_and_bytes_hold_the_same() -> None:
    encoded = coco_mask.encode(np.asfortranarray(random_masks(40, 50, 0.3)[0].numpy().astype(np.uint8)))
    as_text = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    np.testing.assert_array_equal(runs_from_coco([encoded]).bounds, runs_from_coco([as_text]).bounds)


def test_intersections_of_all_pairs() -> None:
    left, right = random_masks(11, 6, 0.4), random_masks(6, 11, 0.6).swapaxes(1, 2)
    left[2], right[3] = False, True
    first, second = np.indices((6, 6)).reshape(2, -1)
    found = intersections(encode_masks(left), encode_masks(right), (first, second)).reshape(6, 6)
    np.testing.assert_array_equal(found, (left[:, None] & right[None]).sum((2, 3)).numpy())


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        ({"size": [2, 2]}, "lacks"),
        ({"size": [2, 2], "counts": [1, 2]}, "covers 3 pixels"),
        ({"size": [2, 2], "counts": [5, -1]}, "covers"),
        ({"size": [2, 2], "counts": b"\xff"}, "no compressed counts"),
    ],
)
def test_wrong_encodings_are_refused(encoded: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        runs_from_coco([encoded])


def test_masks_must_be_integers_of_three_axes() -> None:
    with pytest.raises(ValueError, match="must be bool or integer"):
        encode_masks(torch.zeros(2, 3, 3))
    with pytest.raises(ValueError, match="must be bool or integer"):
        encode_masks(torch.zeros(3, 3, dtype=torch.bool))
