"""Soft skeletons and the loss that compares them: for vessels, roads, neurites.

Definitions, ranges and references stand at the functions of the same meaning in :mod:`neurotrain.losses.functional`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.losses.inputs import LossInputs
from neurotrain.losses.options import bounded
from neurotrain.losses.overlap import reduced_dims, region_mean


def soft_skeleton(image: Tensor, *, iterations: int = 3) -> Tensor:
    r"""Differentiable skeleton: what an opening removes, gathered over repeated erosions.

    With :math:`I_0 = I`, :math:`I_{j+1} = \mathrm{erode}(I_j)` and
    :math:`\delta_j = \mathrm{relu}(I_j - \mathrm{dilate}(I_{j+1}))`, the skeleton starts at :math:`\delta_0` and grows
    by :math:`\mathrm{relu}(\delta_j - S \delta_j)`. Erosion is the minimum over the axial neighbours, dilation the
    maximum over the full 3-neighbourhood; beyond the image there is nothing to erode from.

    Args:
        image: floating ``(B, C, *spatial)`` in ``[0, 1]``, 2-D or 3-D.
        iterations: erosions, at least 0; choose the largest radius of the structures, in pixels.

    Returns:
        Skeleton of the same shape, in ``[0, 1]``.

    Raises:
        ValueError: if ``iterations`` is negative or ``image`` has neither two nor three spatial axes.

    Reference:
        Shit et al., 2021 (arXiv:2003.07311), algorithm 1; constants as in its reference code ``jocpae/clDice``.

    Example:
        A bar of width 3 thins to its middle row.

        >>> bar = torch.zeros(1, 1, 5, 7)
        >>> bar[..., 1:4, :] = 1
        >>> soft_skeleton(bar, iterations=2)[0, 0, :, 3].tolist()
        [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    if iterations < 0:
        raise ValueError(f"iterations={iterations} lies outside [0, inf)")
    if image.ndim not in (4, 5):
        raise ValueError(f"image has shape {tuple(image.shape)}, expected (B, C, H, W) or (B, C, D, H, W)")
    eroded = _erode(image)
    skeleton = F.relu(image - _dilate(eroded))
    for _ in range(iterations):
        image, eroded = eroded, _erode(eroded)
        found = F.relu(image - _dilate(eroded))
        skeleton = skeleton + F.relu(found - skeleton * found)
    return skeleton


def centerline_dice(
    inputs: LossInputs,
    class_weights: Tensor | None,
    iterations: int,
    per_sample: bool,
    smooth: float,
    include_background: bool,
) -> Tensor:
    """Scalar of :func:`~neurotrain.losses.functional.centerline_dice_loss`."""
    bounded("smooth", smooth, low=0, open_low=True)
    first = 0 if include_background else 1
    predicted, true = inputs.probabilities[:, first:], inputs.membership[:, first:]
    dims = reduced_dims(inputs, per_sample=per_sample)
    skeleton_predicted = soft_skeleton(predicted, iterations=iterations)
    skeleton_true = soft_skeleton(true, iterations=iterations)
    precision_NC = ((skeleton_predicted * true).sum(dims) + smooth) / (skeleton_predicted.sum(dims) + smooth)
    sensitivity_NC = ((skeleton_true * predicted).sum(dims) + smooth) / (skeleton_true.sum(dims) + smooth)
    loss_NC = 1 - 2 * precision_NC * sensitivity_NC / (precision_NC + sensitivity_NC)
    return region_mean(loss_NC, inputs, class_weights, include_background)


def _max_pool(image: Tensor, size: tuple[int, ...]) -> Tensor:
    padding = tuple(length // 2 for length in size)
    return (F.max_pool2d if len(size) == 2 else F.max_pool3d)(image, size, stride=1, padding=padding)


def _erode(image: Tensor) -> Tensor:
    axes = image.ndim - 2
    negative = -image
    reach = [_max_pool(negative, tuple(3 if i == axis else 1 for i in range(axes))) for axis in range(axes)]
    highest = reach[0]
    for other in reach[1:]:
        highest = torch.maximum(highest, other)
    return -highest


def _dilate(image: Tensor) -> Tensor:
    return _max_pool(image, (3,) * (image.ndim - 2))
