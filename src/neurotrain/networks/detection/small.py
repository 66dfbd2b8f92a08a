"""A residual network for detection that learns from scratch in minutes on a CPU.

Shape legend: ``B`` batch, ``C`` channels, ``H`` height, ``W`` width.
"""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 256)
_GROUP = 16  # channels that are normalised together


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of 16 channels, or one group: statistics of an image alone, whatever the batch.

    Reference:
        Wu and He, 2018 (arXiv:1803.08494).
    """
    return nn.GroupNorm(max(channels // _GROUP, 1) if channels % _GROUP == 0 else 1, channels)


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; the block begins as its shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = group_norm(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), group_norm(out_channels)
            )
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(x_BCHW)), inplace=True)
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x_BCHW), inplace=True)


@final
class SmallResNet(nn.Module):
    """A strided stem and four stages of residual blocks with group norm, at strides 4, 8, 16 and 32.

    Stages are called ``layer1`` to ``layer4``, as torchvision's, so that the same feature pyramid reads them.

    Example:
        >>> import torch
        >>> network = SmallResNet()
        >>> network.layer1(network.stem(torch.zeros(1, 3, 32, 48))).shape
        torch.Size([1, 32, 8, 12])
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0] // 2, 3, stride=2, padding=1, bias=False),
            group_norm(WIDTHS[0] // 2),
            nn.ReLU(inplace=True),
        )
        before = WIDTHS[0] // 2
        stages: list[nn.Module] = []
        for width in WIDTHS:
            stages.append(nn.Sequential(_Block(before, width, 2), _Block(width, width, 1)))
            before = width
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The last stage's map ``(B, 256, H / 32, W / 32)``."""
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x_BCHW)))))
