"""Plain stacks of 3x3 convolutions, as in VGG, with a small head.

Shape legend: ``B`` batch, ``C`` image channels, ``K`` classes, ``H`` height, ``W`` width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final

from torch import Tensor, nn

from neurotrain.networks.blocks import check_choice, convolution, normalization
from neurotrain.networks.classification.base import Classifier


@final
class VGG(Classifier):
    """Stages of 3x3 convolutions with norm and ReLU, each with a 2x2 max-pool, then mean over pixels and linear.

    With its defaults the convolutions of VGG-11 with batch norm at half its widths; the three fully connected layers,
    which held nine tenths of its weights, are one. With ``pool="first"`` and a narrow ``stem`` nearly no work is left
    at full resolution: the form that trains fastest on pictures of about 32 pixels.

    Args:
        in_channels: channels C of the image.
        num_classes: logits K.
        widths: channels of each stage.
        blocks: number of convolutions of each stage.
        norm: after each convolution.
        dropout: before the last layer, in ``[0, 1)``.
        stem: channels of a convolution at full resolution before the first stage; 0: there is none.
        pool: what a stage's max-pool follows: its ``"last"`` activation, or its ``"first"`` convolution, before norm
            and activation.

    Raises:
        ValueError: if ``widths`` and ``blocks`` differ in length, or a number is out of range.

    Reference:
        Simonyan and Zisserman, 2015 (arXiv:1409.1556), table 1, column A; Lin et al., 2014 (arXiv:1312.4400), section
        3.2, for the mean instead of fully connected layers; Jordan, 2024 (arXiv:2404.00498), section 3.1, for a pool
        after the first convolution.

    Example:
        >>> import torch
        >>> VGG(widths=(4, 8), blocks=(1, 2))(torch.zeros(2, 3, 33, 20)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        widths: tuple[int, ...] = (32, 64, 128, 256, 256),
        blocks: tuple[int, ...] = (1, 1, 2, 2, 2),
        norm: Literal["batch", "instance", "group"] = "batch",
        dropout: float = 0.0,
        stem: int = 0,
        pool: Literal["last", "first"] = "last",
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks) or not widths or min(*widths, *blocks, in_channels, num_classes) < 1:
            raise ValueError(
                f"widths={tuple(widths)}, blocks={tuple(blocks)}, in_channels={in_channels}, "
                f"num_classes={num_classes}: need as many blocks as widths, all at least 1"
            )
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout} must be in [0, 1)")
        if stem < 0:
            raise ValueError(f"stem={stem} must be at least 0")
        check_choice("pool", pool, ("last", "first"))
        self.in_channels, self.num_classes = in_channels, num_classes
        self.smallest_side = 2 ** len(widths)
        self.stem = nn.Sequential(*_layer(in_channels, stem, norm)) if stem else nn.Identity()
        before = stem or in_channels
        stages: list[nn.Module] = []
        for width, count in zip(widths, blocks, strict=True):
            layers = [part for block in range(count) for part in _layer(width if block else before, width, norm)]
            layers.insert(1 if pool == "first" else len(layers), nn.MaxPool2d(2))
            stages.append(nn.Sequential(*layers))
            before = width
        self.stages = nn.ModuleList(stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def logits(self, x_BCHW: Tensor) -> Tensor:
        """``(B, K)`` of images whose shape was checked."""
        hidden = self.stem(x_BCHW)
        for stage in self.stages:
            hidden = stage(hidden)
        return self.head(self.dropout(hidden.mean((2, 3))))

    def depths(self) -> Mapping[str, int]:
        """The stem, each stage and the head are a layer each."""
        first = int(isinstance(self.stem, nn.Sequential))
        parts = {"stem": 0, "head": first + len(self.stages)}
        return {
            name: first + int(name.split(".")[1]) if name.startswith("stages.") else parts[name.partition(".")[0]]
            for name, _ in self.named_parameters()
        }

    def evidence_layer(self) -> nn.Module:
        """The last activation of the last stage, before a pool that ends it."""
        return [layer for layer in self.stages[-1].modules() if isinstance(layer, nn.ReLU)][-1]


def _layer(
    in_channels: int, out_channels: int, norm: Literal["batch", "instance", "group"]
) -> tuple[nn.Module, nn.Module, nn.Module]:
    return (
        convolution(in_channels, out_channels, kernel=3, dims=2),
        normalization(norm, out_channels, dims=2),
        nn.ReLU(inplace=True),
    )
