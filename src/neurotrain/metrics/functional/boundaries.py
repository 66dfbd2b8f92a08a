"""Boundaries of packed masks, and how large they are.

Two definitions are in use, and their values differ:

- ``"surfels"``: boundary elements between voxels, at the corners where eight (in 2-D four) voxels meet, weighted by
  their area (length); DeepMind's ``surface-distance``, MONAI with ``use_subvoxels=True``.
- ``"voxels"``: voxels of the mask with a face neighbour outside, each counted once; MONAI by default, nnU-Net, medpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from neurotrain.metrics.functional.bitplanes import BitPlanes, after, before, voxel_after, voxel_before
from neurotrain.metrics.functional.surfels import surfel_areas

Boundary = Literal["surfels", "voxels"]
"""What a boundary consists of; see the module's docstring."""

# byte j of a word becomes bit j of each byte: three rounds that swap blocks of 1, 2 and 4 bits across the diagonal
_TRANSPOSE = ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0))


def corner_boundary(masks: BitPlanes) -> Tensor:
    """Corners whose voxels are neither all inside nor all outside.

    Returns:
        Bits in the layout of ``masks``; the corner of a voxel is the one before it along every axis.
    """
    earlier = voxel_before(masks.bits)
    some, every = masks.bits | earlier, masks.bits & earlier
    for stride in masks.strides:
        some = some | before(some, stride)
        every = every & before(every, stride)
    return some ^ every


def voxel_boundary(masks: BitPlanes) -> Tensor:
    """Voxels of the masks with a face neighbour outside, beyond the border of the array included."""
    bits = masks.bits
    inner = bits & voxel_before(bits) & voxel_after(bits)
    for stride in masks.strides:
        inner = inner & before(bits, stride) & after(bits, stride)
    return bits ^ inner


def surfel_codes(masks: BitPlanes, blocks: Tensor) -> Tensor:
    """Neighbour codes of the corners in some bytes, as :mod:`~neurotrain.metrics.functional.surfels` defines them.

    Args:
        masks: two or three spatial axes, margin at least 1.
        blocks: int64 ``(n,)``, indices of bytes of ``masks.bits``.

    Returns:
        uint8 ``(n, 8)``.
    """
    offsets = [0]
    for stride in reversed(masks.strides):  # the axis before the last has the lower bit
        offsets += [offset + stride for offset in offsets]
    sources = (masks.bits, voxel_before(masks.bits))
    guard = max(offsets)
    padded = [torch.cat([bits.new_zeros(guard), bits]) for bits in sources]
    columns = [bits[guard - offset :].index_select(0, blocks) for offset in offsets for bits in padded]
    columns += [torch.zeros_like(columns[0])] * (8 - len(columns))
    words = torch.stack(columns, dim=1).view(torch.int64).flatten()
    for shift, swapped in _TRANSPOSE:
        difference = ((words >> shift) ^ words) & swapped
        words = words ^ difference ^ (difference << shift)
    return words.unsqueeze(1).view(torch.uint8)


def boundary_sizes(
    masks: BitPlanes, near: Tensor, edges: Tensor, *, boundary: Boundary, steps: Sequence[float]
) -> Tensor:
    """Size of every mask's boundary.

    Args:
        masks: with a margin of at least 1.
        near: bits that select a part of the boundary.
        edges: bits of the boundary.
        boundary: what it consists of.
        steps: size of a voxel along each axis.

    Returns:
        float64 ``(M, 2)``: of the selected part and of the whole; numbers of voxels, lengths or areas.
    """
    if boundary == "voxels":
        pair = [masks.replaced(part).counts() for part in (edges & near, edges)]
        return torch.stack(pair, dim=1).double()
    return _contour_lengths(masks, near, steps) if len(steps) == 2 else _surface_areas(masks, near, edges, steps)


def _contour_lengths(masks: BitPlanes, near: Tensor, steps: Sequence[float]) -> Tensor:
    """Counts the corners of each length; the cases are those of marching squares."""
    corner, straight_second, straight_first, crossing = surfel_areas(steps)[[1, 3, 5, 6]].tolist()
    stride = masks.strides[0]
    row = masks.bits ^ voxel_before(masks.bits)  # whether the two voxels of a row differ
    earlier_row = before(row, stride)
    column = masks.bits ^ before(masks.bits, stride)
    both = row & earlier_row
    parts = (
        (corner, row ^ earlier_row),
        (crossing, both & column),
        (straight_first, both & ~column),
        (straight_second, column & ~(row | earlier_row)),
    )
    lengths = torch.zeros(len(masks.bits) // masks.size, 2, dtype=torch.float64, device=masks.bits.device)
    for length, part in parts:
        pair = [masks.replaced(chosen).counts() for chosen in (part & near, part)]
        lengths += length * torch.stack(pair, dim=1).double()
    return lengths


def _surface_areas(masks: BitPlanes, near: Tensor, edges: Tensor, steps: Sequence[float]) -> Tensor:
    """Counts the corners of each code, in the bytes that hold a boundary."""
    blocks = edges.nonzero().flatten()
    codes = surfel_codes(masks, blocks)
    # a corner that is not selected gets code 0, which has no area
    chosen = codes.view(torch.int64) & _spread(codes.device).index_select(0, near[blocks].int()).unsqueeze(1)
    number = len(masks.bits) // masks.size
    ends = torch.searchsorted(blocks, masks.size * torch.arange(1, number + 1, device=blocks.device))
    lengths = ends.diff(prepend=ends.new_zeros(1)).tolist()
    histograms = [
        torch.stack([torch.bincount(part.flatten(), minlength=256) for part in pair])
        for pair in zip(chosen.view(torch.uint8).split(lengths), codes.split(lengths), strict=True)
    ]
    return torch.stack(histograms).double() @ surfel_areas(steps).to(codes.device)


def _spread(device: torch.device) -> Tensor:
    """int64 ``(256,)``: for every byte eight bytes, 255 where its bit is set and 0 elsewhere."""
    places = torch.arange(8, dtype=torch.uint8, device=device)
    bits = (torch.arange(256, device=device).to(torch.uint8).unsqueeze(1) >> places) & 1
    return (bits * 255).view(torch.int64).flatten()
