"""What a classification network tells beside its logits: how deep a parameter lies, and where to look for evidence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn


class TokenLayout(NamedTuple):
    """How a network that attends lays an image out as a sequence.

    Attributes:
        layers: how many attentions of the whole sequence to itself there are.
        patch: height and width of a patch in pixels; patches are the end of the sequence, row by row.
        prefix: tokens before them, such as a class token and registers.
        read: tokens whose mean the head reads; None: it pools by an attention of its own, over the patches or all
            tokens.
    """

    layers: int
    patch: tuple[int, int]
    prefix: int
    read: slice | None


class Classifier(nn.Module, ABC):
    """Maps images ``(B, C, H, W)`` to logits ``(B, K)``.

    Attributes:
        in_channels: C.
        num_classes: K.
        smallest_side: pixels that height and width need at least.
    """

    in_channels: int
    num_classes: int
    smallest_side: int = 1

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits of each image.

        Args:
            x_BCHW: float image ``(B, C, H, W)``.

        Returns:
            ``(B, K)``.

        Raises:
            ValueError: if the image has another number of axes or channels, or a size that does not fit.
        """
        wrong = x_BCHW.ndim != 4 or x_BCHW.shape[1] != self.in_channels
        if wrong or min(x_BCHW.shape[2:]) < self.smallest_side:
            least = f", at least {self.smallest_side} pixels a side" if self.smallest_side > 1 else ""
            raise ValueError(
                f"image of shape {tuple(x_BCHW.shape)}: expected (batch, {self.in_channels}, height, width){least}"
            )
        return self.logits(x_BCHW)

    @abstractmethod
    def logits(self, x_BCHW: Tensor) -> Tensor:
        """``(B, K)`` of images whose shape was checked.

        Args:
            x_BCHW: float image ``(B, C, H, W)``.
        """

    @abstractmethod
    def depths(self) -> Mapping[str, int]:
        """Number of the layer that each parameter belongs to, by its name; 0 at the image, the head has the highest.

        Layer-wise learning-rate decay reads it.
        """

    @abstractmethod
    def evidence_layer(self) -> nn.Module:
        """The module whose output ``(B, C, h, w)`` shows where the evidence lies: the last one before the pooling.

        Raises:
            ValueError: if the network has none.
        """

    def token_layout(self) -> TokenLayout:
        """How tokens of its attention lie over the image; a network that has one overrides this.

        Raises:
            ValueError: if the network has no attention, or none over patches of the whole image.
        """
        raise ValueError(f"{type(self).__name__} has no attention over patches of the image")
