"""Transforms of the image's values; labels and validity pass through."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from neurotrain.batch import SegmentationSample
from neurotrain.data.transforms.base import Transform
from neurotrain.data.transforms.draws import check_probability, check_range, happens, uniform


class NormalizeInside(Transform):
    """Zero mean and unit standard deviation of each channel over the valid pixels; 0 outside.

    A constant channel becomes 0.

    Example:
        >>> image, valid = torch.tensor([[[1.0, 3.0, 9.0]]]), torch.tensor([[True, True, False]])
        >>> sample = SegmentationSample(image=image, mask=valid.long(), valid=valid, id="a", source="toy")
        >>> NormalizeInside()(sample, torch.Generator())["image"]
        tensor([[[-1.,  1.,  0.]]])
    """

    @property
    def deterministic(self) -> bool:
        """True."""
        return True

    def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
        """Normalise.

        Raises:
            ValueError: if no pixel is valid.
        """
        image, valid = sample["image"], sample["valid"]
        inside = image[:, valid]
        if inside.shape[1] == 0:
            raise ValueError(f"{sample['id']!r} of {sample['source']!r} has no valid pixel to normalise over")
        std, mean = torch.std_mean(inside.double(), dim=1, correction=0)
        std = torch.where(std > 0, std, 1.0)
        normalized = (image - _per_channel(mean.float(), image)) / _per_channel(std.float(), image)
        return {**sample, "image": torch.where(valid, normalized, 0.0)}


class Normalize(Transform):
    """``(image - mean) / std`` with fixed numbers, for instance those that a pretrained network was trained with.

    Args:
        mean: one number for each channel.
        std: likewise, positive. The defaults are ImageNet's, for images in [0, 1].

    Raises:
        ValueError: if the lengths differ or a ``std`` is not positive.
    """

    def __init__(
        self, *, mean: Sequence[float] = (0.485, 0.456, 0.406), std: Sequence[float] = (0.229, 0.224, 0.225)
    ) -> None:
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(f"mean={tuple(mean)}, std={tuple(std)}: need as many of both, and positive std")
        self._mean = torch.tensor(tuple(mean), dtype=torch.float32)
        self._std = torch.tensor(tuple(std), dtype=torch.float32)

    @property
    def deterministic(self) -> bool:
        """True."""
        return True

    def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
        """Normalise.

        Raises:
            ValueError: if the image has another number of channels.
        """
        image = sample["image"]
        if image.shape[0] != len(self._mean):
            raise ValueError(
                f"{sample['id']!r} has {image.shape[0]} channel(s), mean and std have {len(self._mean)} number(s)"
            )
        return {**sample, "image": (image - _per_channel(self._mean, image)) / _per_channel(self._std, image)}


class RandomColor(Transform):
    """Contrast, brightness, a shift of each channel, and gamma, drawn once per image.

    ``image * (1 + contrast * n) + brightness * n' + channel_shift * n''_c`` with independent standard normal ``n``:
    meant for images of zero mean and unit standard deviation, in whose units the numbers are. With ``gamma``, the image
    is then stretched to [0, 1] by its extremes, raised to ``exp(gamma * n)``, and stretched back.

    Args:
        contrast: standard deviation of the factor.
        brightness: standard deviation of the common shift.
        channel_shift: standard deviation of each channel's own shift.
        gamma: standard deviation of the exponent's logarithm; 0 leaves it out.
        probability: share of images that are changed at all.

    Raises:
        ValueError: if a number is negative, or ``probability`` above 1.
    """

    def __init__(
        self,
        *,
        contrast: float = 0.2,
        brightness: float = 0.25,
        channel_shift: float = 0.1,
        gamma: float = 0.0,
        probability: float = 1.0,
    ) -> None:
        for name, value in (
            ("contrast", contrast),
            ("brightness", brightness),
            ("channel_shift", channel_shift),
            ("gamma", gamma),
        ):
            if value < 0:
                raise ValueError(f"{name}={value}: a standard deviation is not negative")
        self._contrast, self._brightness = contrast, brightness
        self._channel_shift, self._gamma = channel_shift, gamma
        self._probability = check_probability("probability", probability)

    def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
        """Change contrast, brightness, channels and gamma."""
        if not happens(self._probability, generator):
            return sample
        image = sample["image"]
        factor, shift, exponent = torch.randn(3, generator=generator).tolist()
        shifts = torch.randn(image.shape[0], generator=generator) * self._channel_shift + self._brightness * shift
        image = torch.addcmul(_per_channel(shifts, image), image, torch.tensor(1 + self._contrast * factor))
        if self._gamma > 0:
            image = _gamma(image, math.exp(self._gamma * exponent))
        return {**sample, "image": image}


class RandomNoise(Transform):
    """Gaussian noise, independent for each pixel and channel, of a standard deviation drawn for each image.

    Args:
        std: range of the standard deviation, in units of the image.
        probability: share of images that get any.

    Raises:
        ValueError: if the range is negative or reversed, or ``probability`` outside [0, 1].
    """

    def __init__(self, *, std: tuple[float, float] = (0.0, 0.15), probability: float = 0.3) -> None:
        self._std = check_range("std", std)
        self._probability = check_probability("probability", probability)

    def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
        """Add noise."""
        if not happens(self._probability, generator):
            return sample
        image = sample["image"]
        std = uniform(self._std, generator)
        return {**sample, "image": torch.add(image, torch.randn(image.shape, generator=generator), alpha=std)}


class RandomBlur(Transform):
    """Gaussian blur of a width drawn for each image; edges are mirrored.

    Args:
        sigma: range of the standard deviation, in pixels.
        probability: share of images that are blurred.

    Raises:
        ValueError: if the range is not positive or reversed, or ``probability`` outside [0, 1].
    """

    def __init__(self, *, sigma: tuple[float, float] = (0.5, 1.5), probability: float = 0.1) -> None:
        self._sigma = check_range("sigma", sigma)
        if sigma[0] <= 0:
            raise ValueError(f"sigma={sigma}: must be positive; probability leaves images sharp")
        self._probability = check_probability("probability", probability)

    def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
        """Blur along every spatial axis."""
        if not happens(self._probability, generator):
            return sample
        sigma = uniform(self._sigma, generator)
        image = sample["image"]
        for axis in range(1, image.ndim):
            image = _blur_along(image, axis, sigma)
        return {**sample, "image": image}


def _per_channel(values_C: Tensor, image: Tensor) -> Tensor:
    return values_C.reshape(-1, *[1] * (image.ndim - 1))


def _gamma(image: Tensor, exponent: float) -> Tensor:
    low, high = torch.aminmax(image)
    extent = (high - low).clamp(min=1e-7)
    return ((image - low) / extent).pow(exponent) * extent + low


def _blur_along(image: Tensor, axis: int, sigma: float) -> Tensor:
    length = image.shape[axis]
    radius = min(math.ceil(3 * sigma), length - 1)  # a mirror cannot show more than there is
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    lines = image.movedim(axis, -1)
    padded = functional.pad(lines.reshape(-1, 1, length), (radius, radius), mode="reflect")
    blurred = functional.conv1d(padded, (kernel / kernel.sum())[None, None])
    return blurred.reshape(lines.shape).movedim(-1, axis)
