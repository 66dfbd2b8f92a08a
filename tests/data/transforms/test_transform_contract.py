"""What every transform keeps, one suite over the family."""

from __future__ import annotations

import pytest
import torch

from neurotrain.batch import SegmentationSample
from neurotrain.data import transforms
from neurotrain.data.transforms import (
    CentreCrop,
    Compose,
    Identity,
    Normalize,
    NormalizeInside,
    PadToMultiple,
    RandomBlur,
    RandomColor,
    RandomFlip,
    RandomNoise,
    RandomPatch,
    RandomRotate90,
    Resize,
    Transform,
)

HEIGHT, WIDTH = 37, 45

MEMBERS: list[Transform] = [
    CentreCrop(size=(20, 31)),
    Compose(steps={"patch": RandomPatch(size=16), "noise": RandomNoise(probability=1.0)}),
    Identity(),
    Normalize(mean=(1.0, 2.0, 3.0), std=(2.0, 2.0, 2.0)),
    NormalizeInside(),
    PadToMultiple(multiple=16),
    RandomBlur(probability=1.0),
    RandomColor(gamma=0.2),
    RandomFlip(),
    RandomNoise(probability=1.0),
    RandomPatch(size=(24, 32), affine_probability=0.0),
    RandomPatch(size=(24, 32), affine_probability=1.0, elastic_sigma=2.0, elastic_spacing=8),
    RandomPatch(size=64, foreground_probability=1.0),
    RandomRotate90(),
    Resize(size=(24, 50)),
]
GEOMETRIC = (CentreCrop, PadToMultiple, RandomFlip, RandomPatch, RandomRotate90)
"""Those that keep intensities and read at most the neighbouring pixels."""

