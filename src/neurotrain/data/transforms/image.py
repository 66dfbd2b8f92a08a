"""Transforms of samples that are one image with a label: uint8 as decoded first, floats at the end."""

from __future__ import annotations

import math
from abc import ABC
from typing import Literal

import torch
from torch.nn import functional

from neurotrain.batch import ImageSample
from neurotrain.data.transforms.base import Transform
from neurotrain.data.transforms.draws import check_probability, happens

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's conversion to "L"


class _ImageTransform(Transform[ImageSample], ABC):
    """Changes ``image`` and keeps everything else, ``label`` among it."""


class ImageCrop(_ImageTransform):
    """Cuts a window at a random place out of the image, which is first extended by ``padding`` black pixels.

    Args:
        size: edge of the square window, in pixels.
        padding: added at each side.

    Raises:
        ValueError: if ``size`` is below 1 or ``padding`` negative.

    Reference:
        He et al., 2016 (arXiv:1512.03385), section 4.2: 32 pixels out of 32 extended by 4.

    Example:
        >>> sample = {"image": torch.ones(3, 28, 28, dtype=torch.uint8), "id": "a", "source": "toy"}
        >>> ImageCrop(size=28, padding=2)(sample, torch.Generator())["image"].shape
        torch.Size([3, 28, 28])
    """

    def __init__(self, *, size: int = 32, padding: int = 4) -> None:
        if size < 1 or padding < 0:
            raise ValueError(f"size={size}, padding={padding}: need at least 1, and at least 0")
        self._size, self._padding = size, padding

    def __call__(self, sample: ImageSample, generator: torch.Generator) -> ImageSample:
        """Extend and cut.

        Raises:
            ValueError: if the extended image is smaller than the window.
        """
        image = functional.pad(sample["image"], (self._padding,) * 4)
        spare = [extent - self._size for extent in image.shape[-2:]]
        if min(spare) < 0:
            raise ValueError(
                f"{sample['id']!r}: size={self._size} is more than the image with padding={self._padding} has, "
                f"{image.shape[-2]} x {image.shape[-1]} pixels"
            )
        top, left = (int(torch.randint(room + 1, (), generator=generator)) for room in spare)
        return {**sample, "image": image[:, top : top + self._size, left : left + self._size]}


class ImageFlip(_ImageTransform):
    """Mirrors the image left to right, or not.

    Args:
        probability: of mirroring.

    Raises:
        ValueError: if it is outside [0, 1].
    """

    def __init__(self, *, probability: float = 0.5) -> None:
        self._probability = check_probability("probability", probability)

    def __call__(self, sample: ImageSample, generator: torch.Generator) -> ImageSample:
        """Mirror."""
        return {**sample, "image": sample["image"].flip(-1)} if happens(self._probability, generator) else sample


class ImageAffine(_ImageTransform):
    """Turns, scales and shears the image about its centre; bilinear, black where nothing is known.

    Args:
        degrees: greatest turn to either side.
        scale: greatest change of size to either side, as the logarithm of the factor.
        shear: greatest shear to either side, in widths for a height.

    Raises:
        ValueError: if a number is negative, or all are 0.

    Reference:
        Simard et al., 2003, "Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis".
    """

    def __init__(self, *, degrees: float = 10.0, scale: float = 0.1, shear: float = 0.1) -> None:
        if min(degrees, scale, shear) < 0 or degrees == scale == shear == 0:
            raise ValueError(f"degrees={degrees}, scale={scale}, shear={shear}: need at least 0, and one of them more")
        self._most = torch.tensor([math.radians(degrees), scale, shear])

    def __call__(self, sample: ImageSample, generator: torch.Generator) -> ImageSample:
        """Turn, scale and shear."""
        angle, size, shear = (self._most * (2 * torch.rand(3, generator=generator) - 1)).tolist()
        image = sample["image"]
        height, width = image.shape[-2:]
        # From a place in the result to one in the image, in units of half its extent along each axis.
        cosine, sine = math.cos(angle) * math.exp(-size), math.sin(angle) * math.exp(-size)
        turn = torch.tensor([[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]])
        turn[:, 1] += shear * height / width * turn[:, 0]
        grid = functional.affine_grid(turn[None], [1, 1, height, width], align_corners=False)
        moved = functional.grid_sample(image[None].float(), grid, padding_mode="zeros", align_corners=False)[0]
        return {**sample, "image": moved.round().to(torch.uint8)}


