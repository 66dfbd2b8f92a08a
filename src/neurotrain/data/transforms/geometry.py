"""Exact symmetries, sizes and margins: nothing here interpolates but :class:`Resize`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from neurotrain.batch import SegmentationSample
from neurotrain.data.transforms.base import Transform
from neurotrain.data.transforms.draws import check_probability


class RandomFlip(Transform):
    """Mirrors each chosen spatial axis or not, independently.

    Args:
        axes: which spatial axes, counted from 0 (vertical in 2-D); None: all.
        probability: of each axis.

    Raises:
        ValueError: if ``probability`` is outside [0, 1], or ``axes`` is empty.
    """

    def __init__(self, *, axes: tuple[int, ...] | None = None, probability: float = 0.5) -> None:
        if axes is not None and not axes:
            raise ValueError("axes=(): name at least one axis, or None for all")
        self._axes = axes
        self._probability = check_probability("probability", probability)

    def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
        """Mirror.

        Raises:
            ValueError: if the image lacks one of ``axes``.
        """
        ndim = sample["valid"].ndim
        axes = range(ndim) if self._axes is None else self._axes
        if not all(0 <= axis < ndim for axis in axes):
            raise ValueError(f"axes={self._axes}: {sample['id']!r} has the spatial axes 0 to {ndim - 1}")
        draws = torch.rand(len(axes), generator=generator).tolist()
        dims = [axis - ndim for axis, draw in zip(axes, draws, strict=True) if draw < self._probability]
        return spatially(sample, lambda part: part.flip(dims)) if dims else sample


class RandomRotate90(Transform):
    """Turns the last two axes by a multiple of 90 degrees: of four, or of two (0, 180) where they differ in length."""

    def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
        """Turn."""
        height, width = sample["valid"].shape[-2:]
        step = 1 if height == width else 2
        turns = step * int(torch.randint(4 // step, (), generator=generator))
        return spatially(sample, lambda part: torch.rot90(part, turns, (-2, -1))) if turns else sample


class Resize(Transform):
    """Scales a 2-D image to one size: bilinear with antialiasing, labels and validity by the nearest pixel.

    Args:
        size: height and width, or both in one, in pixels; the aspect ratio is not kept.

    Raises:
        ValueError: if a side is below 1.
    """

    def __init__(self, *, size: int | tuple[int, int] = 256) -> None:
        self._size = height_width(size)

    @property
    def deterministic(self) -> bool:
        """True."""
        return True

    def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
        """Scale.

        Raises:
            ValueError: if the image is not 2-D.
        """
        check_2d(sample)
        image = functional.interpolate(
            sample["image"][None], size=self._size, mode="bilinear", align_corners=False, antialias=True
        )[0]
        rows, columns = (
            # Centre of output pixel i, as ``nearest-exact`` of torch; plain ``nearest`` is half a pixel off.
            ((torch.arange(new) + 0.5) * (old / new)).long().clamp_(max=old - 1)
            for new, old in zip(self._size, sample["valid"].shape, strict=True)
        )
        mask = sample["mask"][..., rows[:, None], columns]
        return {**sample, "image": image, "mask": mask, "valid": sample["valid"][rows[:, None], columns]}


class PadToMultiple(Transform):
    """Extends the end of each spatial axis until ``multiple`` divides it.

    Args:
        multiple: in pixels, for instance the total stride of a network.

    Raises:
        ValueError: if ``multiple`` is below 1.
    """

    def __init__(self, *, multiple: int = 32) -> None:
        if multiple < 1:
            raise ValueError(f"multiple={multiple}: must be at least 1")
        self._multiple = multiple

    @property
    def deterministic(self) -> bool:
        """True."""
        return True

    def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
        """Pad with intensity 0, label 0, invalid."""
        missing = [-extent % self._multiple for extent in sample["valid"].shape]
        # F.pad counts axes from the last one.
        widths = [width for extent in reversed(missing) for width in (0, extent)]
        return spatially(sample, lambda part: functional.pad(part, widths)) if any(missing) else sample


class CentreCrop(Transform):
    """Cuts the middle out.

    Args:
        size: extent along each spatial axis, or along all in one, in pixels.

    Raises:
        ValueError: if an extent is below 1.
    """

    def __init__(self, *, size: int | tuple[int, ...]) -> None:
        if min((size,) if isinstance(size, int) else size) < 1:
            raise ValueError(f"size={size}: must be at least 1")
        self._size = size

    @property
    def deterministic(self) -> bool:
        """True."""
        return True

    def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
        """Crop.

        Raises:
            ValueError: if the image is smaller, or has another number of axes.
        """
        shape = tuple(sample["valid"].shape)
        size = (self._size,) * len(shape) if isinstance(self._size, int) else tuple(self._size)
        if len(shape) != len(size) or any(have < want for have, want in zip(shape, size, strict=True)):
            raise ValueError(f"size={self._size}: {sample['id']!r} of shape {shape} does not contain it")
        starts = [(have - want) // 2 for have, want in zip(shape, size, strict=True)]
        window = tuple(slice(start, start + want) for start, want in zip(starts, size, strict=True))
        return spatially(sample, lambda part: part[(..., *window)])


def spatially(sample: SegmentationSample, change: Callable[[Tensor], Tensor]) -> SegmentationSample:
    """Apply one exact change of the trailing axes to image, mask and valid alike."""
    return {
        **sample,
        "image": change(sample["image"]),
        "mask": change(sample["mask"]),
        "valid": change(sample["valid"]),
    }


def check_2d(sample: SegmentationSample) -> None:
    """Refuse volumes.

    Raises:
        ValueError: unless the sample has two spatial axes.
    """
    if sample["valid"].ndim != 2:
        raise ValueError(f"{sample['id']!r} has {sample['valid'].ndim} spatial axes, this transform is for 2")


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """Both sides of a rectangle, a single number standing for a square.

    Raises:
        ValueError: if a side is below 1.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size={size}: must be at least 1")
    return height, width
