"""Distances between boundaries: Hausdorff, its percentiles, and the average symmetric surface distance.

Conventions for a class that is absent, where libraries differ:

- absent from prediction and reference: NaN (``empty="nan"``, the default, as in MONAI), to be skipped by a mean; or 0
  (``"zero"``, as BraTS scores it). ``surface-distance`` says infinity.
- absent from one of both: ``missing``, infinity by default (as in MONAI and ``surface-distance``). Challenges put the
  greatest possible distance there (BraTS 374), nnU-Net and medpy refuse: ``missing=float("nan")`` leaves such a class
  out.

With ``boundary="surfels"`` a percentile is one of the area: the least distance within which that share of the boundary
lies. (Where a distance ends exactly at the share, rounding makes ``surface-distance`` take the next one now and then;
here it is reached.) With ``"voxels"`` it is interpolated between voxels, as MONAI does. Of both directions the greater
percentile counts.

Shape legend: ``B`` batch, ``K`` classes, ``*spatial`` two or three axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.metrics.functional.bitplanes import BitPlanes, bounding_box, unpack_bits
from neurotrain.metrics.functional.boundaries import Boundary, corner_boundary, surfel_codes, voxel_boundary
from neurotrain.metrics.functional.labels import check_choice
from neurotrain.metrics.functional.nearest import nearest_distances
from neurotrain.metrics.functional.surface import checked_spacing, packed_classes
from neurotrain.metrics.functional.surfels import surfel_areas

EmptyDistance = Literal["nan", "zero"]
"""Distance of a class that is absent from prediction and reference."""

Direction = Literal["both", "preds_to_target", "target_to_preds"]
"""Whose boundary looks for the nearest point of the other one."""

_EMPTY_VALUES = {"nan": float("nan"), "zero": 0.0}
# an area that lacks less than this share of a percentile has reached it: what summing in floats may lose
_ROUNDING = 1e-12


class _Problem(NamedTuple):
    """What is measured between which boundaries, as the user gave it."""

    spacing: Sequence[float] | None
    boundary: Boundary
    direction: Direction
    mode: SegmentationMode
    num_classes: int
    empty: EmptyDistance
    missing: float


@dataclass(frozen=True)
class _Sided:
    """One boundary's distances to the other one, ascending.

    Attributes:
        distances: float64 ``(n,)``.
        sizes: float64 ``(n,)``: area (length) of each boundary element, or 1.
    """

    distances: Tensor
    sizes: Tensor


def hausdorff_distance(
    preds: Tensor,
    target: Tensor,
    *,
    percentile: float = 100.0,
    spacing: Sequence[float] | None = None,
    boundary: Boundary = "surfels",
    direction: Direction = "both",
    mode: SegmentationMode = "binary",
    num_classes: int = 1,
    valid: Tensor | None = None,
    empty: EmptyDistance = "nan",
    missing: float = inf,
) -> Tensor:
    """Greatest distance from one boundary to the other, or a percentile of the distances as the module defines it.

    Args:
        preds: integer or bool labels ``(B, *spatial)``, for multilabel ``(B, L, *spatial)``; 2-D or 3-D.
        target: the same shape.
        percentile: in (0, 100]; 100 is the Hausdorff distance itself, 95 what is called HD95.
        spacing: size of a voxel along each spatial axis; 1 when not given.
        boundary: of what the boundary consists; see :data:`~neurotrain.metrics.functional.boundaries.Boundary`.
        direction: see :data:`Direction`.
        mode: see :data:`neurotrain.batch.SegmentationMode`.
        num_classes: K.
        valid: bool ``(B, *spatial)``; outside it both masks are taken as empty.
        empty: distance where a class is absent from both.
        missing: distance where it is absent from one of both.

    Returns:
        float64 ``(B, K)`` in the unit of ``spacing``.

    Raises:
        ValueError: if shapes or types do not fit, or a value is out of its range.

    Reference:
        Huttenlocher et al., "Comparing images using the Hausdorff distance", 1993.

    Example:
        >>> target = torch.zeros(1, 6, 6, dtype=torch.long)
        >>> target[0, 1:4, 1:4] = 1
        >>> hausdorff_distance(target.roll(2, dims=2), target).item()
        2.0
    """
    check_percentile(percentile)
    at = _area_percentile if boundary == "surfels" else _voxel_percentile
    greatest = partial(_greatest, at, percentile / 100)
    problem = _Problem(spacing, boundary, direction, mode, num_classes, empty, missing)
    return _measure(greatest, preds, target, valid, problem)


def average_surface_distance(
    preds: Tensor,
    target: Tensor,
    *,
    spacing: Sequence[float] | None = None,
    boundary: Boundary = "surfels",
    direction: Direction = "both",
    mode: SegmentationMode = "binary",
    num_classes: int = 1,
    valid: Tensor | None = None,
    empty: EmptyDistance = "nan",
    missing: float = inf,
) -> Tensor:
    """Mean distance between the boundaries; with both directions the average symmetric surface distance (ASSD).

    The mean is over the elements of both boundaries together, weighted by their area with ``boundary="surfels"``.

    Arguments as :func:`hausdorff_distance`; ``surface-distance`` returns the two single directions.

    Returns:
        float64 ``(B, K)`` in the unit of ``spacing``.

    Raises:
        ValueError: if shapes or types do not fit, or a value is out of its range.

    Reference:
        ``surface-distance``'s ``compute_average_surface_distance``, MONAI's ``compute_average_surface_distance``.

    Example:
        >>> target = torch.zeros(1, 5, 5, dtype=torch.long)
        >>> target[0, 2] = 1
        >>> average_surface_distance(target.roll(1, dims=1), target, boundary="voxels").item()
        1.0
    """
    problem = _Problem(spacing, boundary, direction, mode, num_classes, empty, missing)
    return _measure(_mean, preds, target, valid, problem)


def check_percentile(percentile: float) -> None:
    """Refuse what is no percentile.

    Raises:
        ValueError: if it is not greater than 0 and at most 100.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile={percentile} must be greater than 0 and at most 100")


