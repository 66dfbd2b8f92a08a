"""Agreement of boundaries: the normalised surface Dice.

Shape legend: ``B`` batch, ``K`` classes, ``*spatial`` two or three axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.metrics.functional.labels import check_labels, class_mask
from neurotrain.metrics.functional.surfels import neighbour_codes, surfel_areas

# beyond this many voxels in the cube around the ball, its offsets are not even listed
_LARGEST_CUBE = 50_000
# a distance transform costs about as much for one voxel as this many looks at one offset, most of which are saved by
# an early hit
_LOOKS_PER_VOXEL = 48


def normalized_surface_dice(
    preds: Tensor,
    target: Tensor,
    *,
    tolerance: float,
    spacing: Sequence[float] | None = None,
    mode: SegmentationMode = "binary",
    num_classes: int = 1,
    valid: Tensor | None = None,
) -> Tensor:
    """Share of both boundaries that lies within ``tolerance`` of the other one.

    Args:
        preds: integer or bool labels ``(B, *spatial)``, for multilabel ``(B, L, *spatial)``; 2-D or 3-D.
        target: the same shape.
        tolerance: distance in the unit of ``spacing`` (millimetres for medical volumes), at least 0.
        spacing: size of a voxel along each spatial axis; 1 when not given.
        mode: see :data:`neurotrain.batch.SegmentationMode`.
        num_classes: K.
        valid: bool ``(B, *spatial)``. Outside it both masks are taken as empty (as MONAI's ``ignore_index`` does), so a
            structure that the valid region cuts has a boundary along the cut.

    Returns:
        float64 ``(B, K)`` in [0, 1]; NaN where a class is absent from both, 0 where it is absent from one.

    Raises:
        ValueError: if shapes or types do not fit, there are not two or three spatial axes, ``tolerance`` is negative or
            not finite, or ``spacing`` is not one positive number for each axis.

    Reference:
        Nikolov et al., 2018 (arXiv:1809.04430), section "Surface Dice"; surfel weights as in its reference code.

    Example:
        >>> target = torch.zeros(1, 6, 6, dtype=torch.long)
        >>> target[0, 1:4, 1:4] = 1
        >>> normalized_surface_dice(target.roll(1, dims=2), target, tolerance=1.0).item()
        1.0
    """
    areas = surface_overlap(
        preds, target, tolerance=tolerance, spacing=spacing, mode=mode, num_classes=num_classes, valid=valid
    )
    return surface_dice_from_areas(areas)


def surface_dice_from_areas(areas: Tensor) -> Tensor:
    """Normalised surface Dice of areas, or of sums of areas.

    Args:
        areas: floats ``(..., 2)`` of :func:`surface_overlap`.

    Returns:
        ``(...)``; NaN where there is no boundary at all.
    """
    return areas[..., 0] / areas[..., 1]


def surface_overlap(
    preds: Tensor,
    target: Tensor,
    *,
    tolerance: float,
    spacing: Sequence[float] | None = None,
    mode: SegmentationMode = "binary",
    num_classes: int = 1,
    valid: Tensor | None = None,
) -> Tensor:
    """Areas that :func:`normalized_surface_dice` is the ratio of; arguments as there.

    Returns:
        float64 ``(B, K, 2)``: area of both boundaries within the tolerance of the other one, and their whole area.
    """
    check_labels(preds, target, valid, mode=mode, num_classes=num_classes)
    check_tolerance(tolerance)
    steps = _checked_spacing(spacing, preds.ndim - (2 if mode == "multilabel" else 1))
    sizes = surfel_areas(steps).to(preds.device)
    overlap = sizes.new_zeros(preds.shape[0], num_classes, 2)
    for index in range(num_classes):
        predicted = class_mask(preds, index, mode=mode)
        wanted = class_mask(target, index, mode=mode)
        if valid is not None:
            predicted, wanted = predicted & valid, wanted & valid
        for image in range(preds.shape[0]):
            overlap[image, index] = _overlap(predicted[image], wanted[image], tolerance, steps, sizes)
    return overlap


def check_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that is no distance.

    Raises:
        ValueError: if it is negative, infinite or NaN.
    """
    if not 0 <= tolerance < inf:
        raise ValueError(f"tolerance={tolerance} must be a finite distance of at least 0")


def _checked_spacing(spacing: Sequence[float] | None, ndim: int) -> tuple[float, ...]:
    if ndim not in (2, 3):
        raise ValueError(f"boundaries are defined for two or three spatial axes, not {ndim}")
    steps = (1.0,) * ndim if spacing is None else tuple(float(step) for step in spacing)
    if len(steps) != ndim or not all(0 < step < inf for step in steps):
        raise ValueError(f"spacing={spacing} must be one positive number for each of {ndim} axes")
    return steps


def _overlap(predicted: Tensor, wanted: Tensor, tolerance: float, steps: tuple[float, ...], sizes: Tensor) -> Tensor:
    """``(2,)``: area within the tolerance and whole area of two masks' boundaries."""
    box = _bounding_box(predicted | wanted)
    if box is None:
        return sizes.new_zeros(2)
    codes = [neighbour_codes(mask[box]) for mask in (predicted, wanted)]
    borders = [(code > 0) & (code < len(sizes) - 1) for code in codes]
    areas = [sizes[code[border].long()] for code, border in zip(codes, borders, strict=True)]
    whole = areas[0].sum() + areas[1].sum()
    if not (len(areas[0]) and len(areas[1])):
        return torch.stack([torch.zeros_like(whole), whole])
    near = _near_each_other(borders[0], borders[1], tolerance, steps)
    return torch.stack([areas[0][near[0]].sum() + areas[1][near[1]].sum(), whole])


def _bounding_box(mask: Tensor) -> tuple[slice, ...] | None:
    """Smallest box around the True voxels; None where there is none."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        line = mask
        for other in reversed([other for other in range(mask.ndim) if other != axis]):
            line = line.any(dim=other)
        inside = line.nonzero()
        if not len(inside):
            return None
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def _near_each_other(
    first: Tensor, second: Tensor, tolerance: float, steps: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """For every boundary point of each mask, row-major: is one of the other within the tolerance?"""
    radius = [int(min(tolerance // step + 1, length - 1)) for step, length in zip(steps, first.shape, strict=True)]
    cube = 1
    for reach in radius:
        cube *= 2 * reach + 1
    if cube <= _LARGEST_CUBE:
        offsets = _ball(radius, tolerance, steps)
        points = int(first.sum() + second.sum())
        if len(offsets) * points <= _LOOKS_PER_VOXEL * 2 * first.numel():
            offsets = offsets.to(first.device)
            return _near_by_offsets(first, second, offsets), _near_by_offsets(second, first, offsets)
    return _near_by_transform(first, second, tolerance, steps), _near_by_transform(second, first, tolerance, steps)


def _ball(radius: Sequence[int], tolerance: float, steps: tuple[float, ...]) -> Tensor:
    """int64 ``(offsets, axes)`` within the tolerance, the nearest first.

    Distances are rounded as the distance transform rounds them (squares summed from the first axis on, then the root),
    so that a point exactly at the tolerance is judged alike on both ways.
    """
    grid = torch.cartesian_prod(*(torch.arange(-reach, reach + 1) for reach in radius)).reshape(-1, len(radius))
    squared = torch.zeros(len(grid), dtype=torch.float64)
    for axis, step in enumerate(steps):
        squared = squared + (grid[:, axis].double() * step) ** 2
    distance, order = squared.sqrt().sort(stable=True)
    return grid[order[distance <= tolerance]]


def _near_by_offsets(points: Tensor, other: Tensor, offsets: Tensor) -> Tensor:
    """Looks from every point at each offset, until one hits: good predictions are done after a few."""
    reach = [int(extent) for extent in offsets.abs().amax(dim=0)]
    padding = [extent for extent in reversed(reach) for _ in range(2)]
    padded = torch.nn.functional.pad(other.to(torch.uint8), padding).bool()
    strides = torch.tensor(padded.stride(), device=points.device)
    here = ((points.nonzero() + torch.tensor(reach, device=points.device)) * strides).sum(dim=1)
    waiting = torch.arange(len(here), device=points.device)
    near = torch.zeros_like(here, dtype=torch.bool)
    filled = padded.flatten()
    for jump in (offsets * strides).sum(dim=1).tolist():
        hit = filled[here + jump]
        near[waiting[hit]] = True
        here, waiting = here[~hit], waiting[~hit]
        if not len(here):
            break
    return near


def _near_by_transform(points: Tensor, other: Tensor, tolerance: float, steps: tuple[float, ...]) -> Tensor:
    """Exact Euclidean distances from every voxel, for a tolerance whose ball has too many offsets."""
    from scipy.ndimage import distance_transform_edt

    distance = torch.as_tensor(distance_transform_edt(~other.cpu().numpy(), sampling=steps))
    return distance.to(points.device)[points] <= tolerance
