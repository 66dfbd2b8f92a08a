"""Panoptic segmentation from the bottom up: a map of centres, and at each pixel of a thing the way to its centre.

Shape legend: ``B`` images, ``*spatial`` two or three axes (``S`` in suffixes), ``d`` how many those are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neurotrain.losses.options import bounded


class CentreTargets(NamedTuple):
    """What a network is to say.

    Attributes:
        heat: float32 ``(B, 1, *spatial)`` in [0, 1]: 1 at each instance's centre of mass, falling off as a Gaussian.
        offset: float32 ``(B, d, *spatial)``: centre minus place, in pixels, by axis; 0 outside of things.
        things: bool ``(B, *spatial)``: where there is an instance.
    """

    heat: Tensor
    offset: Tensor
    things: Tensor


def centre_targets(instance_BS: Tensor, *, sigma: float = 8.0, valid_BS: Tensor | None = None) -> CentreTargets:
    r"""Centres and offsets of instances.

    Args:
        instance_BS: integers ``(B, *spatial)``: 0 is no thing, any other number names an instance of its image.
        sigma: of the Gaussian, in pixels, above 0; overlapping ones take the greater value.
        valid_BS: bool ``(B, *spatial)``, False where a pixel belongs to nothing that counts; all count when None.

    Returns:
        See :class:`CentreTargets`.

    Raises:
        ValueError: if the dtype does not fit, or ``sigma`` is not above 0.

    Reference:
        Cheng et al., 2020 (arXiv:1911.10194), section 3.2.

    Example:
        >>> found = centre_targets(torch.tensor([[[7, 7, 7, 0]]]), sigma=1.0)
        >>> found.offset[0, 1, 0].tolist(), found.heat[0, 0, 0, 1].item()
        ([1.0, 0.0, -1.0, 0.0], 1.0)
    """
    bounded("sigma", sigma, low=0, open_low=True)
    if instance_BS.ndim not in (3, 4) or instance_BS.is_floating_point():
        raise ValueError(f"instance is {instance_BS.dtype} {tuple(instance_BS.shape)}, expected integers (B, *spatial)")
    size, device = instance_BS.shape[1:], instance_BS.device
    things_BS = instance_BS != 0
    if valid_BS is not None:
        things_BS = things_BS & valid_BS
    axes = [torch.arange(extent, dtype=torch.float32, device=device) for extent in size]
    place_dS = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    heat = torch.zeros(len(instance_BS), 1, *size, device=device)
    offset = torch.zeros(len(instance_BS), len(size), *size, device=device)
    for row, (instance_S, things_S) in enumerate(zip(instance_BS, things_BS, strict=True)):
        own_P = torch.unique(instance_S[things_S], return_inverse=True)[1]
        places_Pd = place_dS[:, things_S].T
        count_C = torch.bincount(own_P)
        total_Cd = places_Pd.new_zeros(len(count_C), len(size), dtype=torch.float64)
        centre_Cd = (total_Cd.index_add(0, own_P, places_Pd.double()) / count_C[:, None]).float()
        offset[row][:, things_S] = (centre_Cd[own_P] - places_Pd).T
        for centre_d in centre_Cd:  # one at a time: all at once would be as many images as there are things
            distance_S = (place_dS - centre_d.view(-1, *[1] * len(size))).square().sum(0)
            heat[row, 0] = torch.maximum(heat[row, 0], torch.exp(-distance_S / (2 * sigma**2)))
    return CentreTargets(heat, offset, things_BS)


def centre_loss(heat_B1S: Tensor, target_B1S: Tensor, *, valid_BS: Tensor | None = None) -> Tensor:
    """Mean squared error of the map of centres over the pixels that count.

    Args:
        heat_B1S: predicted, ``(B, 1, *spatial)``, any floating dtype.
        target_B1S: see :class:`CentreTargets`.
        valid_BS: bool ``(B, *spatial)``, False where a pixel does not count (whatever it holds); all when None.

    Returns:
        Scalar in fp32 (fp64 for fp64 predictions); 0 with gradient 0 where no pixel counts.

    Raises:
        ValueError: if shapes do not fit.

    Reference:
        Cheng et al., 2020 (arXiv:1911.10194), section 3.2, equation 1.
    """
    if heat_B1S.shape != target_B1S.shape or heat_B1S.ndim not in (4, 5) or heat_B1S.shape[1] != 1:
        raise ValueError(f"heat {tuple(heat_B1S.shape)}, target {tuple(target_B1S.shape)}: need (B, 1, *spatial)")
    return _mean_over_places((_exact(heat_B1S), target_B1S), valid_BS, power=2)


def offset_loss(offset_BdS: Tensor, target_BdS: Tensor, things_BS: Tensor) -> Tensor:
    """Absolute error of the way to the centre, summed over the axes, mean over the pixels of things.

    Args:
        offset_BdS: predicted, ``(B, d, *spatial)``, any floating dtype.
        target_BdS: see :class:`CentreTargets`.
        things_BS: bool ``(B, *spatial)``, likewise.

    Returns:
        Scalar in fp32 (fp64 for fp64 predictions); 0 with gradient 0 where there is no thing.

    Raises:
        ValueError: if shapes do not fit.

    Reference:
        Cheng et al., 2020 (arXiv:1911.10194), section 3.2, equation 1.
    """
    if offset_BdS.shape != target_BdS.shape or offset_BdS.shape[1] != offset_BdS.ndim - 2:
        raise ValueError(
            f"offset {tuple(offset_BdS.shape)}, target {tuple(target_BdS.shape)}: need (B, d, *spatial), "
            "a channel an axis"
        )
    return _mean_over_places((_exact(offset_BdS), target_BdS), things_BS, power=1)


def _mean_over_places(pair: tuple[Tensor, Tensor], counted_BS: Tensor | None, *, power: int) -> Tensor:
    predicted, target = pair
    target = target.to(predicted.dtype)
    pixels = (predicted.shape[0], *predicted.shape[2:])
    if counted_BS is None:
        return _error(predicted - target, power).sum() / max(1, predicted[:, 0].numel())
    if tuple(counted_BS.shape) != pixels or counted_BS.dtype != torch.bool:
        raise ValueError(f"mask is {counted_BS.dtype} {tuple(counted_BS.shape)}, expected bool {pixels}")
    # Before the difference: what does not count may be NaN, and NaN times 0 is NaN.
    away = torch.where(counted_BS[:, None], predicted, 0.0) - torch.where(counted_BS[:, None], target, 0.0)
    return _error(away, power).sum() / counted_BS.sum().clamp_min(1)


def _error(away: Tensor, power: int) -> Tensor:
    return away.abs() if power == 1 else away.square()


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
