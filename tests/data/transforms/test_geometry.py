"""Flips, turns, sizes, margins: by hand and against torch and Pillow."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from neurotrain.batch import SegmentationSample
from neurotrain.data.transforms import CentreCrop, PadToMultiple, RandomFlip, RandomRotate90, Resize


def sample_of(mask: Tensor) -> SegmentationSample:
    return {"image": mask[None].float(), "mask": mask, "valid": mask > 0, "id": "a", "source": "toy"}


def small() -> SegmentationSample:
    return sample_of(torch.tensor([[1, 2], [3, 4]]))


def outcomes(transform: Any, sample: SegmentationSample, draws: int) -> Counter[str]:
    generator = torch.Generator().manual_seed(0)
    return Counter(str(transform(sample, generator)["mask"].tolist()) for _ in range(draws))


def test_flips_each_axis_independently() -> None:
    seen = outcomes(RandomFlip(probability=0.25), small(), 4000)
    expected = {"[[1, 2], [3, 4]]": 9, "[[2, 1], [4, 3]]": 3, "[[3, 4], [1, 2]]": 3, "[[4, 3], [2, 1]]": 1}
    assert seen.keys() == expected.keys()
    assert all(abs(seen[mask] / 4000 - sixteenths / 16) < 0.035 for mask, sixteenths in expected.items())


def test_flips_only_the_axes_it_was_told() -> None:
    assert set(outcomes(RandomFlip(axes=(1,)), small(), 30)) == {"[[1, 2], [3, 4]]", "[[2, 1], [4, 3]]"}
    with pytest.raises(ValueError, match=r"axes=\(2,\): 'a' has the spatial axes 0 to 1"):
        RandomFlip(axes=(2,))(small(), torch.Generator())
    with pytest.raises(ValueError, match="at least one axis"):
        RandomFlip(axes=())


def test_turns_by_all_quarters_or_by_halves_where_sides_differ() -> None:
    seen = outcomes(RandomRotate90(), small(), 2000)
    assert set(seen) == {str(torch.rot90(small()["mask"], turns).tolist()) for turns in range(4)}
    assert max(seen.values()) - min(seen.values()) < 120
    wide = sample_of(torch.tensor([[1, 2, 3]]))
    assert set(outcomes(RandomRotate90(), wide, 30)) == {"[[1, 2, 3]]", "[[3, 2, 1]]"}


def test_resize_equals_torch_and_pillow() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 9, (40, 53), generator=generator)
    sample = {**sample_of(mask), "image": torch.rand(3, 40, 53, generator=generator)}
    for size in ((17, 80), (40, 53), (7, 9)):
        resized = Resize(size=size)(sample, torch.Generator())
        for name in ("mask", "valid"):
            nearest = functional.interpolate(sample[name][None, None].float(), size=size, mode="nearest-exact")[0, 0]
            assert torch.equal(resized[name], nearest.to(sample[name].dtype))
        for ours, channel in zip(resized["image"], sample["image"], strict=True):
            pillow = Image.fromarray(channel.numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
            np.testing.assert_allclose(ours, np.asarray(pillow), atol=1e-5)


def test_resize_by_hand() -> None:
    resized = Resize(size=(2, 1))(small(), torch.Generator())
    assert resized["image"].tolist() == [[[1.5], [3.5]]]
    assert resized["mask"].tolist() == [[2], [4]]
    assert Resize(size=4)(small(), torch.Generator())["mask"].tolist()[0] == [1, 1, 2, 2]


def test_pads_the_end_with_nothing_that_counts() -> None:
    sample = sample_of(torch.tensor([[5, 6, 7]]))
    padded = PadToMultiple(multiple=2)(sample, torch.Generator())
    assert padded["mask"].tolist() == [[5, 6, 7, 0], [0, 0, 0, 0]]
    assert padded["image"][0].tolist() == padded["mask"].tolist()
    assert padded["valid"].tolist() == [[True, True, True, False], [False] * 4]
    assert PadToMultiple(multiple=1)(sample, torch.Generator()) is sample


def test_crops_the_centre() -> None:
    mask = torch.arange(1, 31).reshape(5, 6)
    assert CentreCrop(size=(3, 2))(sample_of(mask), torch.Generator())["mask"].tolist() == mask[1:4, 2:4].tolist()
    assert CentreCrop(size=3)(sample_of(mask), torch.Generator())["mask"].tolist() == mask[1:4, 1:4].tolist()
    for size in ((6, 6), (3, 3, 3)):
        with pytest.raises(ValueError, match="does not contain it"):
            CentreCrop(size=size)(sample_of(mask), torch.Generator())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resize(size=(0, 3)), r"size=\(0, 3\)"),
        (lambda: CentreCrop(size=(3, 0)), r"size=\(3, 0\)"),
        (lambda: PadToMultiple(multiple=0), "multiple=0"),
        (lambda: RandomFlip(probability=1.5), "probability=1.5"),
    ],
)
def test_refuses_senseless_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
