"""A residual network for pictures of about 32 pixels.

Shape legend: ``B`` batch, ``C`` channels, ``W`` width of a stage, ``K`` classes, ``H`` height, ``W`` in a size: width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.networks.classification.base import Classifier


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a strided 1x1 convolution where sizes change."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(x_BCHW)), inplace=True)
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x_BCHW), inplace=True)


@final
class ResNetSmall(Classifier):
    """A 3x3 stem at full resolution, stages of basic blocks, each but the first halving it, mean over pixels, linear.

    With its defaults 401,194 parameters for ten classes; CIFAR's ResNet-20 is ``widths=(16, 32, 64) blocks=(3, 3, 3)``
    but for its shortcuts, which are 1x1 convolutions here.

    Args:
        in_channels: channels C of the image.
        num_classes: logits K.
        widths: channels of each stage.
        blocks: number of blocks of each stage.
        zero_init: start each block as the identity, by a zero scale of its last norm.

    Raises:
        ValueError: if ``widths`` and ``blocks`` differ in length or hold a number below 1.

    Reference:
        He et al., 2016 (arXiv:1512.03385), section 4.2, shortcuts of option B; Goyal et al., 2017 (arXiv:1706.02677),
        section 5.1, for ``zero_init``.

    Example:
        >>> import torch
        >>> ResNetSmall(widths=(4, 8), blocks=(1, 1))(torch.zeros(2, 3, 33, 20)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        widths: tuple[int, ...] = (32, 64, 128),
        blocks: tuple[int, ...] = (2, 2, 1),
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks) or not widths or min(*widths, *blocks, in_channels, num_classes) < 1:
            raise ValueError(
                f"widths={tuple(widths)}, blocks={tuple(blocks)}, in_channels={in_channels}, "
                f"num_classes={num_classes}: "
                "need as many blocks as widths, all at least 1"
            )
        self.in_channels, self.num_classes = in_channels, num_classes
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.stages = nn.ModuleList()
        before = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(count):
                self.stages.append(_Block(before, width, 2 if stage and not block else 1))
                before = width
        self.head = nn.Linear(before, num_classes)
        self._initialize(zero_init)

    def logits(self, x_BCHW: Tensor) -> Tensor:
        """``(B, K)`` of images whose shape was checked."""
        hidden = F.relu(self.norm(self.stem(x_BCHW)), inplace=True)
        for block in self.stages:
            hidden = block(hidden)
        return self.head(hidden.mean((2, 3)))

    def depths(self) -> Mapping[str, int]:
        """The stem, each block and the head are a layer each."""
        last = len(self.stages) + 1
        parts = {"stem": 0, "norm": 0, "head": last}
        return {
            name: int(name.split(".")[1]) + 1 if name.startswith("stages.") else parts[name.partition(".")[0]]
            for name, _ in self.named_parameters()
        }

    def evidence_layer(self) -> nn.Module:
        """The last block."""
        return self.stages[-1]

    def _initialize(self, zero_init: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if zero_init and isinstance(module, _Block):
                nn.init.zeros_(module.norm2.weight)
