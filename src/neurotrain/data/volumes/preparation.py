"""What a network is given of a volume: one spacing, one range of intensities, the box that the body fills.

Shape legend: ``C`` channels, ``K`` classes or regions, ``*size`` voxels of the canonical frame, ``*spatial`` prepared
ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from neurotrain.data.volumes.base import Volume
from neurotrain.data.volumes.labels import LabelMap

CENTRES = 2048
"""Places that are kept of each class, to cut patches around."""

VERSION = 1
"""Raised when the same settings prepare a volume differently, so that older caches are not read."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A case as a network is given it.

    Attributes:
        image: float32 ``(C, *spatial)``.
        mask: uint8 classes ``(*spatial)``, or regions ``(K, *spatial)``; None without labels.
        reference: likewise over all of the file's voxels ``(*size)``, ``(K, *size)``.
        centres: int32 ``(P, CENTRES, 3)``: voxels of each of the P classes or regions that are there, drawn with
            replacement; the background is none of them.
        box: int64 ``(2, 3)``: first voxel of the canonical frame that the image covers, and the one after its last.
        size: int64 ``(3,)``: voxels of the canonical frame.
        spacing: float64 ``(2, 3)``: millimetres of a voxel of the canonical frame, and of the image.
    """

    image: Tensor
    mask: Tensor | None
    reference: Tensor | None
    centres: Tensor
    box: Tensor
    size: Tensor
    spacing: Tensor


@dataclass(frozen=True, kw_only=True)
class VolumePreparation:
    """Crop to the body, resample, then bring the intensities into one range.

    The image is resampled trilinearly, labels by the nearest voxel; both cover exactly what the box covers, so a voxel
    is of ``spacing`` up to the rounding of its number.

    Args:
        spacing: millimetres of a prepared voxel along right, anterior, superior; None keeps each case's own.
        window: intensities are clipped to it, in Hounsfield units for CT; None clips nothing.
        normalize: ``window`` maps the window to [0, 1]; ``zscore`` gives each channel zero mean and unit standard
            deviation inside the body and 0 outside of it.
        body_above: a voxel is of the body where a channel is greater (0 for skull-stripped MR); None: all are.
        crop: whether voxels outside the body's box are left out.

    Raises:
        ValueError: if the settings contradict each other.

    Example:
        >>> VolumePreparation(spacing=(1.5, 1.5, 2.0), window=(-175.0, 250.0), normalize="window").crop
        False
    """

    spacing: tuple[float, float, float] | None = None
    window: tuple[float, float] | None = None
    normalize: Literal["window", "zscore"] = "zscore"
    body_above: float | None = None
    crop: bool = False

    def __post_init__(self) -> None:
        """Refuse settings out of range or without effect."""
        if self.spacing is not None and not (len(self.spacing) == 3 and all(0 < x < math.inf for x in self.spacing)):
            raise ValueError(f"spacing={self.spacing}: three positive numbers of millimetres, or null")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError(f"window={self.window}: the first number must be less than the second")
        if self.normalize == "window" and self.window is None:
            raise ValueError("normalize='window' needs window=(low, high)")
        if self.crop and self.body_above is None:
            raise ValueError("crop=True has no effect with body_above=None: everything is the body then")
        if self.normalize == "window" and self.body_above is not None and not self.crop:
            raise ValueError(f"body_above={self.body_above} has no effect with normalize='window' and crop=False")

    def __call__(self, volume: Volume, label_map: LabelMap) -> Prepared:
        """Prepare one case.

        Args:
            volume: in the canonical frame.
            label_map: of its data set.

        Returns:
            See :class:`Prepared`; the same for the same volume.

        Raises:
            ValueError: if no voxel is of the body.
        """
        size, spacing = volume.geometry.size, volume.geometry.spacing
        body_S = None if self.body_above is None else (volume.image > self.body_above).any(0)
        box = _box(body_S) if self.crop and body_S is not None else [(0, length) for length in size]
        inside = tuple(slice(start, stop) for start, stop in box)
        lengths = [stop - start for start, stop in box]
        new = lengths
        if self.spacing is not None:
            triples = zip(lengths, spacing, self.spacing, strict=True)
            new = [max(round(length * old / wanted), 1) for length, old, wanted in triples]
        image = _linear(self._clipped(volume.image[(slice(None), *inside)]), new)
        body_T = None if body_S is None else nearest(body_S[inside], new)
        reference = None if volume.labels is None else label_map.encode(volume.labels)
        mask = None if volume.labels is None else label_map.encode(nearest(volume.labels[inside], new))
        actual = [length * old / found for length, old, found in zip(lengths, spacing, new, strict=True)]
        return Prepared(
            image=self._normalized(image, body_T),
            mask=mask,
            reference=reference,
            centres=torch.zeros(0, CENTRES, 3, dtype=torch.int32) if mask is None else _centres(mask, label_map),
            box=torch.tensor(box).T.contiguous(),
            size=torch.tensor(size),
            spacing=torch.tensor([spacing, actual], dtype=torch.float64),
        )

    def _clipped(self, image: Tensor) -> Tensor:
        return image if self.window is None else image.clamp(*self.window)

    def _normalized(self, image: Tensor, body_S: Tensor | None) -> Tensor:
        if self.normalize == "window":
            assert self.window is not None
            low, high = self.window
            return (image - low) / (high - low)
        inside = image.flatten(1) if body_S is None else image[:, body_S]
        if inside.shape[1] == 0:
            raise ValueError(f"no voxel is above body_above={self.body_above}")
        std, mean = torch.std_mean(inside.double(), dim=1, correction=0)
        std = torch.where(std > 0, std, 1.0)
        shape = (-1, 1, 1, 1)
        normalized = (image - mean.float().view(shape)) / std.float().view(shape)
        return normalized if body_S is None else torch.where(body_S, normalized, 0.0)


def nearest(labels: Tensor, size: list[int]) -> Tensor:
    """Resample labels by the voxel that is nearest to the centre of each new one.

    Args:
        labels: of any type, ``(*spatial)``.
        size: new number of voxels along each axis.

    Returns:
        Of the same type, ``(*size)``.
    """
    rows = [
        ((torch.arange(new) + 0.5) * (old / new)).long().clamp_(max=old - 1)
        for new, old in zip(size, labels.shape, strict=True)
    ]
    return labels[rows[0][:, None, None], rows[1][:, None], rows[2]]


def _linear(image: Tensor, size: list[int]) -> Tensor:
    if list(image.shape[1:]) == size:
        return image.contiguous()
    return functional.interpolate(image[None], size=size, mode="trilinear", align_corners=False)[0]


def _box(body_S: Tensor) -> list[tuple[int, int]]:
    if not body_S.any():
        raise ValueError("no voxel is of the body: see body_above")
    box: list[tuple[int, int]] = []
    for axis in range(3):
        there = body_S.any(dim=tuple(other for other in range(3) if other != axis)).nonzero()
        box.append((int(there[0]), int(there[-1]) + 1))
    return box


def _centres(mask: Tensor, label_map: LabelMap) -> Tensor:
    """Drawn with a fixed seed: part of what a case is."""
    generator = torch.Generator().manual_seed(0)
    regions = label_map.mode == "multilabel"
    found: list[Tensor] = []
    for index in range(0 if regions else 1, label_map.num_classes):
        voxels = ((mask[index] if regions else mask == index) > 0).nonzero().int()
        if len(voxels):
            found.append(voxels[torch.randint(len(voxels), (CENTRES,), generator=generator)])
    return torch.stack(found) if found else torch.zeros(0, CENTRES, 3, dtype=torch.int32)
