"""Attention inside windows of a map, as in Swin: what it costs grows with the pixels, not with their square.

Shape legend: ``B`` batch, ``R`` rows and ``S`` columns of the map, ``D`` width, ``w`` edge of a window, ``N`` windows
of all images, ``h`` heads.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.networks.blocks.attention import Attention


@final
class WindowAttention(nn.Module):
    """Attention among the pixels of each window, with a learnt bias for each offset between two of them.

    A map that windows do not fill is padded with zeros, which are attended to as in Swin, and cut again. With a
    ``shift`` the windows lie that many pixels further down and right, and those at the border are not mixed.

    Args:
        width: D.
        heads: h, a divisor of the width.
        window: w.
        shift: pixels in ``[0, window)``.
        bias: whether the projections have one.

    Raises:
        ValueError: if the numbers do not fit together.

    Reference:
        Liu et al., 2021 (arXiv:2103.14030), section 3.2.

    Example:
        >>> WindowAttention(width=8, heads=2, window=4, shift=2)(torch.zeros(1, 7, 9, 8)).shape
        torch.Size([1, 7, 9, 8])
    """

    index: Tensor

    def __init__(self, *, width: int, heads: int, window: int = 7, shift: int = 0, bias: bool = True) -> None:
        super().__init__()
        if window < 1 or not 0 <= shift < window:
            raise ValueError(f"window={window}, shift={shift}: need at least 1, and a shift in [0, window)")
        self.window, self.shift = window, shift
        self.attention = Attention(width=width, heads=heads, bias=bias)
        self.offsets = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.offsets, std=0.02)
        self.register_buffer("index", _offset_index(window), persistent=False)

    def forward(self, x_BRSD: Tensor) -> Tensor:
        """Attend within windows; ``(B, R, S, D)`` to the same shape."""
        rows, columns = x_BRSD.shape[1:3]
        padded = F.pad(x_BRSD, (0, 0, 0, -columns % self.window, 0, -rows % self.window))
        size = padded.shape[1:3]
        if self.shift:
            padded = padded.roll((-self.shift, -self.shift), (1, 2))
        windows_NLD = to_windows(padded, self.window)
        mixed = self.attention(windows_NLD, mask=self._mask(size, len(windows_NLD)))
        found = from_windows(mixed, self.window, size)
        if self.shift:
            found = found.roll((self.shift, self.shift), (1, 2))
        return found[:, :rows, :columns]

    def _mask(self, size: torch.Size, count: int) -> Tensor:
        """What is added to the logits: offsets' biases, and minus infinity between what the shift brought together."""
        bias_hLL = self.offsets[self.index].permute(2, 0, 1)
        if not self.shift:
            return bias_hLL[None]
        regions_RS = _regions(size, self.window, self.shift, device=bias_hLL.device)
        regions_WL = to_windows(regions_RS[None, ..., None], self.window)
        apart_WLL = regions_WL != regions_WL.transpose(1, 2)
        mask = bias_hLL[None].masked_fill(apart_WLL[:, None], float("-inf"))
        return mask.repeat(count // len(apart_WLL), 1, 1, 1)


def to_windows(x_BRSD: Tensor, window: int) -> Tensor:
    """Cut maps into windows.

    Args:
        x_BRSD: rows and columns multiples of ``window``.
        window: edge.

    Returns:
        ``(N, window ** 2, D)``, image by image, row by row.
    """
    batch, rows, columns, width = x_BRSD.shape
    cut = x_BRSD.reshape(batch, rows // window, window, columns // window, window, width)
    return cut.transpose(2, 3).reshape(-1, window**2, width)


def from_windows(x_NLD: Tensor, window: int, size: tuple[int, ...]) -> Tensor:
    """Put windows back; the inverse of :func:`to_windows`.

    Args:
        x_NLD: windows.
        window: edge.
        size: rows and columns of the maps.

    Example:
        >>> maps = torch.arange(16.0).reshape(1, 4, 4, 1)
        >>> torch.equal(from_windows(to_windows(maps, 2), 2, (4, 4)), maps)
        True
    """
    rows, columns = size
    cut = x_NLD.reshape(-1, rows // window, columns // window, window, window, x_NLD.shape[2])
    return cut.transpose(2, 3).reshape(-1, rows, columns, x_NLD.shape[2])


def _offset_index(window: int) -> Tensor:
    """Which offset lies between two pixels of a window: int64 ``(w^2, w^2)``."""
    places = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    between = places[:, None] - places[None] + window - 1
    return between[..., 0] * (2 * window - 1) + between[..., 1]


def _regions(size: tuple[int, ...], window: int, shift: int, *, device: torch.device) -> Tensor:
    """Numbers of the parts of a rolled map that belong together: int64 ``(rows, columns)``."""
    rows, columns = (
        (place >= extent - window).long() + (place >= extent - shift).long()
        for extent, place in ((extent, torch.arange(extent, device=device)) for extent in size)
    )
    return 3 * rows[:, None] + columns[None]
