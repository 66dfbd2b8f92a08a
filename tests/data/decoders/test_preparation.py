"""Sizes, crops and rules of image preparation, as pure functions and on pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from neurotrain.data.decoders import ImagePreparation, Placement, VideoPreparation
from neurotrain.data.decoders.preparation import target_size


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def placed(preparation: ImagePreparation, width: int, height: int, seed: int = 0) -> Placement:
    found = preparation.place(width, height, draw(seed))
    assert isinstance(found, Placement), found
    return found


@pytest.mark.parametrize(
    ("settings", "size", "target"),
    [
        ({"resolution": 512}, (1920, 1080), (512, 512)),
        ({"resolution": 512, "aspect": "preserve"}, (1920, 1080), (912, 512)),  # 910.2 to a multiple of 8
        ({"resolution": 512, "aspect": "preserve", "multiple": 64}, (1080, 1920), (512, 896)),
        ({"resolution": 1024, "resolution_type": "pixel_area"}, (300, 900), (1024, 1024)),
        (
            {"resolution": 1024, "resolution_type": "pixel_area", "aspect": "preserve", "multiple": 64},
            (4, 1),
            (2048, 512),
        ),
        ({"resolution": 1.0, "resolution_type": "area", "multiple": 64}, (5, 5), (1024, 1024)),  # 1000 to 64
        ({"resolution": 0.25, "resolution_type": "area", "multiple": 1}, (5, 5), (500, 500)),
        ({"resolution": 512, "aspect": "buckets", "aspect_buckets": (1.0, 1.5, 0.75)}, (1400, 1000), (768, 512)),
        ({"resolution": 512, "aspect": "buckets", "aspect_buckets": (1.0, 1.5, 0.75)}, (700, 1000), (512, 680)),
        ({"resolution": 4, "multiple": 4, "aspect": "preserve"}, (4, 400), (4, 400)),
    ],
)
def test_targets(settings: dict, size: tuple[int, int], target: tuple[int, int]) -> None:
    assert ImagePreparation(**settings).target(*size) == target


def test_a_target_has_at_least_one_multiple() -> None:
    assert target_size(1000.0, resolution=0.001, resolution_type="area", multiple=64) == (1024, 64)


def test_buckets_are_compared_by_their_logarithm() -> None:
    preparation = ImagePreparation(resolution=100, multiple=1, aspect="buckets", aspect_buckets=(0.5, 2.0))
    assert preparation.target(1000, 999) == (200, 100)
    assert preparation.target(999, 1000) == (100, 200)


@pytest.mark.parametrize(
    ("crop", "box"),
    [("centre", (50.0, 0.0, 150.0, 100.0)), ("corner", (0.0, 0.0, 100.0, 100.0))],
)
def test_crops_that_draw_nothing(crop: str, box: tuple[float, ...]) -> None:
    preparation, generator = ImagePreparation(resolution=64, crop=crop), draw()
    before = generator.get_state()
    found = preparation.place(200, 100, generator)
    assert found == Placement(size=(64, 64), box=box, scale=0.64)
    assert torch.equal(generator.get_state(), before)
    assert preparation.deterministic


def test_random_crops_come_from_the_generator() -> None:
    preparation = ImagePreparation(resolution=64, crop="random")
    assert not preparation.deterministic
    boxes = [placed(preparation, 200, 100, seed).box for seed in range(300)]
    assert boxes[0] == placed(preparation, 200, 100, 0).box
    lefts = np.array([box[0] for box in boxes])
    assert lefts.min() >= 0
    assert lefts.max() <= 100
    assert abs(lefts.mean() - 50) < 5  # uniform over 0..100: 5 is three standard errors
    assert {box[1] for box in boxes} == {0.0}


@pytest.mark.parametrize("width", [1, 7, 63, 64, 65, 1000])
@pytest.mark.parametrize("height", [1, 33, 64, 640])
@pytest.mark.parametrize("aspect", ["square", "preserve"])
def test_a_box_never_leaves_its_image(width: int, height: int, aspect: str) -> None:
    preparation = ImagePreparation(resolution=64, crop="random", aspect=aspect, max_upscale=None)
    for seed in range(5):
        found = placed(preparation, width, height, seed)
        left, top, right, bottom = found.box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        # One scale along both axes: nothing is distorted.
        assert (right - left) * found.scale == pytest.approx(found.size[0])
        assert (bottom - top) * found.scale == pytest.approx(found.size[1])
        assert preparation.apply(np.zeros((height, width, 3), np.uint8), found).shape == (*found.size[::-1], 3)


@pytest.mark.parametrize(
    ("settings", "size", "reason"),
    [
        ({"min_size": 100}, (640, 99), "shorter edge 99 below min_size=100"),
        ({"max_size": 600}, (640, 99), "longer edge 640 above max_size=600"),
        ({"min_aspect": 0.5}, (40, 100), "aspect 0.4 below min_aspect=0.5"),
        ({"max_aspect": 2.0}, (300, 100), "aspect 3 above max_aspect=2.0"),
        ({"max_upscale": 1.0}, (63, 64), "upscale 1.01587 above max_upscale=1.0"),
    ],
)
def test_rules(settings: dict, size: tuple[int, int], reason: str) -> None:
    preparation = ImagePreparation(resolution=64, **settings)
    assert preparation.rejection(*size) == preparation.place(*size, draw()) == reason
    assert preparation.rejection(100, 100) is None


def test_the_bounds_themselves_are_in() -> None:
    preparation = ImagePreparation(
        resolution=64, min_size=64, max_size=128, min_aspect=0.5, max_aspect=2.0, max_upscale=1.0
    )
    assert [preparation.rejection(*size) for size in ((64, 128), (128, 64), (64, 64))] == [None] * 3


def test_screening_counts_every_reason() -> None:
    preparation = ImagePreparation(resolution=64, min_size=32, max_aspect=2.0)
    sizes = [(64, 64), (200, 64), (20, 20), (None, None), (31, 64), (300, 100), (128, 64)]
    kept, counts = preparation.screen(sizes)
    assert kept == [0, 6]
    assert counts == {
        "aspect above max_aspect=2.0": 2,
        "shorter edge below min_size=32": 2,
        "size unknown": 1,
    }
    assert sum(counts.values()) + len(kept) == len(sizes)


def test_every_problem_at_once_with_key_value_and_choices() -> None:
    with pytest.raises(ValueError, match="ImagePreparation") as caught:
        ImagePreparation(
            resolution=-1,
            resolution_type="pixels",
            aspect="squared",
            aspect_buckets=(1.0, -2.0),
            multiple=0,
            crop="center",
            min_size=10,
            max_size=5,
            min_aspect=2.0,
            max_aspect=1.0,
            max_upscale=0,
            interpolation="nearest",
        )
    assert str(caught.value).splitlines()[1:] == [
        "  resolution_type='pixels': must be one of 'pixel', 'pixel_area', 'area'; nearest: 'pixel'",
        "  aspect='squared': must be one of 'square', 'preserve', 'buckets'; nearest: 'square'",
        "  crop='center': must be one of 'centre', 'random', 'corner'; nearest: 'centre'",
        "  interpolation='nearest': must be one of 'bilinear', 'bicubic', 'lanczos'; nearest: 'bilinear'",
        "  resolution=-1: must be above 0",
        "  multiple=0: must be at least 1",
        "  max_upscale=0: must be above 0",
        "  min_size=10: must not be above max_size=5",
        "  min_aspect=2.0: must not be above max_aspect=1.0",
        "  aspect_buckets=(1.0, -2.0): has no effect with aspect='squared'",
        "  aspect_buckets: -2.0 must be above 0",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aspect": "buckets"}, "aspect_buckets=None: aspect='buckets' needs a list"),
        ({"aspect": "buckets", "aspect_buckets": ()}, "needs a list"),
        ({"aspect_buckets": (1.0,)}, "has no effect with aspect='square'"),
        ({"resolution": 1024, "resolution_type": "area"}, "counts megapixels"),
        ({"resolution": 4}, "resolution=4: must be at least multiple=8"),
        ({"resolution": float("nan")}, "resolution=nan: must be above 0"),
        ({"min_size": 0}, "min_size=0: must be at least 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        ImagePreparation(**settings)


def test_videos_inherit_and_add() -> None:
    with pytest.raises(ValueError, match="VideoPreparation") as caught:
        VideoPreparation(frames=0, stride=0, clip="last", crop="middle")
    assert len(str(caught.value).splitlines()) == 5
    preparation = VideoPreparation(frames=4, stride=3, clip="random", resolution=64)
    assert preparation.span == 10
    assert not preparation.deterministic
    starts = {preparation.chosen(12, draw(seed)).start for seed in range(50)}
    assert starts == {0, 1, 2}
    assert VideoPreparation(frames=4, clip="first").chosen(9, draw()) == range(4)
    kept, counts = preparation.screen([(64, 64, 10), (64, 64, 9), (64, 64, None), (1, 64, 10)])
    assert kept == [0]
    assert counts == {"fewer than 10 frames": 1, "number of frames unknown": 1, "upscale above max_upscale=2.0": 1}


def test_cut_and_scaled_in_one_step_as_in_two() -> None:
    """Against scaling the whole image and cropping whole pixels then."""
    pixels = np.random.default_rng(0).integers(0, 255, (100, 200, 3), dtype=np.uint8)
    for interpolation, filter_ in (
        ("bilinear", Image.Resampling.BILINEAR),
        ("bicubic", Image.Resampling.BICUBIC),
        ("lanczos", Image.Resampling.LANCZOS),
    ):
        preparation = ImagePreparation(resolution=40, interpolation=interpolation)
        found = preparation.apply(pixels, placed(preparation, 200, 100))
        plain = Image.fromarray(pixels).resize((80, 40), filter_).crop((20, 0, 60, 40))
        assert np.array_equal(found, np.asarray(plain))


def test_labels_take_the_nearest_pixel_of_the_same_place() -> None:
    preparation = ImagePreparation(resolution=32, crop="random")
    labels = np.arange(64, dtype=np.uint8).repeat(64).reshape(64, 64) // 8 * 8
    image = np.repeat(labels[..., None], 3, 2)
    placement = placed(preparation, 64, 64)
    small = preparation.apply(labels, placement, nearest=True)
    assert set(np.unique(small)) <= set(np.unique(labels))
    assert np.abs(preparation.apply(image, placement)[..., 0].astype(int) - small).mean() < 1.5
    values = np.array([[7, 7], [200, 200]], np.uint8).repeat(32, 0).repeat(32, 1)
    assert set(np.unique(preparation.apply(values, placement, nearest=True))) == {7, 200}


def test_what_fits_is_not_copied() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    preparation = ImagePreparation(resolution=64)
    assert preparation.apply(pixels, placed(preparation, 64, 64)) is pixels
