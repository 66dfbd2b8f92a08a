"""Segmentation losses as modules; the mathematics are in :mod:`neurotrain.losses.functional`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from neurotrain.batch import SegmentationMode
from neurotrain.losses import boundary, overlap, pixelwise, topology
from neurotrain.losses.inputs import LossInputs
from neurotrain.losses.options import (
    BINARY_MODES,
    MULTICLASS_MODES,
    bounded,
    check_length,
    check_mode,
    check_region_options,
    weight_tensor,
)


class SegmentationLoss(nn.Module, ABC):
    """A scalar from logits and labels.

    A subclass states :meth:`compute`, which gets its inputs checked, masked and in fp32, and may share them with other
    losses of a :class:`WeightedSum`.

    Attributes:
        mode: how the labels read.
        class_weights: buffer outside the state dict, or None: weights are configuration, not something learned.
    """

    class_weights: Tensor | None

    def __init__(self, *, mode: SegmentationMode, class_weights: tuple[float, ...] | None = None) -> None:
        """Keep mode and weights.

        Args:
            mode: see :data:`neurotrain.batch.SegmentationMode`.
            class_weights: see :mod:`neurotrain.losses.functional`.

        Raises:
            ValueError: for an unknown mode or unusable weights.
        """
        super().__init__()
        check_mode(mode)
        self.mode: SegmentationMode = mode
        self.register_buffer("class_weights", weight_tensor("class_weights", class_weights), persistent=False)

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            logits: ``(B, K, *spatial)``, any floating dtype.
            target: integer labels ``(B, *spatial)``, or ``(B, K, *spatial)`` for multilabel.
            valid: bool ``(B, *spatial)``, True where a pixel counts; all count when None.

        Returns:
            Scalar in fp32 (fp64 for fp64 logits); 0 with gradient 0 if no pixel counts.

        Raises:
            ValueError: if shapes, dtypes and mode do not fit together.
        """
        return self.compute(LossInputs(logits, target, mode=self.mode, valid=valid))

    @abstractmethod
    def compute(self, inputs: LossInputs) -> Tensor:
        """Compute the scalar from inputs of this loss's mode."""


