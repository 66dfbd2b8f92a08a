"""Signed distance maps and the loss that weighs probabilities by them.

Definitions, ranges and references stand at the functions of the same meaning in :mod:`neurotrain.losses.functional`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neurotrain.losses.inputs import LossInputs
from neurotrain.losses.overlap import region_mean


def signed_distance_map(
    membership: Tensor, *, valid: Tensor | None = None, spacing: Sequence[float] | None = None
) -> Tensor:
    """Distance of each pixel to the border of its class, positive outside; inside, negative or 0 on the border itself.

    Outside it is the distance to the nearest pixel of the class. Inside it is the distance to the nearest pixel beyond,
    less the smallest side of a pixel, with a minus sign.

    Pixels that do not count belong to neither side: no distance is measured to them, and theirs is 0. A class that
    fills none or all of a sample's counted pixels has no border there; its map is 0.

    Args:
        membership: ``(B, K, *spatial)``, non-zero where a pixel belongs to the class.
        valid: bool ``(B, *spatial)``; every pixel counts when None.
        spacing: size of a pixel along each spatial axis; 1 when None.

    Returns:
        float32 ``(B, K, *spatial)`` on the device of ``membership``, in the unit of ``spacing``. The transform runs on
        the CPU, so an accelerator waits for it.

    Raises:
        ValueError: if ``spacing`` does not have one positive entry for each spatial axis.

    Reference:
        Kervadec et al., 2019 (arXiv:1812.07032), the level set function ``phi``. Its code ``LIVIAETS/boundary-loss``
        subtracts 1 inside whatever the spacing, which makes pixels nearer to the border than that positive; for unit
        spacing both agree.

    Example:
        >>> signed_distance_map(torch.tensor([[[[0, 0, 1, 1, 1]]]])).flatten().tolist()
        [2.0, 1.0, 0.0, -1.0, -2.0]
    """
    axes = membership.ndim - 2
    sides = (1.0,) * axes if spacing is None else tuple(float(side) for side in spacing)
    if len(sides) != axes or not all(0 < side < float("inf") for side in sides):
        raise ValueError(f"spacing={sides} must have one positive entry for each of the {axes} spatial axes")
    inside = membership.detach().cpu() != 0
    counted = torch.ones_like(inside) if valid is None else valid.detach().cpu().unsqueeze(1).expand_as(inside)
    distance = torch.zeros(inside.shape)
    for sample in range(inside.shape[0]):
        for channel in range(inside.shape[1]):
            here = sample, channel
            distance[here] = _signed_distance(inside[here] & counted[here], ~inside[here] & counted[here], sides)
    return distance.to(membership.device)


def boundary(
    inputs: LossInputs, class_weights: Tensor | None, spacing: Sequence[float] | None, include_background: bool
) -> Tensor:
    """Scalar of :func:`~neurotrain.losses.functional.boundary_loss`."""
    first = 0 if include_background else 1
    valid_BS = None if inputs.valid is None else inputs.valid[:, 0]
    distance_BCS = signed_distance_map(inputs.membership[:, first:], valid=valid_BS, spacing=spacing)
    total_C = (inputs.probabilities[:, first:] * distance_BCS).sum((0, *inputs.spatial_dims))
    return region_mean(total_C / inputs.count, inputs, class_weights, include_background)


def _signed_distance(inside: Tensor, outside: Tensor, sides: tuple[float, ...]) -> Tensor:
    if not inside.any() or not outside.any():
        return torch.zeros(inside.shape)
    from scipy.ndimage import distance_transform_edt

    def to_nearest(goal: Tensor) -> Tensor:
        return torch.as_tensor(distance_transform_edt(~goal.numpy(), sampling=sides))

    return to_nearest(inside) * outside - (to_nearest(outside) - min(sides)) * inside