def _greatest(at: Callable[[_Sided, float], Tensor], share: float, sides: Sequence[_Sided]) -> Tensor:
    return torch.stack([at(side, share) for side in sides]).amax()


def _mean(sides: Sequence[_Sided]) -> Tensor:
    weighted = torch.stack([(side.distances * side.sizes).sum() for side in sides]).sum()
    return weighted / torch.stack([side.sizes.sum() for side in sides]).sum()


def _area_percentile(side: _Sided, share: float) -> Tensor:
    """Least distance within which the share of the area lies."""
    covered = side.sizes.cumsum(dim=0)
    index = int(torch.searchsorted(covered, share * covered[-1:] * (1 - _ROUNDING)))
    return side.distances[index]


def _voxel_percentile(side: _Sided, share: float) -> Tensor:
    """Percentile with linear interpolation; ``torch.quantile`` refuses more than 16 million values."""
    place = share * (len(side.distances) - 1)
    low = int(place)
    high = min(low + 1, len(side.distances) - 1)
    return torch.lerp(side.distances[low], side.distances[high], place - low)


def _measure(
    summary: Callable[[Sequence[_Sided]], Tensor], preds: Tensor, target: Tensor, valid: Tensor | None, what: _Problem
) -> Tensor:
    """``(B, K)``: summary of the distances of every image and class."""
    steps = checked_spacing(what.spacing, preds.ndim - (2 if what.mode == "multilabel" else 1))
    check_choice("boundary", what.boundary, get_args(Boundary))
    check_choice("direction", what.direction, get_args(Direction))
    check_choice("empty", what.empty, get_args(EmptyDistance))
    classes = packed_classes(preds, target, valid, mode=what.mode, num_classes=what.num_classes)
    shape = (preds.shape[0], what.num_classes)
    measured = torch.full(shape, what.missing, dtype=torch.float64, device=preds.device)
    for images, index, packed in classes:
        for image in range(packed.shape[1]):
            present = int((packed[:, image].flatten(1) != 0).any(dim=1).sum())
            if present == 2:
                sides = _sides(packed[:, image], steps, what.boundary, what.direction)
                measured[images.start + image, index] = summary(sides)
            elif not present:
                measured[images.start + image, index] = _EMPTY_VALUES[what.empty]
    return measured


def _sides(pair: Tensor, steps: tuple[float, ...], boundary: Boundary, direction: Direction) -> list[_Sided]:
    """Distances of two packed masks' boundaries, neither of them empty."""
    box = bounding_box(pair)
    assert box is not None
    masks = BitPlanes.of(pair[(slice(None), *box)], margins=[1] * len(steps))
    edges = masks.replaced(corner_boundary(masks) if boundary == "surfels" else voxel_boundary(masks))
    index, points = edges.coordinates()
    half = len(edges.bits) // 2
    shared = unpack_bits(edges.bits[:half] & edges.bits[half:])[index % (8 * half)]
    sizes = _sizes(masks, edges, steps) if boundary == "surfels" else torch.ones_like(points[:, 0]).double()
    first = points[:, 0] == 0
    chosen = {"preds_to_target": [first], "target_to_preds": [~first], "both": [first, ~first]}[direction]
    sides: list[_Sided] = []
    for side in chosen:
        distances = torch.zeros(int(side.sum()), dtype=torch.float64, device=points.device)
        # what both boundaries share, most of a good prediction's, needs no search
        distances[~shared[side]] = nearest_distances(points[side & ~shared, 1:], points[~side, 1:], steps=steps)
        distances, order = distances.sort()
        sides.append(_Sided(distances, sizes[side][order]))
    return sides


def _sizes(masks: BitPlanes, edges: BitPlanes, steps: tuple[float, ...]) -> Tensor:
    """Area (length) of every corner of the boundary, in the order of ``edges.coordinates()``."""
    blocks = edges.bits.nonzero().flatten()
    codes = surfel_codes(masks, blocks)[unpack_bits(edges.bits[blocks].unsqueeze(1))]
    return surfel_areas(steps).to(codes.device)[codes.long()]
