"""What a classification network tells beside its logits: how deep a parameter lies, and where to look for evidence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn


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
