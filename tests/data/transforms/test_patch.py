"""Patches: exact crops, one resampling, centres inside the field of view."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from neurotrain.batch import SegmentationSample
from neurotrain.data.transforms import RandomPatch
from neurotrain.data.transforms.patch import draw_pixel

STILL: dict[str, Any] = {"rotate": 0.0, "scale": (1.0, 1.0), "shear": 0.0, "flip": False}
"""An affine map that moves nothing."""


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(height: int, width: int, valid: Tensor | None = None) -> SegmentationSample:
    """Image: row, column, noise; mask: 1 + place."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    noise = torch.randn(height, width, generator=generator(5))
    valid = torch.ones(height, width, dtype=torch.bool) if valid is None else valid
    image = torch.stack([rows.float(), columns.float(), noise])
    return {"image": image, "mask": 1 + rows * width + columns, "valid": valid, "id": "a", "source": "toy"}


def slopes(patch: SegmentationSample) -> Tensor:
    """The linear part of the map, ``(2, 2)``: d(row, column of the image) / d(row, column of the patch)."""
    coordinates = patch["image"][:2]
    middle_row, middle_column = coordinates.shape[1] // 2, coordinates.shape[2] // 2
    here = coordinates[:, middle_row, middle_column]
    return torch.stack(
        [coordinates[:, middle_row + 1, middle_column] - here, coordinates[:, middle_row, middle_column + 1] - here], 1
    )


