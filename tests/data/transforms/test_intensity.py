"""Intensities: by hand, in distribution, and against NumPy and SciPy."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from neurotrain.batch import SegmentationSample
from neurotrain.data.transforms import Normalize, NormalizeInside, RandomBlur, RandomColor, RandomNoise


def sample_of(image: Tensor, valid: Tensor | None = None) -> SegmentationSample:
    valid = torch.ones(image.shape[1:], dtype=torch.bool) if valid is None else valid
    return {"image": image, "mask": valid.long(), "valid": valid, "id": "a", "source": "toy"}


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def apply(transform: Any, image: Tensor, seed: int = 0) -> Tensor:
    return transform(sample_of(image), torch.Generator().manual_seed(seed))["image"]


def test_normalize_inside_equals_numpy_and_ignores_the_outside() -> None:
    image, valid = noise(3, 20, 30) * torch.tensor([1.0, 5.0, 0.1])[:, None, None] + 40, noise(20, 30) > 0
    image[:, ~valid] = 1e6
    normalized = NormalizeInside()(sample_of(image, valid), torch.Generator())["image"]
    inside = image.double().numpy()[:, valid.numpy()]
    expected = (inside - inside.mean(1, keepdims=True)) / inside.std(1, keepdims=True)
    np.testing.assert_allclose(normalized.numpy()[:, valid.numpy()], expected, atol=1e-4)
    assert not normalized[:, ~valid].any()


def test_normalize_inside_of_nothing_and_of_one_value() -> None:
    assert not NormalizeInside()(sample_of(torch.full((1, 2, 2), 0.7)), torch.Generator())["image"].any()
    with pytest.raises(ValueError, match="'a' of 'toy' has no valid pixel"):
        NormalizeInside()(sample_of(torch.ones(1, 2, 2), torch.zeros(2, 2, dtype=torch.bool)), torch.Generator())


def test_normalize_by_hand() -> None:
    image = torch.tensor([[[1.0, 3.0]], [[10.0, 20.0]]])
    assert apply(Normalize(mean=(1.0, 10.0), std=(2.0, 5.0)), image).tolist() == [[[0.0, 1.0]], [[0.0, 2.0]]]
    with pytest.raises(ValueError, match=r"'a' has 2 channel.*3 number"):
        apply(Normalize(), image)


def test_color_is_affine_in_each_channel_with_the_stated_spread() -> None:
    image = noise(3, 8, 8)
    color = RandomColor(contrast=0.2, brightness=0.3, channel_shift=0.1)
    slopes, shifts = [], []
    for seed in range(600):
        changed = apply(color, image, seed)
        slope = (changed[:, 0, 1] - changed[:, 0, 0]) / (image[:, 0, 1] - image[:, 0, 0])
        shift = changed[:, 0, 0] - slope * image[:, 0, 0]
        torch.testing.assert_close(changed, slope[:, None, None] * image + shift[:, None, None], atol=1e-4, rtol=0)
        torch.testing.assert_close(slope, slope[:1].expand(3), atol=1e-4, rtol=0)
        slopes.append(slope[0])
        shifts.append(shift)
    shifts = torch.stack(shifts)
    assert torch.stack(slopes).mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.stack(slopes).std().item() == pytest.approx(0.2, rel=0.12)
    assert shifts.std().item() == pytest.approx((0.3**2 + 0.1**2) ** 0.5, rel=0.12)
    assert (shifts[:, 0] - shifts[:, 1]).std().item() == pytest.approx(0.1 * 2**0.5, rel=0.12)


def test_gamma_keeps_extremes_and_order() -> None:
    image = noise(1, 8, 8)
    changed = apply(RandomColor(contrast=0.0, brightness=0.0, channel_shift=0.0, gamma=0.5), image)
    assert not torch.allclose(changed, image)
    torch.testing.assert_close(changed.aminmax(), image.aminmax())
    assert torch.equal(changed.flatten().argsort(), image.flatten().argsort())
    unit = (image - image.min()) / (image.max() - image.min())
    changed_unit = (changed - image.min()) / (image.max() - image.min())
    inner = (unit > 0.05) & (unit < 0.95)
    exponents = changed_unit[inner].log() / unit[inner].log()
    assert exponents.max().item() == pytest.approx(exponents.min().item(), rel=1e-3)


def test_noise_has_the_stated_strength() -> None:
    added = apply(RandomNoise(std=(0.3, 0.3), probability=1.0), torch.zeros(3, 100, 100))
    assert added.std().item() == pytest.approx(0.3, rel=0.03)
    assert added.mean().abs() < 0.01
    strengths = [
        apply(RandomNoise(std=(0.1, 0.4), probability=1.0), torch.zeros(1, 50, 50), seed).std() for seed in range(40)
    ]
    assert 0.09 < min(strengths) < 0.2
    assert 0.3 < max(strengths) < 0.42


@pytest.mark.parametrize("shape", [(2, 20, 30), (1, 9, 10, 11)])
def test_blur_equals_scipy(shape: tuple[int, ...]) -> None:
    image = noise(*shape)
    blurred = apply(RandomBlur(sigma=(1.0, 1.0), probability=1.0), image)
    for ours, channel in zip(blurred, image, strict=True):
        expected = ndimage.gaussian_filter(channel.numpy(), 1.0, mode="mirror", truncate=3.0)
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_blur_of_an_image_smaller_than_the_kernel() -> None:
    blurred = apply(RandomBlur(sigma=(3.0, 3.0), probability=1.0), torch.ones(1, 2, 1))
    torch.testing.assert_close(blurred, torch.ones(1, 2, 1))


@pytest.mark.parametrize("make", [RandomColor, RandomNoise, RandomBlur])
def test_happens_as_often_as_told(make: Any) -> None:
    image = noise(1, 4, 4)
    changed = sum(not torch.equal(apply(make(probability=0.3), image, seed), image) for seed in range(500))
    assert 110 < changed < 190
    assert torch.equal(apply(make(probability=0.0), image), image)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normalize(mean=(0.0,), std=(1.0, 1.0)), "as many of both"),
        (lambda: Normalize(mean=(0.0,), std=(0.0,)), "positive std"),
        (lambda: RandomColor(brightness=-1.0), "brightness=-1.0"),
        (lambda: RandomColor(probability=-0.1), "probability=-0.1"),
        (lambda: RandomNoise(std=(0.2, 0.1)), r"std=\(0.2, 0.1\)"),
        (lambda: RandomBlur(sigma=(0.0, 1.0)), r"sigma=\(0.0, 1.0\)"),
    ],
)
def test_refuses_senseless_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