class CrossEntropyLoss(SegmentationLoss):
    """Module of :func:`neurotrain.losses.functional.cross_entropy`."""

    def __init__(
        self,
        *,
        mode: Literal["multiclass"] = "multiclass",
        class_weights: tuple[float, ...] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        """Keep the options; their meaning and what they raise stand at the function."""
        check_mode(mode, allowed=MULTICLASS_MODES, owner="CrossEntropyLoss")
        super().__init__(mode=mode, class_weights=class_weights)
        self.label_smoothing = bounded("label_smoothing", label_smoothing, low=0, high=1)

    def compute(self, inputs: LossInputs) -> Tensor:
        """Compute the scalar from inputs of this loss's mode."""
        return pixelwise.softmax_cross_entropy(inputs, self.class_weights, self.label_smoothing)


class BinaryCrossEntropyLoss(SegmentationLoss):
    """Module of :func:`neurotrain.losses.functional.binary_cross_entropy`."""

    pos_weight: Tensor | None

    def __init__(
        self,
        *,
        mode: Literal["binary", "multilabel"],
        class_weights: tuple[float, ...] | None = None,
        pos_weight: tuple[float, ...] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        """Keep the options; their meaning and what they raise stand at the function."""
        check_mode(mode, allowed=BINARY_MODES, owner="BinaryCrossEntropyLoss")
        super().__init__(mode=mode, class_weights=class_weights)
        _check_binary_weights(mode, self.class_weights)
        self.register_buffer("pos_weight", weight_tensor("pos_weight", pos_weight), persistent=False)
        self.label_smoothing = bounded("label_smoothing", label_smoothing, low=0, high=1)

    def compute(self, inputs: LossInputs) -> Tensor:
        """Compute the scalar from inputs of this loss's mode."""
        return pixelwise.sigmoid_cross_entropy(inputs, self.class_weights, self.pos_weight, self.label_smoothing)


class FocalLoss(SegmentationLoss):
    """Module of :func:`neurotrain.losses.functional.focal_loss`."""

    def __init__(
        self,
        *,
        mode: SegmentationMode,
        class_weights: tuple[float, ...] | None = None,
        gamma: float = 2.0,
        alpha: float | None = None,
    ) -> None:
        """Keep the options; their meaning and what they raise stand at the function."""
        super().__init__(mode=mode, class_weights=class_weights)
        _check_binary_weights(mode, self.class_weights)
        self.gamma = bounded("gamma", gamma, low=0)
        self.alpha = pixelwise.checked_alpha(alpha, mode)

    def compute(self, inputs: LossInputs) -> Tensor:
        """Compute the scalar from inputs of this loss's mode."""
        return pixelwise.focal(inputs, self.class_weights, self.gamma, self.alpha)


class DiceLoss(SegmentationLoss):
    """Module of :func:`neurotrain.losses.functional.dice_loss`."""

    def __init__(
        self,
        *,
        mode: SegmentationMode,
        class_weights: tuple[float, ...] | None = None,
        per_sample: bool = False,
        smooth: float = 1.0,
        include_background: bool = True,
    ) -> None:
        """Keep the options; their meaning and what they raise stand at the function."""
        super().__init__(mode=mode, class_weights=class_weights)
        check_region_options(mode, class_weights, include_background)
        self.per_sample = per_sample
        self.smooth = bounded("smooth", smooth, low=0, open_low=True)
        self.include_background = include_background

    def compute(self, inputs: LossInputs) -> Tensor:
        """Compute the scalar from inputs of this loss's mode."""
        return overlap.dice(inputs, self.class_weights, self.per_sample, self.smooth, self.include_background)


class TverskyLoss(SegmentationLoss):
    """Module of :func:`neurotrain.losses.functional.tversky_loss`."""

    def __init__(
        self,
        *,
        mode: SegmentationMode,
        class_weights: tuple[float, ...] | None = None,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 1.0,
        per_sample: bool = False,
        smooth: float = 1.0,
        include_background: bool = True,
    ) -> None:
        """Keep the options; their meaning and what they raise stand at the function."""
        super().__init__(mode=mode, class_weights=class_weights)
        check_region_options(mode, class_weights, include_background)
        self.alpha = bounded("alpha", alpha, low=0)
        self.beta = bounded("beta", beta, low=0)
        self.gamma = bounded("gamma", gamma, low=0, open_low=True)
        self.per_sample = per_sample
        self.smooth = bounded("smooth", smooth, low=0, open_low=True)
        self.include_background = include_background

    def compute(self, inputs: LossInputs) -> Tensor:
        """Compute the scalar from inputs of this loss's mode."""
        return overlap.tversky(
            inputs,
            self.class_weights,
            self.alpha,
            self.beta,
            self.gamma,
            self.per_sample,
            self.smooth,
            self.include_background,
        )


class CenterlineDiceLoss(SegmentationLoss):
    """Module of :func:`neurotrain.losses.functional.centerline_dice_loss`."""

    def __init__(
        self,
        *,
        mode: SegmentationMode,
        class_weights: tuple[float, ...] | None = None,
        iterations: int = 3,
        per_sample: bool = False,
        smooth: float = 1.0,
        include_background: bool = True,
    ) -> None:
        """Keep the options; their meaning and what they raise stand at the function."""
        super().__init__(mode=mode, class_weights=class_weights)
        check_region_options(mode, class_weights, include_background)
        bounded("iterations", iterations, low=0)
        self.iterations = iterations
        self.per_sample = per_sample
        self.smooth = bounded("smooth", smooth, low=0, open_low=True)
        self.include_background = include_background

    def compute(self, inputs: LossInputs) -> Tensor:
        """Compute the scalar from inputs of this loss's mode."""
        return topology.centerline_dice(
            inputs, self.class_weights, self.iterations, self.per_sample, self.smooth, self.include_background
        )


class BoundaryLoss(SegmentationLoss):
    """Module of :func:`neurotrain.losses.functional.boundary_loss`."""

    def __init__(
        self,
        *,
        mode: SegmentationMode,
        class_weights: tuple[float, ...] | None = None,
        spacing: tuple[float, ...] | None = None,
        include_background: bool = True,
    ) -> None:
        """Keep the options; their meaning and what they raise stand at the function."""
        super().__init__(mode=mode, class_weights=class_weights)
        check_region_options(mode, class_weights, include_background)
        self.spacing = None if spacing is None else tuple(bounded("spacing", x, low=0, open_low=True) for x in spacing)
        self.include_background = include_background

    def compute(self, inputs: LossInputs) -> Tensor:
        """Compute the scalar from inputs of this loss's mode."""
        return boundary.boundary(inputs, self.class_weights, self.spacing, self.include_background)


class WeightedSum(SegmentationLoss):
    """Weighted sum of losses over the same inputs, which are checked, masked and activated once for all of them.

    Attributes:
        losses: the terms by name.
        weights: factor of each term.

    Example:
        >>> import torch
        >>> terms = {"bce": BinaryCrossEntropyLoss(mode="binary"), "dice": DiceLoss(mode="binary")}
        >>> loss = WeightedSum(losses=terms, weights={"bce": 1.0, "dice": 0.5})
        >>> logits, target = torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2, dtype=torch.int64)
        >>> parts = loss.components(logits, target)
        >>> {name: round(part.item(), 4) for name, part in parts.items()}
        {'bce': 0.6931, 'dice': 0.2857}
        >>> bool(loss(logits, target) == loss.combine(parts))
        True
    """

    def __init__(self, *, losses: Mapping[str, SegmentationLoss], weights: Mapping[str, float] | None = None) -> None:
        """Keep the terms and their weights.

        Args:
            losses: at least one loss by name, all of one mode. Names hold no dot.
            weights: a finite factor of at least 0 for each name; all 1 when None.

        Raises:
            ValueError: if there is no loss, modes differ, names of both differ, or a weight is unusable.
        """
        modes: dict[str, SegmentationMode] = {name: loss.mode for name, loss in losses.items()}
        if len(set(modes.values())) != 1:
            raise ValueError(f"losses must hold at least one loss, all of one mode; got modes {modes}")
        factors = dict.fromkeys(losses, 1.0) if weights is None else dict(weights)
        if set(factors) != set(losses):
            raise ValueError(f"weights name {sorted(factors)}, but losses name {sorted(losses)}")
        super().__init__(mode=next(iter(modes.values())))
        self.losses = nn.ModuleDict(losses)
        self.weights = {name: bounded(f"weights[{name!r}]", factors[name], low=0) for name in losses}

    def components(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
        """Compute each term, not yet weighted; arguments and errors as in :meth:`forward`.

        Returns:
            A scalar for each name; :meth:`combine` makes the sum of them without computing anything twice.
        """
        return self._terms(LossInputs(logits, target, mode=self.mode, valid=valid))

    def combine(self, components: Mapping[str, Tensor]) -> Tensor:
        """Sum the terms that :meth:`components` returned, each times its weight."""
        total: Tensor | None = None
        for name, weight in self.weights.items():
            term = components[name] if weight == 1 else components[name] * weight
            total = term if total is None else total + term
        assert total is not None
        return total

    def compute(self, inputs: LossInputs) -> Tensor:
        """Compute the scalar from inputs of this loss's mode."""
        return self.combine(self._terms(inputs))

    def _terms(self, inputs: LossInputs) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for name, loss in self.losses.items():
            assert isinstance(loss, SegmentationLoss)
            terms[name] = loss.compute(inputs)
        return terms


def _check_binary_weights(mode: str, class_weights: Tensor | None) -> None:
    if mode == "binary":
        check_length("class_weights", class_weights, 2, "mode='binary' has 2 classes (background, foreground)")
