"""Binary masks with eight neighbouring voxels in one byte: morphology at an eighth of the memory traffic and less.

All masks of a batch lie in one flat array with empty margins between rows, slices and masks, so that a neighbour is at
one fixed distance everywhere, and a shift, a dilation or an erosion is a handful of bitwise operations on long slices.

Shape legend: ``M`` masks, ``*spatial`` two or three axes; bit ``i`` of a byte is the voxel ``8 * byte + i`` of its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

_WORD = 8  # bytes
# the product with it gathers the lowest bits of eight bytes in the highest byte
_GATHER_BITS = 0x0102040810204080

Rows = Mapping[int, Sequence[tuple[int, ...]]]
"""A ball as runs: how far it reaches along the last axis, and at which offsets of the other axes."""


def pack_bits(masks: Tensor) -> Tensor:
    """Eight voxels of the last axis in one byte.

    Args:
        masks: bool ``(*any, X)``.

    Returns:
        uint8 ``(*any, ceil(X / 8))``; what is missing to a whole byte is 0.

    Example:
        >>> pack_bits(torch.tensor([[True, False, False, True]])).tolist()
        [[9]]
    """
    if masks.device.type != "cpu":
        return _pack_by_product(masks)
    import numpy as np

    return torch.from_numpy(np.packbits(masks.numpy(), axis=-1, bitorder="little"))


def _pack_by_product(masks: Tensor) -> Tensor:
    """As :func:`pack_bits`, on any device."""
    missing = -masks.shape[-1] % 8
    voxels = torch.nn.functional.pad(masks.to(torch.uint8), (0, missing)).contiguous()
    return ((voxels.view(torch.int64) * _GATHER_BITS) >> 56).to(torch.uint8)


def unpack_bits(packed: Tensor) -> Tensor:
    """Inverse of :func:`pack_bits`: bool ``(*any, 8 * bytes)``."""
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> places) & 1).bool().flatten(-2)


def bounding_box(packed: Tensor) -> tuple[slice, ...] | None:
    """Smallest box around everything that is set in any mask.

    Args:
        packed: uint8 ``(M, *spatial)`` of :func:`pack_bits`.

    Returns:
        A slice for each spatial axis, in bytes along the last one; None where nothing is set.
    """
    filled = packed.amax(dim=0)
    lines = [filled.flatten(0, -2).amax(dim=0)]
    rows = (filled != 0).any(dim=-1)
    lines += [rows if rows.ndim == 1 else rows.any(dim=1 - axis) for axis in range(rows.ndim)]
    box: list[slice] = []
    for line in (*lines[1:], lines[0]):
        inside = line.nonzero()
        if not len(inside):
            return None
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


@dataclass(frozen=True)
class BitPlanes:
    """Masks as one flat array of bytes with margins.

    Attributes:
        bits: uint8 ``(M * bytes of a mask,)``.
        shape: of a mask with its margins, in bytes along the last axis.
    """

    bits: Tensor
    shape: tuple[int, ...]

    @classmethod
    def of(cls, packed: Tensor, *, margins: Sequence[int]) -> BitPlanes:
        """Lay packed masks out with empty margins behind each axis, which serve as those in front of the next row too.

        Args:
            packed: uint8 ``(M, *spatial)`` of :func:`pack_bits`.
            margins: empty voxels for each spatial axis. A shift by at most as many along each axis meets no other mask
                and no other row.
        """
        *rows, width = (size + margin for size, margin in zip(packed.shape[1:], margins, strict=True))
        width = packed.shape[-1] + -(-margins[-1] // 8)
        while prod(rows) * width % _WORD:  # whole words, for counting
            rows[-1] += 1
        planes = packed.new_zeros(packed.shape[0], *rows, width)
        planes[(slice(None), *(slice(size) for size in packed.shape[1:]))] = packed
        return cls(planes.flatten(), (*rows, width))

    @property
    def size(self) -> int:
        """Bytes of a mask."""
        return prod(self.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from a voxel to the next one along each axis but the last."""
        return tuple(prod(self.shape[axis + 1 :]) for axis in range(len(self.shape) - 1))

    def replaced(self, bits: Tensor) -> BitPlanes:
        """Other bits in the same layout."""
        return BitPlanes(bits, self.shape)

    def counts(self) -> Tensor:
        """How many voxels of each mask are set, int64 ``(M,)``."""
        words = self.bits.view(torch.int64)
        ones = _ones_by_numpy(words) if words.device.type == "cpu" else _ones_by_sums(words)
        return ones.reshape(-1, self.size // _WORD).sum(dim=1, dtype=torch.int64)

    def coordinates(self) -> tuple[Tensor, Tensor]:
        """Where voxels are set.

        Returns:
            int64 indices of all set voxels in ``unpack_bits(self.bits)``, ascending, and int64 ``(n, 1 + axes)``: mask
            and coordinates of each.
        """
        blocks = self.bits.nonzero().flatten()
        places = 8 * blocks.unsqueeze(1) + torch.arange(8, device=blocks.device)
        index = places[unpack_bits(self.bits[blocks].unsqueeze(1))]
        parts: list[Tensor] = []
        rest = index
        for size in (8 * self.shape[-1], *reversed(self.shape[:-1])):
            parts.append(rest % size)
            rest = rest // size
        return index, torch.stack([rest, *reversed(parts)], dim=1)

    def dilated(self, ball: Rows) -> BitPlanes:
        """Every voxel that has a set one at one of the ball's offsets.

        Args:
            ball: no offset beyond the margins.
        """
        near = torch.zeros_like(self.bits)
        strides = self.strides
        run, reach = self.bits, 0
        for goal in sorted(ball):
            run, reach = _widened(run, reach, goal), goal
            for row in ball[goal]:
                offset = sum(part * stride for part, stride in zip(row, strides, strict=True))
                _merge(near, run, offset)
        return self.replaced(near)


def before(bits: Tensor, offset: int) -> Tensor:
    """For every byte the one ``offset`` bytes earlier; 0 where there is none."""
    return torch.cat([bits.new_zeros(offset), bits[: len(bits) - offset]])


def after(bits: Tensor, offset: int) -> Tensor:
    """For every byte the one ``offset`` bytes later; 0 where there is none."""
    return torch.cat([bits[offset:], bits.new_zeros(offset)])


def voxel_before(bits: Tensor, amount: int = 1) -> Tensor:
    """For every voxel the one ``amount`` places earlier along the last axis."""
    whole, part = divmod(amount, 8)
    moved = bits
    if part:
        moved = bits << part
        moved[1:].bitwise_or_(bits[:-1] >> (8 - part))
    return before(moved, whole) if whole else moved


def voxel_after(bits: Tensor, amount: int = 1) -> Tensor:
    """For every voxel the one ``amount`` places later along the last axis."""
    whole, part = divmod(amount, 8)
    moved = bits
    if part:
        moved = bits >> part
        moved[:-1].bitwise_or_(bits[1:] << (8 - part))
    return after(moved, whole) if whole else moved


def _widened(run: Tensor, reach: int, goal: int) -> Tensor:
    """Dilation by ``goal`` voxels to both sides, from that by ``reach``."""
    while reach < goal:
        step = min(goal - reach, 2 * reach + 1)  # what leaves no gap between the shifted runs
        run = run | voxel_before(run, step) | voxel_after(run, step)
        reach += step
    return run


def _merge(near: Tensor, bits: Tensor, offset: int) -> None:
    """``near[i] |= bits[i + offset]`` in place."""
    size = len(near)
    if abs(offset) < size:
        near[max(-offset, 0) : size - max(offset, 0)].bitwise_or_(bits[max(offset, 0) : size + min(offset, 0)])


def _ones_by_numpy(words: Tensor) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.bitwise_count(words.numpy().view(np.uint64)))


