"""Where something stands, told to a network that does not see it: sinusoids, rotations, tables, biases.

Shape legend: ``B`` batch, ``H`` heads, ``L`` places of a sequence, ``D`` width, ``d`` width of a head.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn


def sinusoidal_positions(length: int, width: int, *, base: float = 10000.0, start: int = 0) -> Tensor:
    """Sines and cosines of each place: ``sin(p / base^(2i/D))`` in column ``2i``, the cosine in ``2i + 1``.

    Args:
        length: L.
        width: D, even.
        base: of the wavelengths, which go from ``2 pi`` to ``base * 2 pi``.
        start: the first place.

    Returns:
        float32 ``(L, D)``.

    Raises:
        ValueError: if ``width`` is odd.

    Reference:
        Vaswani et al., 2017 (arXiv:1706.03762), section 3.5.

    Example:
        >>> sinusoidal_positions(2, 2)[0].tolist()
        [0.0, 1.0]
    """
    if width % 2:
        raise ValueError(f"width={width}: sines and cosines need an even one")
    # In double: places times frequencies lose their fraction in float32 long before they are many.
    angles_LF = torch.outer(torch.arange(start, start + length).double(), _frequencies(width, base))
    return torch.stack((angles_LF.sin(), angles_LF.cos()), dim=2).flatten(1).float()


def grid_positions(height: int, width: int, channels: int, *, base: float = 10000.0) -> Tensor:
    """Sinusoids of a map's places: the first half of the channels tells the row, the second the column.

    Args:
        height: rows.
        width: columns.
        channels: D, a multiple of 4.
        base: see :func:`sinusoidal_positions`.

    Returns:
        float32 ``(height, width, D)``.

    Raises:
        ValueError: if ``channels`` is no multiple of 4.

    Example:
        >>> grid_positions(3, 5, 8).shape
        torch.Size([3, 5, 8])
    """
    if channels % 4:
        raise ValueError(f"channels={channels}: two axes of sines and cosines need a multiple of 4")
    rows, columns = (sinusoidal_positions(extent, channels // 2, base=base) for extent in (height, width))
    return torch.cat((rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)), dim=2)


@final
class LearnedPositions(nn.Module):
    """A table of learnt vectors, added to a sequence.

    Args:
        length: places that it has.
        width: D.

    Example:
        >>> LearnedPositions(length=4, width=2)(torch.zeros(1, 3, 2)).shape
        torch.Size([1, 3, 2])
    """

    def __init__(self, *, length: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(length, width))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x_BLD: Tensor, *, start: int = 0) -> Tensor:
        """Add them.

        Args:
            x_BLD: a sequence.
            start: place of its first element.

        Raises:
            ValueError: if it is longer than the table.
        """
        end = start + x_BLD.shape[1]
        if end > len(self.table):
            raise ValueError(f"a sequence of {end} places: there are positions for {len(self.table)}")
        return x_BLD + self.table[start:end]


@final
class Rotary(nn.Module):
    """Turns pairs of a head's channels by angles that grow with the place, so that products tell differences.

    Channel ``i`` is paired with ``i + d/2``, as in Llama and GPT-NeoX. It has no weights.

    Args:
        width: d, even.
        base: of the wavelengths.

    Raises:
        ValueError: if ``width`` is odd.

    Reference:
        Su et al., 2021 (arXiv:2104.09864), equation 34.

    Example:
        >>> turned = Rotary(width=2)(torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]]))
        >>> [round(value, 4) for value in turned[0, 0, 1].tolist()]
        [0.5403, 0.8415]
    """

    def __init__(self, *, width: int, base: float = 10000.0) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"width={width}: channels are turned in pairs, it must be even")
        self.width = width
        # No buffer: a cast of the module to bfloat16 must not reach the angles.
        self._base = base

    def forward(self, x_BHLd: Tensor, *, start: int = 0) -> Tensor:
        """Turn.

        Args:
            x_BHLd: queries or keys.
            start: place of the first of them.

        Returns:
            The same shape and type; angles are computed in float64, the turn in float32 or finer.
        """
        places = torch.arange(start, start + x_BHLd.shape[2], device=x_BHLd.device).double()
        angles_Lf = torch.outer(places, _frequencies(self.width, self._base).to(x_BHLd.device))
        finer = torch.float64 if x_BHLd.dtype == torch.float64 else torch.float32
        cos_Lf, sin_Lf = angles_Lf.cos().to(finer), angles_Lf.sin().to(finer)
        first, second = x_BHLd.to(finer).chunk(2, dim=-1)
        turned = (first * cos_Lf - second * sin_Lf, second * cos_Lf + first * sin_Lf)
        return torch.cat(turned, dim=-1).to(x_BHLd.dtype)


@final
class RelativeBias(nn.Module):
    """A learnt number for each head and each class of distance, to be added to the logits of an attention.

    Near distances have a class each, farther ones share classes whose size grows with the distance, and all from
    ``farthest`` on share one.

    Args:
        heads: H.
        classes: of distances; with ``both_sides`` half of them for places ahead.
        farthest: distance from which on all are one.
        both_sides: whether places ahead are told apart; otherwise they count as distance 0.

    Raises:
        ValueError: if there are too few classes for the distances.

    Reference:
        Raffel et al., 2020 (arXiv:1910.10683), section 2.1, as in its reference code.

    Example:
        >>> RelativeBias(heads=2)(3, 4).shape
        torch.Size([1, 2, 3, 4])
    """

    def __init__(self, *, heads: int, classes: int = 32, farthest: int = 128, both_sides: bool = True) -> None:
        super().__init__()
        one_side = classes // 2 if both_sides else classes
        if heads < 1 or one_side < 2 or farthest <= one_side // 2:
            raise ValueError(
                f"heads={heads}, classes={classes}, farthest={farthest}: need at least 1 head, 2 classes a side, and "
                "farthest beyond the distances that have a class each"
            )
        self.classes, self.farthest, self.both_sides = classes, farthest, both_sides
        self.table = nn.Embedding(classes, heads)
        nn.init.trunc_normal_(self.table.weight, std=0.02)

    def forward(self, asking: int, there: int, *, start: int = 0) -> Tensor:
        """The biases.

        Args:
            asking: places that ask.
            there: places that are looked at, from 0.
            start: place of the first that asks.

        Returns:
            ``(1, H, asking, there)``.
        """
        device = self.table.weight.device
        own, other = torch.arange(start, start + asking, device=device), torch.arange(there, device=device)
        classes_QK = self._classes(other[None, :] - own[:, None])
        return self.table(classes_QK).permute(2, 0, 1)[None]

    def _classes(self, ahead_QK: Tensor) -> Tensor:
        one_side = self.classes // 2 if self.both_sides else self.classes
        offset = (ahead_QK > 0).long() * one_side if self.both_sides else torch.zeros_like(ahead_QK)
        distance = ahead_QK.abs() if self.both_sides else (-ahead_QK).clamp_min(0)
        exact = one_side // 2
        share = (distance.clamp_min(1).float() / exact).log() / math.log(self.farthest / exact)
        far = (exact + (share * (one_side - exact)).long()).clamp_max(one_side - 1)
        return offset + torch.where(distance < exact, distance, far)


def _frequencies(width: int, base: float) -> Tensor:
    return base ** -(torch.arange(0, width, 2).double() / width)
