"""Masks as runs: what COCO's run-length encoding holds, for many masks at once.

A mask is the list of its runs ``[start, stop)`` in column-major order (down the first column first), as in COCO. Runs
of several masks are one array with the number of runs of each beside it, so that encoding, areas, boxes and overlaps
are a few array operations for all masks together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Runs:
    """Runs of several masks, mask after mask.

    Attributes:
        bounds: int64 ``(runs, 2)``: first pixel and the one past the last, column-major, ascending within a mask.
        counts: int64 ``(masks,)``: number of runs of each mask.
        heights: int64 ``(masks,)``: rows of the image of each mask.
        widths: int64 ``(masks,)``: columns of it.
    """

    bounds: Ints
    counts: Ints
    heights: Ints
    widths: Ints

    @property
    def owners(self) -> Ints:
        """Mask of each run."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def areas(self) -> Ints:
        """Pixels of each mask."""
        return _totals(self.bounds[:, 1] - self.bounds[:, 0], self.counts)

    def boxes(self) -> Floats:
        """Smallest box ``(masks, 4)`` as x, y, width, height around each mask; zeros for an empty one."""
        height = self.heights[self.owners]
        columns = np.stack([self.bounds[:, 0] // height, (self.bounds[:, 1] - 1) // height], axis=1)
        rows = np.stack([self.bounds[:, 0] % height, (self.bounds[:, 1] - 1) % height], axis=1)
        wraps = columns[:, 0] != columns[:, 1]
        rows[wraps, 0], rows[wraps, 1] = 0, height[wraps] - 1
        boxes = np.zeros((len(self.counts), 4))
        filled = self.counts > 0
        starts = (np.cumsum(self.counts) - self.counts)[filled]
        for axis, lines in enumerate((columns, rows)):
            if len(starts):
                low = np.minimum.reduceat(lines[:, 0], starts)
                boxes[filled, axis] = low
                boxes[filled, 2 + axis] = np.maximum.reduceat(lines[:, 1], starts) - low + 1
        return boxes


def encode_masks(masks: Tensor) -> Runs:
    """Runs of dense masks.

    Rows are packed to bits and compared with the row above, so that only one pass reads every pixel.

    Args:
        masks: bool or integer ``(N, H, W)``; what is not 0 belongs to the mask.

    Returns:
        Their runs.

    Raises:
        ValueError: if the shape or the type is wrong.

    Example:
        >>> encode_masks(torch.tensor([[[0, 1], [1, 1]]])).bounds.tolist()
        [[1, 4]]
    """
    if masks.ndim != 3 or masks.is_floating_point() or masks.is_complex():
        raise ValueError(f"masks must be bool or integer (N, H, W), not {masks.dtype} {tuple(masks.shape)}")
    dense: npt.NDArray[np.bool_] = masks.bool().cpu().numpy()
    number, height, width = dense.shape
    packed = np.packbits(dense, axis=2)
    flips = packed.copy()
    flips[:, 1:] ^= packed[:, :-1]
    if height:
        # the pixel before the top of a column is the bottom of the one before it
        above = np.zeros_like(dense[:, 0])
        above[:, 1:] = dense[:, -1, :-1]
        flips[:, 0] = np.packbits(dense[:, 0] ^ above, axis=1)
    stride = height * width + 1
    found = _flip_keys(flips, height, stride)
    open_ended = np.flatnonzero(dense[:, -1, -1]) if height and width else np.zeros(0, np.int64)
    keys = np.sort(np.concatenate([found, open_ended * stride + height * width]))
    owners = keys[::2] // stride
    bounds = (keys.reshape(-1, 2) - (owners * stride)[:, None]).astype(np.int64)
    counts = np.bincount(owners, minlength=number).astype(np.int64)
    return Runs(bounds, counts, np.full(number, height), np.full(number, width))


def _flip_keys(flips: npt.NDArray[np.uint8], height: int, stride: int) -> Ints:
    """``mask * stride + position`` of every set bit of ``(N, H, ceil(W / 8))``, in no order."""
    per_row = max(flips.shape[2], 1)
    places = np.flatnonzero(flips != 0)
    entry, bit = np.nonzero(np.unpackbits(flips.reshape(-1)[places][:, None], axis=1))
    line, byte = np.divmod(places[entry], per_row)
    mask, row = np.divmod(line, max(height, 1))
    return mask * stride + (8 * byte + bit) * height + row


def decode_masks(runs: Runs) -> Tensor:
    """Dense masks of runs over images of one size, the inverse of :func:`encode_masks`.

    Args:
        runs: at least one mask.

    Returns:
        bool ``(N, H, W)``.

    Raises:
        ValueError: if the images differ in size, or there is none.

    Example:
        >>> masks = torch.rand(3, 7, 5) < 0.5
        >>> torch.equal(decode_masks(encode_masks(masks)), masks)
        True
    """
    sizes = set(zip(runs.heights.tolist(), runs.widths.tolist(), strict=True))
    if len(sizes) != 1:
        raise ValueError(f"masks of one image size are needed, not {sorted(sizes)}")
    ((height, width),) = sizes
    steps = np.zeros((len(runs.counts), height * width + 1), dtype=np.int8)
    np.add.at(steps, (runs.owners, runs.bounds[:, 0]), 1)
    np.add.at(steps, (runs.owners, runs.bounds[:, 1]), -1)
    flat = np.cumsum(steps, axis=1, dtype=np.int8)[:, :-1].astype(bool)
    return torch.from_numpy(np.ascontiguousarray(flat.reshape(-1, width, height).swapaxes(1, 2)))


def runs_from_coco(encoded: Sequence[Mapping[str, Any]]) -> Runs:
    """Runs of COCO's run-length encodings.

    Args:
        encoded: ``{"size": [H, W], "counts": ...}``, counts as a list of numbers or as COCO's compressed bytes or text.

    Returns:
        Their runs.

    Raises:
        ValueError: if a key is missing, or the counts are not those of an image of this size.

    Example:
        >>> runs_from_coco([{"size": [2, 2], "counts": [1, 3]}]).bounds.tolist()
        [[1, 4]]
    """
    pieces: list[Ints] = []
    for place, item in enumerate(encoded):
        missing = {"size", "counts"} - set(item)
        if missing:
            raise ValueError(f"run-length encoding {place} lacks {sorted(missing)}; it needs 'size' and 'counts'")
        counts = _counts(item["counts"])
        height, width = (int(length) for length in item["size"])
        if counts.sum() != height * width or (counts < 0).any():
            raise ValueError(
                f"run-length encoding {place} covers {counts.sum()} pixels of an image of {height} x {width}"
            )
        stops = np.cumsum(counts)
        bounds = np.stack([stops[: len(stops) // 2 * 2 : 2], stops[1::2]], axis=1)
        pieces.append(bounds[bounds[:, 0] < bounds[:, 1]])
    sizes = np.array([[int(n) for n in item["size"]] for item in encoded], dtype=np.int64).reshape(-1, 2)
    return Runs(
        np.concatenate([np.zeros((0, 2), np.int64), *pieces]),
        np.array([len(piece) for piece in pieces], dtype=np.int64),
        sizes[:, 0],
        sizes[:, 1],
    )


def _counts(given: bytes | str | Sequence[int]) -> Ints:
    if not isinstance(given, bytes | str):
        return np.asarray(given, dtype=np.int64).reshape(-1)
    # six bits a character: five of the number, least first, and one that says that more follow
    code = np.frombuffer(given.encode() if isinstance(given, str) else given, dtype=np.uint8).astype(np.int64) - 48
    if not len(code):
        return np.zeros(0, np.int64)
    if code.min() < 0 or code.max() > 63 or code[-1] & 32:
        raise ValueError("these are no compressed counts of COCO's run-length encoding")
    last = (code & 32) == 0
    first = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    place = np.arange(len(code)) - np.repeat(first, np.diff(np.append(first, len(code))))
    numbers = np.add.reduceat((code & 31) << (5 * place), first)
    digits = np.diff(np.append(first, len(code)))
    numbers -= np.where(code[last] & 16, np.int64(1) << (5 * digits), 0)  # the sign bit of the last digit
    # from the fourth on a number is the difference from the one two before
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def runs_to_coco(runs: Runs) -> list[dict[str, list[int]]]:
    """COCO's uncompressed run-length encodings, the inverse of :func:`runs_from_coco`.

    Args:
        runs: any number of masks.

    Returns:
        ``{"size": [H, W], "counts": [...]}`` for each mask, counts beginning with those outside of it.

    Example:
        >>> runs_to_coco(encode_masks(torch.tensor([[[0, 1], [1, 1]]])))
        [{'size': [2, 2], 'counts': [1, 3]}]
    """
    encoded: list[dict[str, list[int]]] = []
    for bounds, height, width in zip(
        np.split(runs.bounds, np.cumsum(runs.counts)[:-1]) if len(runs.counts) else [],
        runs.heights.tolist(),
        runs.widths.tolist(),
        strict=True,
    ):
        edges = np.concatenate([[0], bounds.reshape(-1), [height * width]])
        counts = np.diff(edges).tolist()
        encoded.append({"size": [height, width], "counts": counts if counts[-1] or len(counts) == 1 else counts[:-1]})
    return encoded


def intersections(left: Runs, right: Runs, pairs: tuple[Ints, Ints]) -> Ints:
    """Pixels that two masks share, for chosen pairs.

    The pixels of the right mask before any position are a piecewise linear function, which one search evaluates at all
    ends of all runs of the left masks.

    Args:
        left: masks.
        right: masks.
        pairs: indices into ``left`` and ``right``, of equal length; both masks of a pair are of one image.

    Returns:
        int64, one number a pair.
    """
    stride = int(max((right.heights * right.widths).max(initial=0), (left.heights * left.widths).max(initial=0))) + 1
    if not len(right.bounds):
        return np.zeros(len(pairs[0]), np.int64)
    offset = right.owners * stride
    starts, stops = right.bounds[:, 0] + offset, right.bounds[:, 1] + offset
    covered = np.concatenate([[0], np.cumsum(stops - starts)])
    per_pair = left.counts[pairs[0]]
    first = (np.cumsum(left.counts) - left.counts)[pairs[0]]
    within = np.arange(per_pair.sum()) - np.repeat(np.cumsum(per_pair) - per_pair, per_pair)
    queries = left.bounds[np.repeat(first, per_pair) + within] + np.repeat(pairs[1] * stride, per_pair)[:, None]
    # an end before all runs of its mask falls behind those of the mask before: it adds nothing there
    behind = np.searchsorted(starts, queries, side="right")
    last = np.maximum(behind - 1, 0)
    inside = np.where(behind > 0, np.minimum(queries, stops[last]) - starts[last], 0)
    before = covered[last] + inside
    return _totals(before[:, 1] - before[:, 0], per_pair)


def _totals(values: Ints, counts: Ints) -> Ints:
    """Sum of each stretch of ``counts`` values."""
    summed = np.concatenate([[0], np.cumsum(values)])
    stops = np.cumsum(counts)
    return summed[stops] - summed[stops - counts]
