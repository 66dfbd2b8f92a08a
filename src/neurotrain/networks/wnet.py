"""W-Net: two small U-Nets in cascade.

Shape legend: ``B`` batch, ``C`` image channels, ``K`` logits, ``*spatial`` two or three axes (``S`` in suffixes).
"""

from __future__ import annotations

from functools import partial
from typing import Literal, final

import torch
from torch import Tensor, nn

from neurotrain.batch import SegmentationMode
from neurotrain.networks.blocks import check_choice
from neurotrain.networks.output import SegmentationOutput
from neurotrain.networks.unet import UNet


@final
class WNet(nn.Module):
    """Two U-Nets: the second sees the image beside the probabilities that the first one found.

    ``logits = second([x, activation(first(x))])``. Both are supervised: in training mode the first one's logits come
    as the auxiliary output. The reference passes the first one's logits on as they are; bounded probabilities keep
    the second input on one scale throughout training.

    Example:
        >>> network = WNet().eval()
        >>> network(torch.zeros(1, 3, 37, 50)).shape
        torch.Size([1, 1, 37, 50])
        >>> len(network.train()(torch.zeros(2, 3, 32, 32)).aux)
        1

    Reference:
        Galdran et al., 2020, "The Little W-Net That Could" (arXiv:2009.01907), section 2.2.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 1,
        widths: tuple[int, ...] = (8, 16, 32),
        dims: Literal[2, 3] = 2,
        mode: SegmentationMode = "binary",
        norm: Literal["batch", "instance", "group"] = "batch",
        residual: bool = True,
        dropout: float = 0.0,
        upsample: Literal["linear", "transpose"] = "linear",
    ) -> None:
        """Build both networks with the same settings.

        Args:
            in_channels: channels C of the image.
            out_channels: logits K.
            widths: channels of each level of either network, finest first.
            dims: number of spatial axes.
            mode: what the logits mean, hence what turns the first ones into probabilities: a sigmoid for
                ``"binary"`` and ``"multilabel"``, a softmax over K for ``"multiclass"``.
            norm: normalisation after each 3x3 convolution.
            residual: whether blocks have a shortcut.
            dropout: probability in ``[0, 1)`` of dropping a channel inside a block.
            upsample: ``"linear"`` or ``"transpose"``.

        Raises:
            ValueError: if a setting is out of its range, or ``out_channels`` does not go with ``mode``.
        """
        super().__init__()
        _check_mode(mode, out_channels)
        self.mode: SegmentationMode = mode

        unet = partial(
            UNet,
            out_channels=out_channels,
            widths=widths,
            dims=dims,
            norm=norm,
            residual=residual,
            dropout=dropout,
            upsample=upsample,
        )
        self.first = unet(in_channels=in_channels)
        self.second = unet(in_channels=in_channels + out_channels)

    def forward(self, x_BCS: Tensor) -> Tensor | SegmentationOutput:
        """Logits of every pixel.

        Args:
            x_BCS: float image ``(B, C, *spatial)``, each axis at least ``2 ** (len(widths) - 1)`` long.

        Returns:
            Logits ``(B, K, *spatial)``; in training mode a ``SegmentationOutput`` with the first network's logits as
            its only ``aux``.

        Raises:
            ValueError: if the image has another number of axes or channels, or is too small for the depth.
        """
        first_BKS: Tensor = self.first(x_BCS)
        probabilities_BKS = first_BKS.softmax(dim=1) if self.mode == "multiclass" else first_BKS.sigmoid()
        logits_BKS: Tensor = self.second(torch.cat([x_BCS, probabilities_BKS], dim=1))
        return SegmentationOutput(logits=logits_BKS, aux=(first_BKS,)) if self.training else logits_BKS


def _check_mode(mode: SegmentationMode, out_channels: int) -> None:
    check_choice("mode", mode, ("binary", "multiclass", "multilabel"))
    if mode == "binary" and out_channels != 1:
        raise ValueError(f"out_channels={out_channels} with mode='binary': use 1, or 'multiclass' or 'multilabel'")
    if mode == "multiclass" and out_channels < 2:
        raise ValueError(f"out_channels={out_channels} with mode='multiclass': use at least 2, or mode='binary'")
