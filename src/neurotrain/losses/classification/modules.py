"""Losses of whole images as modules; the mathematics are in :mod:`neurotrain.losses.classification.functional`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from neurotrain.losses.classification.functional import (
    classification_cross_entropy,
    classification_focal_loss,
    multilabel_cross_entropy,
)
from neurotrain.losses.options import bounded, weight_tensor

ClassificationMode = Literal["multiclass", "multilabel"]
"""``multiclass``: one class an image; ``multilabel``: each label apart."""


class ClassificationLoss(nn.Module, ABC):
    """A scalar from logits ``(B, K)`` and classes ``(B,)``, or probabilities of each ``(B, K)``.

    Attributes:
        mode: how the target reads.
    """

    mode: ClassificationMode

    @abstractmethod
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss; see the function of the same name for shapes, dtypes and what it raises."""

    def sample_weights(self, target: Tensor) -> Tensor:
        """Return how much each sample counts in the mean that :meth:`forward` is: ``(B,)``, all 1 unless overridden."""
        return torch.ones(len(target), device=target.device)


class ClassificationCrossEntropy(ClassificationLoss):
    """Module of :func:`~neurotrain.losses.classification.functional.classification_cross_entropy`.

    Args:
        class_weights: factor of each class; None: all 1.
        label_smoothing: in [0, 1].

    Raises:
        ValueError: if a number is out of range.
    """

    mode = "multiclass"
    class_weights: Tensor | None

    def __init__(self, *, class_weights: tuple[float, ...] | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("class_weights", weight_tensor("class_weights", class_weights), persistent=False)
        self.label_smoothing = bounded("label_smoothing", label_smoothing, low=0, high=1)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the scalar."""
        return classification_cross_entropy(
            logits, target, class_weights=self.class_weights, label_smoothing=self.label_smoothing
        )

    def sample_weights(self, target: Tensor) -> Tensor:
        """The classes' own weights."""
        if self.class_weights is None:
            return super().sample_weights(target)
        weights_K = self.class_weights.to(target.device)
        return weights_K[target] if target.ndim == 1 else target.to(weights_K) @ weights_K


class ClassificationFocal(ClassificationLoss):
    """Module of :func:`~neurotrain.losses.classification.functional.classification_focal_loss`.

    Args:
        gamma: at least 0.
        class_weights: factor of each class; None: all 1.

    Raises:
        ValueError: if a number is out of range.
    """

    mode = "multiclass"
    class_weights: Tensor | None

    def __init__(self, *, gamma: float = 2.0, class_weights: tuple[float, ...] | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", weight_tensor("class_weights", class_weights), persistent=False)
        self.gamma = bounded("gamma", gamma, low=0)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the scalar."""
        return classification_focal_loss(logits, target, gamma=self.gamma, class_weights=self.class_weights)

    def sample_weights(self, target: Tensor) -> Tensor:
        """The classes' own weights."""
        if self.class_weights is None:
            return super().sample_weights(target)
        weights_K = self.class_weights.to(target.device)
        return weights_K[target] if target.ndim == 1 else target.to(weights_K) @ weights_K


class MultilabelCrossEntropy(ClassificationLoss):
    """Module of :func:`~neurotrain.losses.classification.functional.multilabel_cross_entropy`.

    Args:
        pos_weight: factor of each label's positives; None: all 1.
        label_smoothing: in [0, 1].

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import torch
        >>> loss = MultilabelCrossEntropy()
        >>> round(loss(torch.zeros(1, 2), torch.tensor([[0, 1]])).item(), 4)
        0.6931
    """

    mode = "multilabel"
    pos_weight: Tensor | None

    def __init__(self, *, pos_weight: tuple[float, ...] | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("pos_weight", weight_tensor("pos_weight", pos_weight), persistent=False)
        self.label_smoothing = bounded("label_smoothing", label_smoothing, low=0, high=1)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the scalar."""
        return multilabel_cross_entropy(
            logits, target, pos_weight=self.pos_weight, label_smoothing=self.label_smoothing
        )
