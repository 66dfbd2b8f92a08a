"""Losses that compare regions by their overlap, computed from :class:`~neurotrain.losses.inputs.LossInputs`.

Definitions, ranges and references stand at the functions of the same meaning in :mod:`neurotrain.losses.functional`.
Shape legend: ``N`` is B per sample and absent where the batch is pooled; ``C`` are the K channels or, without
background, K - 1 of them.
"""

from __future__ import annotations

from torch import Tensor

from neurotrain.losses.inputs import LossInputs
from neurotrain.losses.options import bounded, check_length

# Below it the focal power is continued linearly: its slope at 0 is infinite for gamma < 1.
_SMALLEST_FOCAL_BASE = 1e-7


def dice(
    inputs: LossInputs, class_weights: Tensor | None, per_sample: bool, smooth: float, include_background: bool
) -> Tensor:
    """Scalar of :func:`~neurotrain.losses.functional.dice_loss`."""
    bounded("smooth", smooth, low=0, open_low=True)
    overlap_NC, predicted_NC, true_NC = _region_sums(inputs, per_sample, include_background)
    loss_NC = 1 - (2 * overlap_NC + smooth) / (predicted_NC + true_NC + smooth)
    return region_mean(loss_NC, inputs, class_weights, include_background)


def tversky(
    inputs: LossInputs,
    class_weights: Tensor | None,
    alpha: float,
    beta: float,
    gamma: float,
    per_sample: bool,
    smooth: float,
    include_background: bool,
) -> Tensor:
    """Scalar of :func:`~neurotrain.losses.functional.tversky_loss`."""
    bounded("alpha", alpha, low=0)
    bounded("beta", beta, low=0)
    bounded("gamma", gamma, low=0, open_low=True)
    bounded("smooth", smooth, low=0, open_low=True)
    overlap_NC, predicted_NC, true_NC = _region_sums(inputs, per_sample, include_background)
    false_NC = alpha * (predicted_NC - overlap_NC) + beta * (true_NC - overlap_NC)
    loss_NC = 1 - (overlap_NC + smooth) / (overlap_NC + false_NC + smooth)
    if gamma != 1:
        loss_NC = loss_NC * loss_NC.clamp_min(_SMALLEST_FOCAL_BASE) ** (gamma - 1)
    return region_mean(loss_NC, inputs, class_weights, include_background)


def reduced_dims(inputs: LossInputs, *, per_sample: bool) -> tuple[int, ...]:
    """Axes that a region sums over: the spatial ones, and the batch unless ``per_sample``."""
    return inputs.spatial_dims if per_sample else (0, *inputs.spatial_dims)


def region_mean(loss_NC: Tensor, inputs: LossInputs, class_weights: Tensor | None, include_background: bool) -> Tensor:
    """Mean over the samples that have counted pixels, and weighted mean over the classes.

    Args:
        loss_NC: ``(B, C)`` per sample, or ``(C,)`` pooled.
        inputs: what the loss was computed from.
        class_weights: K weights, normalised here to sum 1; with ``include_background=False`` the first is not used.
        include_background: whether channel 0 is among the C classes.

    Returns:
        Scalar.

    Raises:
        ValueError: if the number of weights is not K.
    """
    if class_weights is None:
        loss_N = loss_NC.mean(-1)
    else:
        check_length("class_weights", class_weights, inputs.num_classes, f"logits have K={inputs.num_classes} channels")
        weights_C = class_weights.to(loss_NC)[0 if include_background else 1 :]
        loss_N = (loss_NC * weights_C).sum(-1) / weights_C.sum()
    if loss_N.ndim == 0:
        return loss_N
    if inputs.has_pixels is None:
        return loss_N.mean()
    return (loss_N * inputs.has_pixels).sum() / inputs.has_pixels.sum().clamp_min(1)


def _region_sums(inputs: LossInputs, per_sample: bool, include_background: bool) -> tuple[Tensor, Tensor, Tensor]:
    first = 0 if include_background else 1
    predicted_BCS, true_BCS = inputs.probabilities[:, first:], inputs.membership[:, first:]
    dims = reduced_dims(inputs, per_sample=per_sample)
    # Not an einsum: autocast would run it in half precision.
    return (predicted_BCS * true_BCS).sum(dims), predicted_BCS.sum(dims), true_BCS.sum(dims)
