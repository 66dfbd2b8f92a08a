"""Agreement of boundaries: the normalised surface Dice.

A tolerance needs no distances: a boundary is dilated by it, and what the other boundary shares with that lies near.

Conventions for a class that is absent (``empty``): absent from one of prediction and reference, it scores 0; absent
from both, NaN by default, as in MONAI and ``surface-distance``, or 1 (``"one"``) or 0 (``"zero"``).

Outside the valid region both masks are taken as empty, as MONAI's ``ignore_index`` does, so a structure that the region
cuts has a boundary along the cut.

Shape legend: ``B`` batch, ``K`` classes, ``*spatial`` two or three axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, prod
from typing import Literal, get_args

import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.metrics.functional.bitplanes import (
    BitPlanes,
    ball_reach,
    ball_rows,
    bounding_box,
    pack_bits,
)
from neurotrain.metrics.functional.boundaries import Boundary, boundary_sizes, corner_boundary, voxel_boundary
from neurotrain.metrics.functional.labels import check_choice, check_labels, class_mask
from neurotrain.metrics.functional.nearest import nearest_distances

EmptySurface = Literal["nan", "one", "zero"]
"""Score of a class without any boundary; see the module's docstring."""

_EMPTY_VALUES = {"nan": float("nan"), "one": 1.0, "zero": 0.0}
# images of one class that are worked on together, by their voxels: what a processor's cache holds
_VOXELS_AT_ONCE = 1 << 22
# beyond this many rows of a ball, a search for the few boundary voxels that a smaller ball leaves is faster
_ROWS_AT_MOST = 1000


def normalized_surface_dice(
    preds: Tensor,
    target: Tensor,
    *,
    tolerance: float,
    spacing: Sequence[float] | None = None,
    boundary: Boundary = "surfels",
    mode: SegmentationMode = "binary",
    num_classes: int = 1,
    valid: Tensor | None = None,
    empty: EmptySurface = "nan",
) -> Tensor:
    """Share of both boundaries that lies within ``tolerance`` of the other one.

    Args:
        preds: integer or bool labels ``(B, *spatial)``, for multilabel ``(B, L, *spatial)``; 2-D or 3-D.
        target: the same shape.
        tolerance: distance in the unit of ``spacing`` (millimetres for medical volumes), at least 0.
        spacing: size of a voxel along each spatial axis; 1 when not given.
        boundary: what it consists of; see :data:`~neurotrain.metrics.functional.boundaries.Boundary`.
        mode: see :data:`neurotrain.batch.SegmentationMode`.
        num_classes: K.
        valid: bool ``(B, *spatial)``; outside it both masks are taken as empty, see the module's docstring.
        empty: score where a class is absent from both; see the module's docstring.

    Returns:
        float64 ``(B, K)`` in [0, 1]; 0 where a class is absent from one of both.

    Raises:
        ValueError: if shapes or types do not fit, a value is out of its range, or a choice is unknown.

    Reference:
        Nikolov et al., 2018 (arXiv:1809.04430), section "Surface Dice".

    Example:
        >>> target = torch.nn.functional.pad(torch.ones(1, 3, 3).long(), (1, 2, 1, 2))
        >>> normalized_surface_dice(target.roll(1, dims=2), target, tolerance=1.0).item()
        1.0
    """
    areas = surface_overlap(
        preds,
        target,
        tolerance=tolerance,
        spacing=spacing,
        boundary=boundary,
        mode=mode,
        num_classes=num_classes,
        valid=valid,
    )
    return surface_dice_from_areas(areas, empty=empty)


def surface_dice_from_areas(areas: Tensor, *, empty: EmptySurface = "nan") -> Tensor:
    """Normalised surface Dice of areas, or of sums of areas.

    Args:
        areas: floats ``(..., 2)`` of :func:`surface_overlap`.
        empty: score where there is no boundary at all.

    Returns:
        ``(...)`` in [0, 1].

    Raises:
        ValueError: if ``empty`` is unknown.
    """
    check_choice("empty", empty, get_args(EmptySurface))
    near, whole = areas.unbind(dim=-1)
    return torch.where(whole == 0, _EMPTY_VALUES[empty], near / whole)


def surface_overlap(
    preds: Tensor,
    target: Tensor,
    *,
    tolerance: float,
    spacing: Sequence[float] | None = None,
    boundary: Boundary = "surfels",
    mode: SegmentationMode = "binary",
    num_classes: int = 1,
    valid: Tensor | None = None,
) -> Tensor:
    """Areas that :func:`normalized_surface_dice` is the ratio of; arguments as there.

    Returns:
        float64 ``(B, K, 2)``: size of both boundaries within the tolerance of the other one, and their whole size.
    """
    check_tolerance(tolerance)
    steps = checked_spacing(spacing, preds.ndim - (2 if mode == "multilabel" else 1))
    check_choice("boundary", boundary, get_args(Boundary))
    overlap = torch.zeros(preds.shape[0], num_classes, 2, dtype=torch.float64, device=preds.device)
    for images, index, packed in packed_classes(preds, target, valid, mode=mode, num_classes=num_classes):
        overlap[images, index] = _overlap(packed, tolerance, steps, boundary)
    return overlap