members = pytest.mark.parametrize("transform", MEMBERS, ids=lambda transform: type(transform).__name__)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disc() -> SegmentationSample:
    """Image: row, column, noise. Mask: 1 + place, so that each label tells where it came from; 3 labels are absent."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    valid = (rows - 18) ** 2 + (columns - 22) ** 2 < 17**2
    noise = torch.randn(HEIGHT, WIDTH, generator=generator(9))
    image = torch.stack([rows.float(), columns.float(), noise])
    return {"image": image, "mask": 1 + rows * WIDTH + columns, "valid": valid, "id": "a", "source": "toy"}


def equal(one: SegmentationSample, other: SegmentationSample) -> bool:
    return all(torch.equal(one[name], other[name]) for name in ("image", "mask", "valid"))


def test_every_member_is_tested() -> None:
    of_images = {name for name in transforms.__all__ if name.startswith(("Image", "Detection"))}  # tested apart
    assert {type(member).__name__ for member in MEMBERS} == set(transforms.__all__) - {"Transform"} - of_images


@members
def test_keeps_names_types_and_shapes_in_step(transform: Transform) -> None:
    for seed in range(5):
        sample = transform(disc(), generator(seed))
        shape = sample["valid"].shape
        assert sample.keys() == disc().keys()
        assert (sample["id"], sample["source"]) == ("a", "toy")
        assert sample["image"].dtype == torch.float32
        assert sample["image"].shape == (3, *shape)
        assert sample["image"].isfinite().all()
        assert sample["mask"].dtype == torch.int64
        assert sample["mask"].shape == shape
        assert sample["valid"].dtype == torch.bool


@members
def test_leaves_its_input_alone(transform: Transform) -> None:
    sample = disc()
    for seed in range(5):
        transform(sample, generator(seed))
    assert equal(sample, disc())


@members
def test_draws_from_the_generator_alone(transform: Transform) -> None:
    before = torch.get_rng_state()
    samples = [transform(disc(), generator(seed)) for seed in range(8)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(equal(sample, transform(disc(), generator(seed))) for seed, sample in enumerate(samples))
    if transform.deterministic:
        assert all(equal(sample, samples[0]) for sample in samples)
    else:
        assert any(
            sample["image"].shape != samples[0]["image"].shape or not equal(sample, samples[0]) for sample in samples
        )


@members
def test_makes_no_labels_up_and_validates_nothing(transform: Transform) -> None:
    sample = disc()
    for seed in range(5):
        changed = transform(sample, generator(seed))
        places = changed["mask"] - 1
        assert ((places >= -1) & (places < HEIGHT * WIDTH)).all()
        # A pixel is valid exactly if it shows a valid pixel of the original.
        original = torch.where(places >= 0, sample["valid"].flatten()[places.clamp(min=0)], False)
        assert torch.equal(changed["valid"], original)


@pytest.mark.parametrize("transform", [member for member in MEMBERS if isinstance(member, GEOMETRIC)])
def test_image_and_labels_stay_aligned(transform: Transform) -> None:
    for seed in range(10):
        changed = transform(disc(), generator(seed))
        places = changed["mask"] - 1
        rows, columns = places // WIDTH, places % WIDTH
        # Away from the border, where a bilinear weight may fall outside, a ramp is sampled exactly.
        inner = (rows > 0) & (rows < HEIGHT - 1) & (columns > 0) & (columns < WIDTH - 1)
        assert inner.any()
        assert (changed["image"][0] - rows)[inner].abs().max() <= 0.501
        assert (changed["image"][1] - columns)[inner].abs().max() <= 0.501


@pytest.mark.parametrize("transform", [member for member in MEMBERS if type(member) is not NormalizeInside])
def test_multilabel_masks_go_the_same_way(transform: Transform) -> None:
    sample = disc()
    several = transform({**sample, "mask": torch.stack([sample["mask"], sample["mask"] * 2])}, generator(3))
    single = transform(sample, generator(3))
    assert torch.equal(several["mask"], torch.stack([single["mask"], single["mask"] * 2]))
    assert torch.equal(several["image"], single["image"])


@pytest.mark.parametrize(
    "transform",
    [
        Identity(),
        NormalizeInside(),
        PadToMultiple(multiple=4),
        RandomFlip(),
        RandomColor(),
        RandomNoise(),
        RandomBlur(probability=1.0),
        RandomRotate90(),
        CentreCrop(size=(4, 5, 6)),
    ],
)
def test_volumes_are_welcome(transform: Transform) -> None:
    volume: SegmentationSample = {
        "image": torch.randn(2, 5, 6, 7, generator=generator(0)),
        "mask": torch.ones(5, 6, 7, dtype=torch.int64),
        "valid": torch.ones(5, 6, 7, dtype=torch.bool),
        "id": "v",
        "source": "toy",
    }
    for seed in range(4):
        changed = transform(volume, generator(seed))
        assert changed["image"].shape[1:] == changed["mask"].shape == changed["valid"].shape


@pytest.mark.parametrize("transform", [RandomPatch(size=4), Resize(size=4)])
def test_what_is_for_two_dimensions_refuses_three(transform: Transform) -> None:
    volume: SegmentationSample = {
        "image": torch.zeros(1, 5, 6, 7),
        "mask": torch.zeros(5, 6, 7, dtype=torch.int64),
        "valid": torch.ones(5, 6, 7, dtype=torch.bool),
        "id": "v",
        "source": "toy",
    }
    with pytest.raises(ValueError, match="'v' has 3 spatial axes"):
        transform(volume, generator(0))


def test_compose_applies_in_order_and_is_as_deterministic_as_its_steps() -> None:
    crop_then_pad = Compose(steps={"crop": CentreCrop(size=9), "pad": PadToMultiple(multiple=8)})
    pad_then_crop = Compose(steps={"pad": PadToMultiple(multiple=8), "crop": CentreCrop(size=9)})
    assert crop_then_pad(disc(), generator(0))["mask"].shape == (16, 16)
    assert pad_then_crop(disc(), generator(0))["mask"].shape == (9, 9)
    assert crop_then_pad.deterministic
    assert not Compose(steps={"crop": CentreCrop(size=9), "noise": RandomNoise()}).deterministic
    with pytest.raises(ValueError, match="at least one transform"):
        Compose(steps={})
