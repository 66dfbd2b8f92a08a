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
        num_classes: K.
    """

    num_classes: int

    @abstractmethod
    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits ``(B, K)``."""

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
