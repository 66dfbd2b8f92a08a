"""Losses of whole images as pure functions: logits and classes in, a scalar out, in fp32.

Shape legend: ``B`` images, ``K`` classes or labels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.losses.divergence import kl_divergence
from neurotrain.losses.options import bounded

_SMALLEST_WEIGHT_SUM = 1e-12  # a batch may hold no class that has weight: its mean is then 0, not 0 / 0


def classification_cross_entropy(
    logits_BK: Tensor, target: Tensor, *, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    r"""Cross-entropy of softmax with classes or with distributions over them.

    ``-\sum_b \sum_k w_k q_bk \log p_bk / \sum_b w_{y_b}`` with ``q = (1 - s) y + s / K``. A target of probabilities
    (mixed images) weighs its classes by them; its mean is over ``\sum_b \sum_k w_k y_bk``, which is the same where all
    of it is on one class. (torch divides by the number of images there: a class's weight would change the scale.)

    Args:
        logits_BK: ``(B, K)``, any floating dtype.
        target: integer classes ``(B,)``, or probabilities ``(B, K)`` that sum to 1.
        class_weights: ``(K,)``; all 1 when None.
        label_smoothing: share of the target that is spread evenly over all classes, in [0, 1].

    Returns:
        Scalar in fp32 (fp64 for fp64 logits).

    Raises:
        ValueError: if shapes or dtypes do not fit, or ``label_smoothing`` is out of range.

    Reference:
        Szegedy et al., 2016 (arXiv:1512.00567), section 7, for the smoothing.

    Example:
        >>> classification_cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp().item()
        4.0
    """
    bounded("label_smoothing", label_smoothing, low=0, high=1)
    logits_BK, truth_BK = _distributions(logits_BK, target)
    classes = logits_BK.shape[1]
    weights_K = _weights(class_weights, logits_BK)
    wanted_BK = (1 - label_smoothing) * truth_BK + label_smoothing / classes
    total = -(weights_K * wanted_BK * F.log_softmax(logits_BK, 1)).sum()
    return total / (weights_K * truth_BK).sum().clamp_min(_SMALLEST_WEIGHT_SUM)


def classification_focal_loss(
    logits_BK: Tensor, target: Tensor, *, gamma: float = 2.0, class_weights: Tensor | None = None
) -> Tensor:
    r"""Focal loss of softmax: ``-(1 - p_y)^\gamma \log p_y``, mean over the weights of the images' classes.

    Args:
        logits_BK: ``(B, K)``, any floating dtype.
        target: integer classes ``(B,)``, or probabilities ``(B, K)``, whose classes' terms are summed by them.
        gamma: at least 0; 0 is cross-entropy.
        class_weights: ``(K,)``; all 1 when None.

    Returns:
        Scalar in fp32 (fp64 for fp64 logits).

    Raises:
        ValueError: if shapes or dtypes do not fit, or ``gamma`` is negative.

    Reference:
        Lin et al., 2017 (arXiv:1708.02002), equation 4.
    """
    bounded("gamma", gamma, low=0)
    logits_BK, truth_BK = _distributions(logits_BK, target)
    weights_K = _weights(class_weights, logits_BK)
    log_p_BK = F.log_softmax(logits_BK, 1)
    # A log of 1 - p that keeps its gradient finite at p = 1, where the power's would not be for gamma < 1.
    log_rest_BK = torch.log1p(-log_p_BK.exp().clamp(max=1 - torch.finfo(log_p_BK.dtype).eps))
    terms_BK = -(gamma * log_rest_BK).exp() * log_p_BK
    return (weights_K * truth_BK * terms_BK).sum() / (weights_K * truth_BK).sum().clamp_min(_SMALLEST_WEIGHT_SUM)


def multilabel_cross_entropy(
    logits_BK: Tensor, target_BK: Tensor, *, pos_weight: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of sigmoid, each label on its own, mean over all of them.

    Args:
        logits_BK: ``(B, K)``, any floating dtype.
        target_BK: ``(B, K)`` in {0, 1}, or probabilities.
        pos_weight: ``(K,)`` factor of positives; all 1 when None.
        label_smoothing: share of the target that is replaced by one half, in [0, 1].

    Returns:
        Scalar in fp32 (fp64 for fp64 logits).

    Raises:
        ValueError: if shapes do not fit, or ``label_smoothing`` is out of range.
    """
    bounded("label_smoothing", label_smoothing, low=0, high=1)
    if logits_BK.ndim != 2 or logits_BK.shape != target_BK.shape:
        raise ValueError(
            f"logits {tuple(logits_BK.shape)}, target {tuple(target_BK.shape)}: multilabel needs (B, K) of both"
        )
    logits_BK = _at_least_fp32(logits_BK)
    wanted_BK = (1 - label_smoothing) * target_BK.to(logits_BK.dtype) + label_smoothing / 2
    weights_K = None if pos_weight is None else pos_weight.to(logits_BK)
    return F.binary_cross_entropy_with_logits(logits_BK, wanted_BK, pos_weight=weights_K)


def distillation_loss(student_BK: Tensor, teacher_BK: Tensor, *, temperature: float = 4.0) -> Tensor:
    r"""``T^2 KL(softmax(teacher / T) || softmax(student / T))``, mean over images; the teacher gets no gradient.

    The factor keeps the gradient's size independent of the temperature.

    Args:
        student_BK: logits ``(B, K)``.
        teacher_BK: logits ``(B, K)``; detached here, whatever made them.
        temperature: T, above 0.

    Returns:
        Scalar in fp32 (fp64 for fp64 logits).

    Raises:
        ValueError: if shapes differ or ``temperature`` is not above 0.

    Reference:
        Hinton et al., 2015 (arXiv:1503.02531), section 2.

    Example:
        >>> logits = torch.tensor([[1.0, 2.0, 3.0]])
        >>> distillation_loss(logits, logits).item()
        0.0
    """
    if student_BK.ndim != 2 or student_BK.shape != teacher_BK.shape:
        raise ValueError(f"student {tuple(student_BK.shape)}, teacher {tuple(teacher_BK.shape)}: need (B, K) of both")
    return kl_divergence(student_BK, teacher_BK, temperature=temperature)


def _distributions(logits_BK: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if logits_BK.ndim != 2 or not logits_BK.is_floating_point():
        raise ValueError(f"logits must be floats (B, K), not {logits_BK.dtype} {tuple(logits_BK.shape)}")
    logits_BK = _at_least_fp32(logits_BK)
    if target.is_floating_point():
        if target.shape != logits_BK.shape:
            raise ValueError(f"target probabilities {tuple(target.shape)}, logits {tuple(logits_BK.shape)}: must agree")
        return logits_BK, target.to(logits_BK.dtype)
    if target.shape != logits_BK.shape[:1]:
        raise ValueError(f"target classes {tuple(target.shape)}, logits {tuple(logits_BK.shape)}: expected (B,)")
    return logits_BK, F.one_hot(target.long(), logits_BK.shape[1]).to(logits_BK.dtype)


def _weights(class_weights: Tensor | None, logits_BK: Tensor) -> Tensor:
    if class_weights is None:
        return logits_BK.new_ones(logits_BK.shape[1])
    if class_weights.shape != logits_BK.shape[1:]:
        raise ValueError(f"class_weights has {tuple(class_weights.shape)}, there are {logits_BK.shape[1]} classes")
    return class_weights.to(logits_BK)


def _at_least_fp32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