def _ones_by_sums(words: Tensor) -> Tensor:
    """Bits set in each int64, by sums of neighbouring fields; the masks remove what the signed shift brings in."""
    words = words - ((words >> 1) & 0x5555555555555555)
    words = (words & 0x3333333333333333) + ((words >> 2) & 0x3333333333333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (words * 0x0101010101010101) >> 56


def ball_rows(tolerance: float, steps: Sequence[float], limits: Iterable[int]) -> dict[int, list[tuple[int, ...]]]:
    """Offsets within the tolerance, as runs along the last axis.

    Distances are rounded as SciPy's distance transform rounds them (squares summed from the first axis on, then the
    root), so that a voxel exactly at the tolerance is judged alike by both.

    Args:
        tolerance: in the unit of ``steps``.
        steps: size of a voxel along each axis.
        limits: greatest offset of interest along each axis.

    Example:
        >>> ball_rows(1.0, (1.0, 1.0), (9, 9))
        {0: [(-1,), (1,)], 1: [(0,)]}
    """
    *leading, last = ball_reach(tolerance, steps, limits)
    rows = torch.cartesian_prod(*(torch.arange(-reach, reach + 1) for reach in leading)).reshape(-1, len(leading))
    squared = torch.zeros(len(rows), dtype=torch.float64)
    for axis, step in enumerate(steps[:-1]):
        squared = squared + (rows[:, axis].double() * step) ** 2
    along = (torch.arange(last + 1, dtype=torch.float64) * steps[-1]) ** 2
    reached = ((squared.unsqueeze(1) + along).sqrt() <= tolerance).sum(dim=1) - 1
    ball: dict[int, list[tuple[int, ...]]] = {}
    for row, reach in zip(rows.tolist(), reached.tolist(), strict=True):
        if reach >= 0:
            ball.setdefault(reach, []).append(tuple(row))
    return dict(sorted(ball.items()))


def ball_reach(tolerance: float, steps: Sequence[float], limits: Iterable[int]) -> list[int]:
    """Greatest offset along each axis that may lie within the tolerance; arguments as :func:`ball_rows`."""
    return [int(min(tolerance // step + 1, limit)) for step, limit in zip(steps, limits, strict=True)]