def check_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that is no distance.

    Raises:
        ValueError: if it is negative, infinite or NaN.
    """
    if not 0 <= tolerance < inf:
        raise ValueError(f"tolerance={tolerance} must be a finite distance of at least 0")


def checked_spacing(spacing: Sequence[float] | None, ndim: int) -> tuple[float, ...]:
    """Size of a voxel along each of two or three axes.

    Args:
        spacing: as the user gave it; None for 1.
        ndim: number of spatial axes.

    Raises:
        ValueError: if there are not two or three axes, or not one positive number for each.
    """
    if ndim not in (2, 3):
        raise ValueError(f"boundaries are defined for two or three spatial axes, not {ndim}")
    steps = (1.0,) * ndim if spacing is None else tuple(float(step) for step in spacing)
    if len(steps) != ndim or not all(0 < step < inf for step in steps):
        raise ValueError(f"spacing={spacing} must be one positive number for each of {ndim} axes")
    return steps


def packed_classes(
    preds: Tensor, target: Tensor, valid: Tensor | None, *, mode: SegmentationMode, num_classes: int
) -> Iterator[tuple[slice, int, Tensor]]:
    """Masks of one class after the other, of as many images at once as are worked on well together.

    Args:
        preds: labels, as in :func:`normalized_surface_dice`.
        target: the same shape.
        valid: bool ``(B, *spatial)``, or None.
        mode: see :data:`neurotrain.batch.SegmentationMode`.
        num_classes: K.

    Yields:
        The images, the class, and uint8 ``(2, images, *spatial)`` of :func:`~.bitplanes.pack_bits`: predicted and
        wanted.

    Raises:
        ValueError: if shapes or types do not fit.
    """
    check_labels(preds, target, valid, mode=mode, num_classes=num_classes)
    spatial = preds.shape[2 if mode == "multilabel" else 1 :]
    several = max(1, _VOXELS_AT_ONCE // max(1, prod(spatial)))
    for first in range(0, preds.shape[0], several):
        images = slice(first, first + several)
        pair = [_narrow(labels[images], mode) for labels in (preds, target)]
        inside = None if valid is None else pack_bits(valid[images])
        for index in range(num_classes):
            packed = torch.stack([_packed_class(labels, index, mode) for labels in pair])
            yield images, index, packed if inside is None else packed & inside


def _narrow(labels: Tensor, mode: SegmentationMode) -> Tensor:
    """Labels as bytes where they fit, since each class reads them anew."""
    if mode != "multiclass" or labels.element_size() == 1 or not labels.numel():
        return labels
    low, high = labels.aminmax()
    return labels.to(torch.uint8) if low >= 0 and high < 256 else labels


def _packed_class(labels: Tensor, index: int, mode: SegmentationMode) -> Tensor:
    if labels.dtype == torch.bool:
        labels = labels.view(torch.uint8)  # a comparison of bools with a number would widen them
    if labels.device.type != "cpu":
        return pack_bits(class_mask(labels, index, mode=mode))
    plane, value = (labels[:, index], 1) if mode == "multilabel" else (labels, 1 if mode == "binary" else index)
    return pack_bits(torch.from_numpy(plane.numpy() == value))  # several times faster than torch's comparison


def _overlap(packed: Tensor, tolerance: float, steps: tuple[float, ...], boundary: Boundary) -> Tensor:
    """``(images, 2)`` from ``(2, images, *spatial)``."""
    images = packed.shape[1]
    packed = packed.flatten(0, 1)
    box = bounding_box(packed)
    if box is None:
        return torch.zeros(images, 2, dtype=torch.float64, device=packed.device)
    packed = packed[(slice(None), *box)]
    limits = (*packed.shape[1:-1], 8 * packed.shape[-1])
    radius = _dilated_radius(tolerance, steps, limits, device=packed.device)
    margins = [extent + 1 for extent in ball_reach(radius, steps, limits)]
    masks = BitPlanes.of(packed, margins=margins)
    edges = masks.replaced(corner_boundary(masks) if boundary == "surfels" else voxel_boundary(masks))
    near = _other_half(edges.dilated(ball_rows(radius, steps, limits)).bits)
    if radius < tolerance:
        near = near | _near_by_search(edges, near, tolerance, steps)
    sizes = boundary_sizes(masks, near, edges.bits, boundary=boundary, steps=steps)
    return sizes[:images] + sizes[images:]


def _other_half(bits: Tensor) -> Tensor:
    """What belongs to the target in the place of the prediction, and the reverse."""
    half = len(bits) // 2
    return torch.cat([bits[half:], bits[:half]])


def _dilated_radius(tolerance: float, steps: Sequence[float], limits: Sequence[int], *, device: torch.device) -> float:
    """How far to dilate: by the tolerance, unless its ball has so many rows that the rest is searched faster."""
    rows = prod(2 * extent + 1 for extent in ball_reach(tolerance, steps, limits)[:-1])
    if rows <= _ROWS_AT_MOST or device.type != "cpu":
        return tolerance
    return tolerance * (_ROWS_AT_MOST / rows) ** (1 / (len(steps) - 1))


def _near_by_search(edges: BitPlanes, near: Tensor, tolerance: float, steps: tuple[float, ...]) -> Tensor:
    """Bits of the boundary that are not near yet, but have a voxel of the other boundary within the tolerance."""
    index, points = edges.replaced(edges.bits & ~near).coordinates()
    if not len(index):
        return near
    others = edges.replaced(_other_half(edges.bits)).coordinates()[1]
    found = torch.zeros(8 * len(near), dtype=torch.bool)
    for plane in points[:, 0].unique().tolist():
        chosen = points[:, 0] == plane
        distances = nearest_distances(
            points[chosen, 1:], others[others[:, 0] == plane, 1:], steps=steps, farthest=tolerance
        )
        found[index[chosen]] = distances <= tolerance
    return pack_bits(found)