class ImageRandAugment(_ImageTransform):
    """Randomly chosen operations of torchvision's RandAugment, on uint8 pixels.

    torchvision draws from the global generator: it is seeded from the generator of the call meanwhile, and put back.

    Args:
        operations: how many one after the other.
        magnitude: strength, from 0 to 30.

    Raises:
        ValueError: if a number is out of range.

    Reference:
        Cubuk et al., 2020 (arXiv:1909.13719).
    """

    def __init__(self, *, operations: int = 2, magnitude: int = 9) -> None:
        if operations < 1 or not 0 <= magnitude <= 30:
            raise ValueError(f"operations={operations}, magnitude={magnitude}: need at least 1, and 0 to 30")
        self._operations, self._magnitude = operations, magnitude

    def __call__(self, sample: ImageSample, generator: torch.Generator) -> ImageSample:
        """Augment.

        Raises:
            ValueError: if the image is not uint8: it must come before :class:`ImageToFloat`.
        """
        from torchvision.transforms import v2

        if sample["image"].dtype != torch.uint8:
            raise ValueError(
                f"{sample['id']!r} is {sample['image'].dtype}: ImageRandAugment works on uint8, put it first"
            )
        # A round has 31 strengths, the middle one of which is the paper's default of 9.
        augment = v2.RandAugment(num_ops=self._operations, magnitude=self._magnitude, num_magnitude_bins=31)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            return {**sample, "image": augment(sample["image"])}


class ImageToFloat(_ImageTransform):
    """``(image / 255 - mean) / std``: what a network takes.

    Args:
        mean: one number for each channel of the result.
        std: likewise, positive. The defaults are ImageNet's.
        colour: ``rgb`` keeps three channels; ``grey`` makes one, their BT.601 luma, exact for a grey image.

    Raises:
        ValueError: if there are not as many numbers as channels, or a ``std`` is not positive.

    Example:
        >>> sample = {"image": torch.full((3, 1, 1), 255, dtype=torch.uint8), "id": "a", "source": "toy"}
        >>> ImageToFloat(mean=(0.5,), std=(0.5,), colour="grey")(sample, torch.Generator())["image"]
        tensor([[[1.]]])
    """

    def __init__(
        self,
        *,
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
        colour: Literal["rgb", "grey"] = "rgb",
    ) -> None:
        channels = 3 if colour == "rgb" else 1
        if len(mean) != channels or len(std) != channels or not all(value > 0 for value in std):
            raise ValueError(f"mean={mean}, std={std}: colour={colour!r} needs {channels} of both, and positive std")
        self._mean = torch.tensor(mean, dtype=torch.float32)[:, None, None]
        self._std = torch.tensor(std, dtype=torch.float32)[:, None, None]
        self._colour: Literal["rgb", "grey"] = colour

    @property
    def deterministic(self) -> bool:
        """True."""
        return True

    def __call__(self, sample: ImageSample, generator: torch.Generator) -> ImageSample:
        """Convert.

        Raises:
            ValueError: if the image is no uint8 one of three channels.
        """
        image = sample["image"]
        if image.dtype != torch.uint8 or image.shape[0] != 3:
            raise ValueError(f"{sample['id']!r} is {image.dtype} {tuple(image.shape)}: expected uint8 (3, H, W)")
        if self._colour == "grey":
            weights = torch.tensor(_LUMA, dtype=torch.float64)[:, None, None]
            # Rounded to whole levels: the weights' sum is 1 but for rounding, so a grey image comes out as it was.
            pixels = (image.double() * weights).sum(0, keepdim=True).round().float()
        else:
            pixels = image.float()
        return {**sample, "image": (pixels / 255 - self._mean) / self._std}
