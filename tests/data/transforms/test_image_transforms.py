from __future__ import annotations

import math

import pytest
import torch

from neurotrain.batch import ClassificationSample
from neurotrain.data.transforms import (
    Compose,
    ImageAffine,
    ImageCrop,
    ImageFlip,
    ImageRandAugment,
    ImageToFloat,
    Transform,
)


def _sample(height: int = 20, width: int = 24) -> ClassificationSample:
    image = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return {"image": image, "label": torch.tensor(3), "id": "a", "source": "toy"}


def _drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


RANDOM = [ImageAffine(), ImageCrop(size=16, padding=2), ImageFlip(), ImageRandAugment(magnitude=20)]


@pytest.mark.parametrize("transform", RANDOM, ids=lambda transform: type(transform).__name__)
def test_the_generator_alone_decides_and_nothing_else_is_touched(transform: Transform) -> None:
    sample = _sample()
    before, state = sample["image"].clone(), torch.get_rng_state()
    results = [transform(sample, _drawn(seed)) for seed in range(12)]  # pyright: ignore
    again = [transform(sample, _drawn(seed)) for seed in range(12)]  # pyright: ignore
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(sample["image"], before)
    assert all(torch.equal(one["image"], two["image"]) for one, two in zip(results, again, strict=True))
    assert any(not torch.equal(one["image"], results[0]["image"]) for one in results[1:])
    assert all((one["label"], one["id"]) == (3, "a") for one in results)
    assert not transform.deterministic


def test_a_crop_is_a_window_of_the_extended_image_and_reaches_its_corners() -> None:
    sample = _sample(8, 8)
    padded = torch.nn.functional.pad(sample["image"], (1, 1, 1, 1))
    windows = {(top, left): padded[:, top : top + 8, left : left + 8] for top in range(3) for left in range(3)}
    seen = set()
    for seed in range(120):
        found = ImageCrop(size=8, padding=1)(sample, _drawn(seed))["image"]
        seen |= {place for place, window in windows.items() if torch.equal(window, found)}
    assert seen == set(windows)
    with pytest.raises(ValueError, match="size=30"):
        ImageCrop(size=30, padding=2)(sample, _drawn(0))


@pytest.mark.parametrize("most", [(30.0, 0.0, 0.0), (0.0, 0.4, 0.0), (0.0, 0.0, 0.5), (30.0, 0.4, 0.0)])
def test_an_affine_transform_is_torchvisions(most: tuple[float, float, float]) -> None:
    from torchvision.transforms.v2 import InterpolationMode, functional

    angle, size, shear = (
        value * share for value, share in zip(most, (2 * torch.rand(3, generator=_drawn(1)) - 1).tolist(), strict=True)
    )
    wanted = functional.affine(
        _sample()["image"].float(),
        angle=-angle,
        scale=math.exp(size),
        translate=[0, 0],
        shear=[math.degrees(math.atan(shear)), 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    found = ImageAffine(degrees=most[0], scale=most[1], shear=most[2])(_sample(), _drawn(1))["image"]
    assert (found.float() - wanted).abs().max() <= 0.51  # rounded to whole levels


def test_floats_are_torchvisions_normalisation() -> None:
    from torchvision.transforms.v2 import functional

    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    wanted = functional.normalize(_sample()["image"].float() / 255, list(mean), list(std))
    torch.testing.assert_close(ImageToFloat(mean=mean, std=std)(_sample(), _drawn(0))["image"], wanted)


def test_a_grey_image_keeps_its_levels() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    sample = {"image": levels.expand(3, -1, -1), "id": "a", "source": "toy"}
    found = ImageToFloat(mean=(0.0,), std=(1.0,), colour="grey")(sample, _drawn(0))["image"]  # pyright: ignore
    assert torch.equal(found, levels.float() / 255)


def test_steps_of_one_composition() -> None:
    steps = Compose(steps={"crop": ImageCrop(size=16, padding=2), "float": ImageToFloat()})
    found = steps(_sample(), _drawn(0))
    assert found["image"].dtype == torch.float32
    assert found["image"].shape == (3, 16, 16)
    assert not steps.deterministic


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ImageCrop(size=0), "size=0"),
        (lambda: ImageAffine(degrees=0.0, scale=0.0, shear=0.0), "one of them more"),
        (lambda: ImageFlip(probability=2.0), "probability=2.0"),
        (lambda: ImageRandAugment(magnitude=31), "magnitude=31"),
        (lambda: ImageToFloat(colour="grey"), "needs 1 of both"),
        (lambda: ImageRandAugment()(ImageToFloat()(_sample(), _drawn(0)), _drawn(0)), "put it first"),
        (lambda: ImageToFloat()(ImageToFloat()(_sample(), _drawn(0)), _drawn(0)), "expected uint8"),
    ],
)
def test_mistakes_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # pyright: ignore
