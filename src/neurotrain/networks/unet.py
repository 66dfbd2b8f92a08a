"""A residual U-Net for images and volumes of any size.

Shape legend: ``B`` batch, ``C`` image channels, ``K`` logits, ``*spatial`` two or three axes (``S`` in suffixes).
"""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.networks.blocks import AttentionGate, ConvBlock, Upsample, check_choice, convolution, resize
from neurotrain.networks.output import SegmentationOutput


@final
class UNet(nn.Module):
    """Encoder-decoder with skip connections, residual blocks, optional attention gates and deep supervision.

    Each level halves the resolution with a 2x2 max-pool, which floors; the decoder goes back to the exact size of
    each skip, so no input size needs padding.

    Args:
        in_channels: channels C of the image.
        out_channels: logits K.
        widths: channels of each level, finest first; their number is the depth.
        dims: number of spatial axes.
        norm: normalisation after each 3x3 convolution.
        residual: whether blocks have a shortcut.
        dropout: probability in ``[0, 1)`` of dropping a channel inside a block.
        upsample: ``"linear"`` (1x1 convolution, then interpolation) or ``"transpose"`` (transposed convolution).
        aux_heads: deep supervision heads on the decoder levels below the finest, at most ``len(widths) - 2``.
        attention_gates: whether the decoder weighs the pixels of each skip connection (Attention U-Net).

    Raises:
        ValueError: if a setting is out of its range.

    Example:
        >>> network = UNet(widths=(8, 16, 32)).eval()
        >>> network(torch.zeros(1, 3, 37, 50)).shape
        torch.Size([1, 1, 37, 50])

    Reference:
        Ronneberger et al., 2015 (arXiv:1505.04597); deep supervision: Lee et al., 2015 (arXiv:1409.5185), with the
        heads placed as in nnU-Net (Isensee et al., 2021, doi:10.1038/s41592-020-01008-z).
        Attention gates: Oktay et al., 2018 (arXiv:1804.03999).
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 1,
        widths: tuple[int, ...] = (32, 64, 128),
        dims: Literal[2, 3] = 2,
        norm: Literal["batch", "instance", "group"] = "batch",
        residual: bool = True,
        dropout: float = 0.0,
        upsample: Literal["linear", "transpose"] = "linear",
        aux_heads: int = 0,
        attention_gates: bool = False,
    ) -> None:
        super().__init__()
        _check_settings(in_channels, out_channels, widths, dims, aux_heads)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.dims: Literal[2, 3] = dims
        self.depth = len(widths)
        self.norm: Literal["batch", "instance", "group"] = norm

        block = partial(ConvBlock, dims=dims, norm=norm, residual=residual, dropout=dropout)
        finer, coarser = widths[-2::-1], widths[:0:-1]
        self.encoder = nn.ModuleList(
            block(in_channels=channels, out_channels=width)
            for channels, width in itertools.pairwise((in_channels, *widths))
        )
        self.upsamples = nn.ModuleList(
            Upsample(in_channels=coarse, out_channels=fine, dims=dims, mode=upsample)
            for coarse, fine in zip(coarser, finer, strict=True)
        )
        self.decoder = nn.ModuleList(block(in_channels=2 * fine, out_channels=fine) for fine in finer)
        heads = [convolution(width, out_channels, kernel=1, dims=dims, bias=True) for width in widths[: 1 + aux_heads]]
        self.head, self.aux_heads = heads[0], nn.ModuleList(heads[1:])
        # Last, so that the other weights are drawn as they are without them.
        self.gates = nn.ModuleList(
            AttentionGate(skip_channels=fine, gate_channels=fine, dims=dims, norm=norm)
            for fine in (finer if attention_gates else ())
        )

    def forward(self, x_BCS: Tensor) -> Tensor | SegmentationOutput:
        """Logits of every pixel.

        Args:
            x_BCS: float image ``(B, C, *spatial)``, each axis at least ``2 ** (len(widths) - 1)`` long.

        Returns:
            Logits ``(B, K, *spatial)``; in training mode with ``aux_heads`` a ``SegmentationOutput`` whose ``aux``
            are upsampled to the same size, finest level first.

        Raises:
            ValueError: if the image has another number of axes or channels, or is too small for the depth.
        """
        self._check_input(x_BCS)
        features = self._decode(self._encode(x_BCS))
        logits_BKS: Tensor = self.head(features[-1])
        if not (self.training and len(self.aux_heads)):
            return logits_BKS
        size = x_BCS.shape[2:]
        coarse_first = features[-2::-1]
        aux = tuple(resize(head(level), size) for head, level in zip(self.aux_heads, coarse_first, strict=False))
        return SegmentationOutput(logits=logits_BKS, aux=aux)

    def _encode(self, x_BCS: Tensor) -> list[Tensor]:
        """Features of each level, finest first."""
        pool = F.max_pool2d if self.dims == 2 else F.max_pool3d
        features: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x_BCS = block(pool(x_BCS, 2) if level else x_BCS)
            features.append(x_BCS)
        return features

    def _decode(self, skips: list[Tensor]) -> list[Tensor]:
        """Features of each decoder level, coarsest first, starting with the encoder's last."""
        features = [skips[-1]]
        for upsample, block, skip in zip(self.upsamples, self.decoder, reversed(skips[:-1]), strict=True):
            raised = upsample(features[-1], skip.shape[2:])
            if len(self.gates):
                skip = self.gates[len(features) - 1](skip, raised)
            features.append(block(torch.cat([raised, skip], dim=1)))
        return features

    def _check_input(self, x_BCS: Tensor) -> None:
        if x_BCS.ndim != self.dims + 2 or x_BCS.shape[1] != self.in_channels:
            axes = "height, width" if self.dims == 2 else "depth, height, width"
            raise ValueError(f"image of shape {tuple(x_BCS.shape)}: expected (batch, {self.in_channels}, {axes})")
        size = tuple(x_BCS.shape[2:])
        smallest = 2 ** (self.depth - 1)
        if min(size) < smallest:
            raise ValueError(
                f"image of size {size} is too small for {self.depth} levels: each axis needs at least {smallest} pixels"
            )
        if self.norm == "instance" and math.prod(length // smallest for length in size) == 1:
            raise ValueError(
                f"image of size {size} leaves a single pixel at the coarsest of {self.depth} levels, which "
                "norm='instance' turns into zero: use a larger image, fewer widths or norm='group'"
            )


def _check_settings(in_channels: int, out_channels: int, widths: tuple[int, ...], dims: int, aux_heads: int) -> None:
    check_choice("dims", dims, (2, 3))
    for key, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if value < 1:
            raise ValueError(f"{key}={value} must be at least 1")
    if not widths or min(widths) < 1:
        raise ValueError(f"widths={widths!r} needs at least one level, each with at least 1 channel")
    most = max(len(widths) - 2, 0)
    if not 0 <= aux_heads <= most:
        raise ValueError(f"aux_heads={aux_heads} must be in [0, {most}] for {len(widths)} widths")
