"""Losses that are means over pixels, computed from :class:`~neurotrain.losses.inputs.LossInputs`.

Definitions, ranges and references stand at the functions of the same meaning in :mod:`neurotrain.losses.functional`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.losses.inputs import IGNORED_LABEL, LossInputs
from neurotrain.losses.options import bounded, check_length

# A batch may hold no pixel of a class that has weight: its weighted mean is then 0, not 0 / 0.
_SMALLEST_WEIGHT_SUM = 1e-12


def softmax_cross_entropy(inputs: LossInputs, class_weights: Tensor | None, label_smoothing: float) -> Tensor:
    """Scalar of :func:`~neurotrain.losses.functional.cross_entropy`."""
    bounded("label_smoothing", label_smoothing, low=0, high=1)
    weights_K = _weights(inputs, class_weights)
    total = F.cross_entropy(
        inputs.logits,
        inputs.labels,
        weight=weights_K,
        ignore_index=IGNORED_LABEL,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    if weights_K is None:
        return total / inputs.count
    return total / _label_weights(inputs, weights_K).sum().clamp_min(_SMALLEST_WEIGHT_SUM)


def sigmoid_cross_entropy(
    inputs: LossInputs, class_weights: Tensor | None, pos_weight: Tensor | None, label_smoothing: float
) -> Tensor:
    """Scalar of :func:`~neurotrain.losses.functional.binary_cross_entropy`."""
    bounded("label_smoothing", label_smoothing, low=0, high=1)
    channels = inputs.logits.shape[1]
    check_length("pos_weight", pos_weight, channels, f"mode={inputs.mode!r} has K={channels} channels")
    positive_1K1: Tensor | float = 1.0
    if pos_weight is not None:
        positive_1K1 = pos_weight.to(inputs.logits).view(1, -1, *[1] * len(inputs.spatial_dims))
    if label_smoothing:
        loss_BKS = _smoothed_cross_entropy(inputs, positive_1K1, label_smoothing)
    else:
        # softplus(z) - y z cancels for confident logits; softplus((1 - 2y) z) does not, and is one pass less.
        loss_BKS = F.softplus(inputs.negative_margin)
        if pos_weight is not None:
            loss_BKS = loss_BKS * (1 + (positive_1K1 - 1) * inputs.membership)
    return _sigmoid_mean(loss_BKS, inputs, class_weights)


def focal(inputs: LossInputs, class_weights: Tensor | None, gamma: float, alpha: float | None) -> Tensor:
    """Scalar of :func:`~neurotrain.losses.functional.focal_loss`."""
    bounded("gamma", gamma, low=0)
    checked_alpha(alpha, inputs.mode)
    if inputs.mode == "multiclass":
        return _softmax_focal(inputs, class_weights, gamma)
    margin_BKS = inputs.negative_margin
    # (1 - p_t)^gamma as an exponential: the power's derivative is infinite at p_t = 1 for gamma < 1.
    loss_BKS = torch.exp(gamma * F.logsigmoid(margin_BKS)) * F.softplus(margin_BKS)
    if alpha is not None:
        loss_BKS = loss_BKS * ((1 - alpha) + (2 * alpha - 1) * inputs.membership)
    return _sigmoid_mean(loss_BKS, inputs, class_weights)


def checked_alpha(alpha: float | None, mode: str) -> float | None:
    """Return the balance of positives and negatives, for the sigmoid modes.

    Raises:
        ValueError: if it lies outside ``[0, 1]``, or is given in ``multiclass``.
    """
    if alpha is None:
        return None
    if mode == "multiclass":
        raise ValueError(f"alpha={alpha} has no effect in mode='multiclass': use class_weights")
    return bounded("alpha", alpha, low=0, high=1)


def _smoothed_cross_entropy(inputs: LossInputs, positive_1K1: Tensor | float, label_smoothing: float) -> Tensor:
    soft_BKS = inputs.membership * (1 - label_smoothing) + label_smoothing / 2
    logits_BKS = inputs.logits
    loss_BKS = (1 - soft_BKS) * F.softplus(logits_BKS) + positive_1K1 * soft_BKS * F.softplus(-logits_BKS)
    # Smoothing gives masked pixels a positive share, so here they must be taken out by hand.
    return loss_BKS if inputs.valid is None else torch.where(inputs.valid, loss_BKS, 0.0)


def _softmax_focal(inputs: LossInputs, class_weights: Tensor | None, gamma: float) -> Tensor:
    labels_B1S = inputs.labels.clamp_min(0).unsqueeze(1)
    log_p_B1S = F.log_softmax(inputs.logits, dim=1).gather(1, labels_B1S)
    error_B1S = (-torch.expm1(log_p_B1S)).clamp_min(torch.finfo(log_p_B1S.dtype).eps)
    loss_B1S = -(error_B1S**gamma) * log_p_B1S
    weights_K = _weights(inputs, class_weights)
    if weights_K is None:
        kept_B1S = loss_B1S if inputs.valid is None else torch.where(inputs.valid, loss_B1S, 0.0)
        return kept_B1S.sum() / inputs.count
    weights_BS = _label_weights(inputs, weights_K)
    return (loss_B1S[:, 0] * weights_BS).sum() / weights_BS.sum().clamp_min(_SMALLEST_WEIGHT_SUM)


def _weights(inputs: LossInputs, class_weights: Tensor | None) -> Tensor | None:
    reason = f"mode={inputs.mode!r} has {inputs.num_classes} classes"
    if inputs.mode == "binary":
        reason += " (background, foreground)"
    check_length("class_weights", class_weights, inputs.num_classes, reason)
    return None if class_weights is None else class_weights.to(inputs.logits)


def _label_weights(inputs: LossInputs, weights_K: Tensor) -> Tensor:
    weights_BS = weights_K[inputs.labels.clamp_min(0)]
    return weights_BS if inputs.valid is None else torch.where(inputs.valid[:, 0], weights_BS, 0.0)


def _sigmoid_mean(loss_BKS: Tensor, inputs: LossInputs, class_weights: Tensor | None) -> Tensor:
    """Weighted mean of a loss that is 0 at masked pixels."""
    weights_K = _weights(inputs, class_weights)
    if weights_K is None:
        return loss_BKS.sum() / (inputs.count * loss_BKS.shape[1])
    if inputs.mode == "multilabel":
        total_K = loss_BKS.sum((0, *inputs.spatial_dims))
        return (weights_K * total_K).sum() / (weights_K.sum() * inputs.count)
    background, foreground = weights_K.unbind()
    positive_BKS, extra = inputs.membership, foreground - background
    weight_sum = background * inputs.count + extra * positive_BKS.sum()
    return (loss_BKS * (background + extra * positive_BKS)).sum() / weight_sum.clamp_min(_SMALLEST_WEIGHT_SUM)
