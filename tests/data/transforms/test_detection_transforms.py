"""Images, boxes and masks stay together, whatever is drawn; nothing is drawn from anywhere else."""

from __future__ import annotations

import pytest
import torch

from neurotrain.batch import DetectionSample
from neurotrain.data.transforms import (
    DetectionColour,
    DetectionCrop,
    DetectionFlip,
    DetectionToFloat,
    DetectionZoomOut,
    Transform,
)

HEIGHT, WIDTH = 40, 60
BOXES = ((5, 6, 25, 20), (30, 10, 55, 35), (12, 22, 20, 38))
MEMBERS = [
    DetectionColour(probability=1.0),
    DetectionCrop(probability=1.0),
    DetectionFlip(probability=1.0),
    DetectionZoomOut(probability=1.0, max_scale=2.5),
]

members = pytest.mark.parametrize("transform", MEMBERS, ids=lambda member: type(member).__name__)


def sample() -> DetectionSample:
    """Object ``n`` is a rectangle whose pixels have ``50 * (n + 1)`` in every channel, and nothing else has."""
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    masks = torch.zeros(len(BOXES), HEIGHT, WIDTH, dtype=torch.uint8)
    for place, (left, top, right, bottom) in enumerate(BOXES):
        image[:, top:bottom, left:right] = 50 * (place + 1)
        masks[place, top:bottom, left:right] = 1
    return {
        "image": image,
        "boxes": torch.tensor(BOXES, dtype=torch.float64),
        "labels": torch.tensor([4, 5, 6]),
        "iscrowd": torch.tensor([0, 1, 0]),
        "area": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),
        "masks": masks,
        "size": torch.tensor([HEIGHT, WIDTH]),
        "id": "a",
        "source": "toy",
    }


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("transform", MEMBERS[1:], ids=lambda member: type(member).__name__)
def test_boxes_and_masks_go_where_the_pixels_go(transform: Transform) -> None:
    lost = 0
    for seed in range(30):
        moved = transform(sample(), _generator(seed))
        lost += 3 - len(moved["labels"])
        assert len(moved["boxes"]) == len(moved["masks"]) == len(moved["iscrowd"]) == len(moved["area"])
        for box, mask, label in zip(moved["boxes"], moved["masks"], moved["labels"].tolist(), strict=True):
            rows, columns = (moved["image"][0] == 50 * (label - 3)).nonzero(as_tuple=True)
            left, top, right, bottom = box.tolist()
            assert (left, right) == (columns.min(), columns.max() + 1)
            assert (top, bottom) == (rows.min(), rows.max() + 1)
            assert torch.equal(mask.bool(), moved["image"][0] == 50 * (label - 3))
    assert (lost > 0) == isinstance(transform, DetectionCrop)


@members
def test_draws_come_from_the_generator_alone_and_the_input_is_left_alone(transform: Transform) -> None:
    given, before = sample(), torch.get_rng_state()
    results = [transform(given, _generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(given[name], sample()[name]) for name in ("image", "boxes", "masks", "labels"))
    assert torch.equal(results[0]["image"], results[1]["image"])
    assert torch.equal(results[0]["boxes"], results[1]["boxes"])
    assert all(type(results[0][name]) is torch.Tensor for name in ("image", "boxes", "masks"))
    assert not transform.deterministic


@members
def test_images_without_objects_or_masks_pass(transform: Transform) -> None:
    empty = sample()
    for name in ("boxes", "labels", "iscrowd", "area"):
        empty[name] = empty[name][:0]
    del empty["masks"]
    found = transform(empty, _generator(0))
    assert found["boxes"].shape == (0, 4)
    assert "masks" not in found


def test_colour_leaves_boxes_alone_and_float_ends_the_chain() -> None:
    changed = DetectionColour(probability=1.0)(sample(), _generator(0))
    assert torch.equal(changed["boxes"], sample()["boxes"])
    assert not torch.equal(changed["image"], sample()["image"])
    whole = DetectionToFloat()(sample(), _generator(0))
    assert torch.equal(whole["image"] * 255, sample()["image"].float())
    for transform in (DetectionToFloat(), DetectionColour(), DetectionZoomOut()):
        with pytest.raises(ValueError, match=r"'a' is torch.float32"):
            transform(whole, _generator(0))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"min_scale=0.0"):
        DetectionCrop(min_scale=0.0)
    with pytest.raises(ValueError, match=r"max_scale=0.5"):
        DetectionZoomOut(max_scale=0.5)
