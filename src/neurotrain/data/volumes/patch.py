"""Random patches of a memory-mapped volume, balanced by class, all of their geometry in one resampling."""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn import functional

from neurotrain.batch import SegmentationSample
from neurotrain.data.transforms.base import Transform
from neurotrain.data.transforms.draws import check_probability, happens


class VolumeCase(TypedDict):
    """A whole prepared case, before a patch is cut out of it.

    Attributes:
        image: float32 ``(C, *spatial)``.
        mask: uint8 classes ``(*spatial)``, or regions ``(K, *spatial)``.
        centres: int32 ``(P, N, 3)``: voxels of each class that is there.
        spacing: float64 ``(3,)``: millimetres of a voxel.
        id: of the case.
        source: name of the data set.
    """

    image: Tensor
    mask: Tensor
    centres: Tensor
    spacing: Tensor
    id: str
    source: str


class RandomVolumePatch(Transform):
    """Cuts a patch out of a case; of the case no more is read than lies under it.

    A ``foreground_share`` of the patches lies around a voxel of a class (region) that is drawn evenly among those of
    the case, so that small organs are seen as often as large ones; the others lie anywhere, evenly. A patch is moved
    into the volume where it would stick out, and what is missing of a smaller volume is 0, label 0 and not valid.

    With ``affine_probability`` it is sampled through a rotation about each axis and a scaling, in millimetres, so that
    anisotropic voxels do not shear (trilinear; labels by the nearest voxel).

    Args:
        size: voxels of a patch along each axis.
        foreground_share: in [0, 1].
        affine_probability: share of patches that are resampled.
        rotate: largest angle about each axis, in degrees; uniform in both directions.
        scale: range of the magnification, drawn log-uniformly; above 1 makes things larger.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> case = VolumeCase(
        ...     image=torch.rand(1, 20, 20, 10), mask=torch.ones(20, 20, 10, dtype=torch.uint8),
        ...     centres=torch.zeros(1, 4, 3, dtype=torch.int32), spacing=torch.ones(3), id="a", source="toy",
        ... )
        >>> patch = RandomVolumePatch(size=(8, 8, 12))(case, torch.Generator())
        >>> patch["image"].shape, patch["mask"].dtype, int(patch["valid"].sum())
        (torch.Size([1, 8, 8, 12]), torch.int64, 640)
    """

    def __init__(
        self,
        *,
        size: tuple[int, int, int] = (96, 96, 96),
        foreground_share: float = 0.67,
        affine_probability: float = 0.2,
        rotate: float = 15.0,
        scale: tuple[float, float] = (0.9, 1.1),
    ) -> None:
        if len(size) != 3 or min(size) < 1:
            raise ValueError(f"size={size}: three numbers of at least 1 voxel")
        if not 0 <= rotate <= 180 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f"rotate={rotate}, scale={scale}: need an angle in [0, 180] and 0 < low <= high")
        self._size = tuple(size)
        self._foreground_share = check_probability("foreground_share", foreground_share)
        self._affine_probability = check_probability("affine_probability", affine_probability)
        self._rotate = math.radians(rotate)
        self._log_scale = (math.log(scale[0]), math.log(scale[1]))

    def __call__(self, sample: VolumeCase, generator: torch.Generator) -> SegmentationSample:
        """Draw a patch."""
        centre = self._centre(sample, generator)
        if happens(self._affine_probability, generator):
            return _resampled(sample, centre, self._matrix(sample["spacing"], generator), self._size)
        return _cropped(sample, centre, self._size)

    def _centre(self, sample: VolumeCase, generator: torch.Generator) -> list[int]:
        centres = sample["centres"]
        if happens(self._foreground_share, generator) and len(centres):
            group = int(torch.randint(centres.shape[0], (), generator=generator))
            place = int(torch.randint(centres.shape[1], (), generator=generator))
            return centres[group, place].tolist()
        centre: list[int] = []
        for length, edge in zip(sample["image"].shape[1:], self._size, strict=True):
            centre.append(edge // 2 + int(torch.randint(max(length - edge, 0) + 1, (), generator=generator)))
        return centre

    def _matrix(self, spacing: Tensor, generator: torch.Generator) -> Tensor:
        """From offsets in the patch to offsets in the volume, both in voxels; float32 ``(3, 3)``."""
        draws = torch.rand(4, generator=generator).tolist()
        turn = torch.eye(3, dtype=torch.float64)
        for axis, draw in enumerate(draws[:3]):
            angle = (2 * draw - 1) * self._rotate
            one, other = (axis + 1) % 3, (axis + 2) % 3
            step = torch.eye(3, dtype=torch.float64)
            step[one, one] = step[other, other] = math.cos(angle)
            step[one, other], step[other, one] = -math.sin(angle), math.sin(angle)
            turn = step @ turn
        low, high = self._log_scale
        size = math.exp(low + (high - low) * draws[3])
        return (turn * spacing[None, :] / spacing[:, None] / size).float()


def _starts(sample: VolumeCase, centre: list[int], size: tuple[int, ...]) -> list[int]:
    """First voxel of a patch: inside where it fits, else so far before the volume that this lies in its middle."""
    starts: list[int] = []
    for middle, length, edge in zip(centre, sample["image"].shape[1:], size, strict=True):
        inside = min(max(middle - edge // 2, 0), length - edge)
        starts.append(inside if length >= edge else -((edge - length) // 2))
    return starts


def _cropped(sample: VolumeCase, centre: list[int], size: tuple[int, ...]) -> SegmentationSample:
    windows: list[slice] = []
    widths: list[int] = []
    for start, length, edge in zip(_starts(sample, centre, size), sample["image"].shape[1:], size, strict=True):
        windows.append(slice(max(start, 0), min(start + edge, length)))
        widths = [max(-start, 0), max(start + edge - length, 0), *widths]  # F.pad counts axes from the last one
    image, mask = (part[(..., *windows)] for part in (sample["image"], sample["mask"]))
    valid = torch.ones(image.shape[1:], dtype=torch.bool)
    parts = [functional.pad(part, widths) if any(widths) else part.contiguous() for part in (image, mask, valid)]
    return _sample(sample, *parts)


def _resampled(sample: VolumeCase, centre: list[int], matrix: Tensor, size: tuple[int, ...]) -> SegmentationSample:
    shape = tuple(sample["image"].shape[1:])
    middle = [start + edge // 2 for start, edge in zip(_starts(sample, centre, size), size, strict=True)]
    offsets = torch.stack(
        torch.meshgrid(*(torch.arange(edge, dtype=torch.float32) - edge // 2 for edge in size), indexing="ij")
    )
    places = torch.einsum("ab,bxyz->axyz", matrix, offsets) + torch.tensor(middle).view(3, 1, 1, 1)
    # Only the part of the volume under the patch, with the neighbours that linear weights reach.
    low = [math.floor(value) for value in places.flatten(1).amin(1).tolist()]
    high = [math.floor(value) + 2 for value in places.flatten(1).amax(1).tolist()]
    starts = [min(max(first, 0), length - 1) for first, length in zip(low, shape, strict=True)]
    stops = [max(min(last, length), start + 1) for last, length, start in zip(high, shape, starts, strict=True)]
    window = tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))
    # Voxel i lies at (2 i + 1) / n - 1 in grid_sample's coordinates, whose axes are counted from the last.
    grid = [(places[a] - (starts[a] - 0.5)) * (2 / (stops[a] - starts[a])) - 1 for a in (2, 1, 0)]
    inside_image = sample["image"][(slice(None), *window)].contiguous()
    image = functional.grid_sample(inside_image[None], torch.stack(grid, dim=-1)[None], align_corners=False)[0]
    indices = torch.floor(places + 0.5).long()
    limits = torch.tensor(shape).view(3, 1, 1, 1)
    valid = ((indices >= 0) & (indices < limits)).all(0)
    x, y, z = indices.clamp_(min=0).minimum(limits - 1)
    mask = sample["mask"][..., x, y, z].masked_fill_(~valid, 0)
    return _sample(sample, image, mask, valid)


def _sample(sample: VolumeCase, image: Tensor, mask: Tensor, valid: Tensor) -> SegmentationSample:
    return {"image": image, "mask": mask.long(), "valid": valid, "id": sample["id"], "source": sample["source"]}