def centre_only(height: int, width: int) -> Tensor:
    valid = torch.zeros(height, width, dtype=torch.bool)
    valid[height // 2, width // 2] = True
    return valid


@pytest.mark.parametrize("size", [(8, 8), (7, 12)])
def test_a_crop_is_one_of_eight_exact_symmetries_of_a_window(size: tuple[int, int]) -> None:
    sample, symmetries = numbered(20, 23), set()
    for seed in range(120):
        patch = RandomPatch(size=size, affine_probability=0.0)(sample, generator(seed))
        places = patch["mask"] - 1
        # Each pixel is a copy, and neighbours in the patch are neighbours in the image.
        assert torch.equal(patch["image"], sample["image"].flatten(1)[:, places])
        assert places.unique().numel() == size[0] * size[1]
        down, right = places.diff(dim=0).unique(), places.diff(dim=1).unique()
        assert (down.numel(), right.numel()) == (1, 1)
        symmetries.add((int(down), int(right)))
    steps = [(sign * a, other * b) for a, b in ((23, 1), (1, 23)) for sign in (1, -1) for other in (1, -1)]
    assert symmetries == set(steps)


def test_without_flip_no_patch_is_mirrored() -> None:
    for affine_probability in (0.0, 1.0):
        patch = RandomPatch(size=8, affine_probability=affine_probability, flip=False)
        for seed in range(40):
            assert torch.linalg.det(slopes(patch(numbered(40, 40, centre_only(40, 40)), generator(seed)))) > 0


def test_a_map_that_moves_nothing_is_a_crop() -> None:
    sample = numbered(30, 30, centre_only(30, 30))
    resampled = RandomPatch(size=(9, 12), affine_probability=1.0, **STILL)(sample, generator(0))
    window = (slice(15 - 4, 15 + 5), slice(15 - 6, 15 + 6))
    torch.testing.assert_close(resampled["image"], sample["image"][(..., *window)], atol=1e-4, rtol=0)
    assert torch.equal(resampled["mask"], sample["mask"][window])
    assert torch.equal(resampled["valid"], sample["valid"][window])


def test_resampling_equals_scipy() -> None:
    patch = RandomPatch(size=24, affine_probability=1.0, elastic_sigma=1.5, elastic_spacing=12)
    sample = numbered(60, 70, centre_only(60, 70))
    for seed in range(10):
        resampled = patch(sample, generator(seed))
        # The ramps tell where each pixel was read; the noise, what was read there.
        rows, columns = resampled["image"][:2].double().numpy()
        expected = ndimage.map_coordinates(sample["image"][2].numpy(), [rows, columns], order=1)
        np.testing.assert_allclose(resampled["image"][2], expected, atol=2e-4)
        nearest = ndimage.map_coordinates(sample["mask"].numpy(), [rows, columns], order=0)
        apart = np.abs(np.stack([rows, columns]) % 1 - 0.5).min(0) > 1e-3  # not on the edge between two pixels
        np.testing.assert_array_equal(resampled["mask"].numpy()[apart], nearest[apart])


def test_scale_above_one_magnifies() -> None:
    patch = RandomPatch(size=8, affine_probability=1.0, **{**STILL, "scale": (2.0, 2.0)})
    torch.testing.assert_close(slopes(patch(numbered(40, 40), generator(0))), torch.eye(2) / 2, atol=1e-4, rtol=0)


def test_map_has_the_stated_ranges() -> None:
    patch = RandomPatch(size=8, affine_probability=1.0, rotate=30.0, scale=(0.5, 2.0), shear=0.0, flip=True)
    maps = torch.stack([slopes(patch(numbered(60, 60, centre_only(60, 60)), generator(seed))) for seed in range(400)])
    angles = torch.atan2(-maps[:, 1, 0], maps[:, 0, 0]).rad2deg()
    assert angles.abs().max() <= 30.1
    assert angles.std().item() == pytest.approx(60 / math.sqrt(12), rel=0.1)
    steps = maps.norm(dim=1)  # along the patch's rows and columns
    assert 0.499 <= steps.min() < 0.55
    assert 1.8 < steps.max() <= 2.001
    assert steps.log().mean().abs() < 0.05
    assert 0.4 < (torch.linalg.det(maps) < 0).float().mean() < 0.6
    # Turned and stretched, but not sheared: the columns stay orthogonal.
    assert (maps[:, :, 0] * maps[:, :, 1]).sum(1).abs().max() < 1e-3


def test_shear_leans_by_the_stated_angle() -> None:
    patch = RandomPatch(size=8, affine_probability=1.0, **{**STILL, "shear": 20.0})
    sample = numbered(40, 40, centre_only(40, 40))
    leans = torch.stack([slopes(patch(sample, generator(seed)))[1, 0] for seed in range(200)])
    degrees = leans.atan().rad2deg()
    assert 17 < degrees.abs().max() <= 20.1
    assert degrees.std().item() == pytest.approx(40 / math.sqrt(12), rel=0.15)


def test_elastic_displaces_smoothly_by_the_stated_pixels() -> None:
    patch = RandomPatch(size=32, affine_probability=1.0, elastic_sigma=2.0, elastic_spacing=16, **STILL)
    still = RandomPatch(size=32, affine_probability=1.0, **STILL)
    sample = numbered(80, 80, centre_only(80, 80))
    fields = [(patch(sample, generator(s))["image"] - still(sample, generator(s))["image"])[:2] for s in range(100)]
    field = torch.stack(fields)
    assert field[..., 0, 0].std().item() == pytest.approx(2.0, rel=0.2)  # a node
    assert field.diff(dim=-1).abs().max() < 1.5
    assert field[:, 0].flatten(1).std(dim=1).min() > 0.2


def test_centres_are_uniform_over_valid_pixels() -> None:
    valid = torch.zeros(9, 11, dtype=torch.bool)
    places = torch.tensor([0, 10, 37, 60, 98])
    valid.view(-1)[places] = True
    patch = RandomPatch(size=1)
    centres = torch.tensor([int(patch(numbered(9, 11, valid), generator(seed))["mask"]) - 1 for seed in range(1000)])
    assert set(centres.tolist()) == set(places.tolist())
    shares = torch.bincount(centres, minlength=99)[places] / 1000
    assert (shares - 0.2).abs().max() < 0.05


def test_finds_the_one_valid_pixel_of_a_large_image() -> None:
    where = torch.zeros(700, 900, dtype=torch.bool)
    where[654, 321] = True
    assert draw_pixel(where, generator(0)) == (654, 321)
    assert draw_pixel(torch.zeros(3, 3, dtype=torch.bool), generator(0)) is None


def test_foreground_probability_chooses_labelled_valid_pixels() -> None:
    sample = numbered(20, 20)
    mask = torch.zeros(20, 20, dtype=torch.int64)
    mask[3, 4], mask[9, 9] = 2, 1
    valid = torch.ones(20, 20, dtype=torch.bool)
    valid[9, 9] = False
    always = RandomPatch(size=1, foreground_probability=1.0)
    labels = [int(always({**sample, "mask": mask, "valid": valid}, generator(seed))["mask"]) for seed in range(20)]
    assert labels == [2] * 20
    half = RandomPatch(size=1, foreground_probability=0.5)
    hits = sum(int(half({**sample, "mask": mask}, generator(seed))["mask"]) > 0 for seed in range(300))
    assert 120 < hits < 180
    assert always({**sample, "mask": mask * 0}, generator(0))["mask"].item() == 0  # no foreground: any valid pixel


@pytest.mark.parametrize("affine_probability", [0.0, 1.0])
def test_outside_of_a_small_image_nothing_counts(affine_probability: float) -> None:
    patch = RandomPatch(size=(32, 40), affine_probability=affine_probability, scale=(1.0, 1.0), shear=0.0)
    for seed in range(10):
        sample = numbered(10, 12)
        sample["image"] = sample["image"] + 100
        padded = patch(sample, generator(seed))
        outside = padded["mask"] == 0
        assert torch.equal(padded["valid"], ~outside)
        assert 0 < (~outside).sum() < 200
        far = ndimage.binary_erosion(outside.numpy(), iterations=2, border_value=1)
        assert not padded["image"][:, torch.from_numpy(far)].any()
        if affine_probability == 0.0:
            assert (~outside).sum() == 120
            assert not padded["image"][:, outside].any()


def test_crops_stay_inside_where_they_fit() -> None:
    for seed in range(30):
        assert RandomPatch(size=16, affine_probability=0.0)(numbered(17, 18), generator(seed))["valid"].all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"size": (4, -1)}, r"size=\(4, -1\)"),
        ({"affine_probability": 1.5}, "affine_probability=1.5"),
        ({"foreground_probability": -1.0}, "foreground_probability=-1.0"),
        ({"rotate": 181.0}, "rotate=181.0"),
        ({"shear": 90.0}, "shear=90.0"),
        ({"scale": (1.2, 0.8)}, r"scale=\(1.2, 0.8\)"),
        ({"scale": (0.0, 1.0)}, r"scale=\(0.0, 1.0\)"),
        ({"elastic_sigma": -1.0}, "elastic_sigma=-1.0"),
        ({"elastic_sigma": 2.0, "affine_probability": 0.0}, "no effect with affine_probability=0"),
    ],
)
def test_refuses_senseless_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomPatch(**settings)


def test_refuses_an_image_without_a_valid_pixel() -> None:
    with pytest.raises(ValueError, match="'a' of 'toy' has no valid pixel"):
        RandomPatch(size=4)(numbered(5, 5, torch.zeros(5, 5, dtype=torch.bool)), generator(0))
