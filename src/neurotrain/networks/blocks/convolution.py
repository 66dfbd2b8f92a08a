"""Building blocks of convolutional encoders and decoders in two and three dimensions.

Shape legend: ``B`` batch, ``C`` channels in, ``W`` channels out (the width of a level), ``*spatial`` two or three axes.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Dims = Literal[2, 3]
"""Number of spatial axes."""

Normalization = Literal["batch", "instance", "group"]
"""How features are normalised: over the batch, per sample and channel, or per sample and group of channels."""

Upsampling = Literal["linear", "transpose"]
"""How a decoder doubles its resolution: 1x1 convolution then (bi/tri)linear, or a strided transposed convolution."""

MAX_GROUPS = 8
"""Upper limit on the groups of ``norm="group"``; the largest number up to it that divides the width is taken."""


def check_choice(key: str, value: object, choices: Iterable[object]) -> None:
    """Refuse a value that is not among the choices.

    Args:
        key: name of the setting, for the message.
        value: what was given.
        choices: what is valid.

    Raises:
        ValueError: if ``value`` is not in ``choices``; names the key, the value and the nearest choice.

    Example:
        >>> check_choice("norm", "bath", ("batch", "group"))
        Traceback (most recent call last):
        ...
        ValueError: norm='bath' is unknown; did you mean 'batch'? Valid: 'batch', 'group'
    """
    valid = tuple(choices)
    if value in valid:
        return
    near = difflib.get_close_matches(str(value), [str(choice) for choice in valid], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{key}={value!r} is unknown; {hint}Valid: {', '.join(repr(choice) for choice in valid)}")


def convolution(in_channels: int, out_channels: int, *, kernel: int, dims: Dims, bias: bool = False) -> nn.Module:
    """Convolution that keeps the spatial size.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: odd edge of the kernel.
        dims: number of spatial axes.
        bias: whether a bias is learnt; pointless where a normalisation follows.

    Returns:
        An ``nn.Conv2d`` or ``nn.Conv3d``.
    """
    assert kernel % 2 == 1, "an even kernel cannot keep the size"
    layer = nn.Conv2d if dims == 2 else nn.Conv3d
    return layer(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)


def normalization(kind: Normalization, width: int, *, dims: Dims) -> nn.Module:
    """Affine normalisation layer over ``width`` channels.

    Args:
        kind: ``"batch"``, ``"instance"`` or ``"group"`` (at most ``MAX_GROUPS`` groups).
        width: number of channels.
        dims: number of spatial axes.

    Returns:
        The layer; each kind has ``2 * width`` parameters.

    Raises:
        ValueError: if ``kind`` is unknown.

    Reference:
        Ioffe and Szegedy, 2015 (arXiv:1502.03167); Ulyanov et al., 2016 (arXiv:1607.08022); Wu and He, 2018
        (arXiv:1803.08494).
    """
    check_choice("norm", kind, ("batch", "instance", "group"))
    if kind == "batch":
        return nn.BatchNorm2d(width) if dims == 2 else nn.BatchNorm3d(width)
    if kind == "instance":
        return nn.InstanceNorm2d(width, affine=True) if dims == 2 else nn.InstanceNorm3d(width, affine=True)
    groups = next(count for count in range(MAX_GROUPS, 0, -1) if width % count == 0)
    return nn.GroupNorm(groups, width)


def resize(x_BCS: Tensor, size: Sequence[int]) -> Tensor:
    """Resample to exactly ``size`` with (bi/tri)linear interpolation between pixel centres.

    Args:
        x_BCS: ``(B, C, *spatial)`` with two or three spatial axes.
        size: wanted spatial size.

    Returns:
        ``(B, C, *size)``; the input itself where it has that size.

    Example:
        >>> resize(torch.zeros(1, 2, 3, 4), (7, 8)).shape
        torch.Size([1, 2, 7, 8])
    """
    if tuple(x_BCS.shape[2:]) == tuple(size):
        return x_BCS
    mode = "bilinear" if x_BCS.ndim == 4 else "trilinear"
    return F.interpolate(x_BCS, size=tuple(size), mode=mode, align_corners=False)


def repeat_edge(x_BCS: Tensor, size: Sequence[int]) -> Tensor:
    """Repeat the last slice of every axis that is one short of ``size``.

    A gather-free replicate padding: its backward is deterministic on every device.

    Args:
        x_BCS: ``(B, C, *spatial)``.
        size: wanted spatial size, on each axis equal to the input's or one more.

    Returns:
        ``(B, C, *size)``.
    """
    for axis, wanted in enumerate(size, start=2):
        missing = wanted - x_BCS.shape[axis]
        assert missing in (0, 1), f"axis {axis} is {missing} short"
        if missing:
            x_BCS = torch.cat([x_BCS, x_BCS.narrow(axis, x_BCS.shape[axis] - 1, 1)], dim=axis)
    return x_BCS


@final
class ConvBlock(nn.Module):
    """Two 3x3 convolutions, optionally with a residual shortcut.

    ``relu(norm(conv(dropout(relu(norm(conv(x)))))) + shortcut(x))``; the shortcut is the identity where the widths
    agree and a 1x1 convolution where they do not. It drops whole channels, because neighbouring pixels of one
    channel carry the same information.

    Reference:
        He et al., 2016 (arXiv:1512.03385), basic block; Tompson et al., 2015 (arXiv:1411.4280) for the dropout.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        dims: Dims = 2,
        norm: Normalization = "batch",
        residual: bool = True,
        dropout: float = 0.0,
    ) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            dims: number of spatial axes.
            norm: kind of normalisation.
            residual: whether a shortcut is added before the last activation.
            dropout: probability in ``[0, 1)`` that a channel between the convolutions is dropped.
        """
        super().__init__()
        self.conv1 = convolution(in_channels, out_channels, kernel=3, dims=dims)
        self.norm1 = normalization(norm, out_channels, dims=dims)
        self.dropout = _channel_dropout(dropout, dims=dims)
        self.conv2 = convolution(out_channels, out_channels, kernel=3, dims=dims)
        self.norm2 = normalization(norm, out_channels, dims=dims)
        self.shortcut: nn.Module | None = None
        if residual and in_channels == out_channels:
            self.shortcut = nn.Identity()
        elif residual:
            self.shortcut = convolution(in_channels, out_channels, kernel=1, dims=dims)

    def forward(self, x_BCS: Tensor) -> Tensor:
        """Map ``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)``."""
        hidden_BWS = self.dropout(F.relu(self.norm1(self.conv1(x_BCS)), inplace=True))
        hidden_BWS = self.norm2(self.conv2(hidden_BWS))
        if self.shortcut is not None:
            hidden_BWS = hidden_BWS + self.shortcut(x_BCS)
        return F.relu(hidden_BWS, inplace=True)


@final
class Upsample(nn.Module):
    """Features of a coarse level, brought to the width and the exact size of the next finer one.

    ``"linear"`` convolves before it interpolates: both are linear and commute, and the 1x1 convolution is then a
    quarter (an eighth in 3-D) of the work.

    Reference:
        Odena et al., 2016, "Deconvolution and Checkerboard Artifacts" (doi:10.23915/distill.00003).
    """

    def __init__(self, *, in_channels: int, out_channels: int, dims: Dims = 2, mode: Upsampling = "linear") -> None:
        """Build the layer.

        Args:
            in_channels: width of the coarse level.
            out_channels: width of the finer level.
            dims: number of spatial axes.
            mode: ``"linear"`` or ``"transpose"``.

        Raises:
            ValueError: if ``mode`` is unknown.
        """
        super().__init__()
        check_choice("upsample", mode, ("linear", "transpose"))
        self.mode: Upsampling = mode
        if mode == "linear":
            self.project = convolution(in_channels, out_channels, kernel=1, dims=dims)
        else:
            layer = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
            self.project = layer(in_channels, out_channels, 2, stride=2)

    def forward(self, x_BCS: Tensor, size: Sequence[int]) -> Tensor:
        """Map ``(B, in_channels, *spatial)`` to ``(B, out_channels, *size)``; ``size`` is ``2 * spatial`` (+ 1)."""
        projected_BWS = self.project(x_BCS)
        return resize(projected_BWS, size) if self.mode == "linear" else repeat_edge(projected_BWS, size)


def _channel_dropout(probability: float, *, dims: Dims) -> nn.Module:
    if not 0.0 <= probability < 1.0 or math.isnan(probability):
        raise ValueError(f"dropout={probability!r} must be in [0, 1)")
    if probability == 0.0:
        return nn.Identity()
    return nn.Dropout2d(probability) if dims == 2 else nn.Dropout3d(probability)
