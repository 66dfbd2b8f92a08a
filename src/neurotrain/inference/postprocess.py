"""Clean-up of predicted masks: pure functions from a mask to a mask.

A mask is bool or integer labels ``(B, *spatial)`` with 0 as background and two or three spatial axes; a multilabel
mask ``(B, L, *spatial)`` fits as ``mask.flatten(0, 1)``. Samples are processed one by one, and each label of a sample
by itself: what a label loses becomes background, and it gains background only. Background that several labels claim
goes to the smallest of them (of nested labels the innermost), of equals to the lower one. Results have the dtype and
device of the mask; the work is done on the CPU.

``connectivity`` is the number of axes along which two neighbouring pixels may differ: 1 joins pixels that share a
face, ``dims`` also those that share a corner only.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BoolArray = npt.NDArray[np.bool_]


def threshold(probabilities: Tensor, *, value: float = 0.5) -> Tensor:
    """Labels {0, 1}: where a probability lies above ``value``.

    Args:
        probabilities: float tensor of any shape in ``[0, 1]``.
        value: threshold in ``[0, 1)``; a probability equal to it is 0, as in torchmetrics.

    Returns:
        int64 of the same shape.

    Raises:
        ValueError: if ``value`` is out of range or a probability is NaN.

    Example:
        >>> threshold(torch.tensor([0.2, 0.5, 0.7]))
        tensor([0, 0, 1])
    """
    if not 0.0 <= value < 1.0:
        raise ValueError(f"value={value} must be in [0, 1)")
    if torch.isnan(probabilities).any():
        raise ValueError("probabilities contain NaN")
    return (probabilities > value).long()


def remove_small_components(mask: Tensor, *, min_size: int, connectivity: int = 1) -> Tensor:
    """Set connected components of fewer than ``min_size`` pixels to background.

    Args:
        mask: labels ``(B, *spatial)``.
        min_size: least number of pixels that stays, at least 1.
        connectivity: 1 to the number of spatial axes.

    Returns:
        The cleaned mask.

    Raises:
        ValueError: if the shape or a setting is out of range.

    Example:
        >>> remove_small_components(torch.tensor([[[1, 1, 0, 1]]]), min_size=2)
        tensor([[[1, 1, 0, 0]]])
    """
    if min_size < 1:
        raise ValueError(f"min_size={min_size} must be at least 1")

    def keep_large(region: BoolArray, structure: BoolArray) -> BoolArray:
        components, sizes = _components(region, structure)
        return region & (sizes >= min_size)[components]

    return _per_label(mask, connectivity, keep_large)


def largest_component(mask: Tensor, *, connectivity: int = 1) -> Tensor:
    """Keep the largest connected component of each label; of equals, the first in memory order.

    Args:
        mask: labels ``(B, *spatial)``.
        connectivity: 1 to the number of spatial axes.

    Returns:
        The cleaned mask.

    Raises:
        ValueError: if the shape or ``connectivity`` is out of range.

    Example:
        >>> largest_component(torch.tensor([[[1, 1, 0, 1, 2]]]))
        tensor([[[1, 1, 0, 0, 2]]])
    """

    def keep_largest(region: BoolArray, structure: BoolArray) -> BoolArray:
        components, sizes = _components(region, structure)
        return components == 1 + np.argmax(sizes[1:])

    return _per_label(mask, connectivity, keep_largest)


def fill_holes(mask: Tensor, *, connectivity: int = 1) -> Tensor:
    """Fill background that a label encloses.

    Args:
        mask: labels ``(B, *spatial)``.
        connectivity: how *background* pixels join; 1 to the number of spatial axes. With 1, a hole may be closed off
            by pixels that touch at corners only.

    Returns:
        The filled mask; other labels inside a hole stay.

    Raises:
        ValueError: if the shape or ``connectivity`` is out of range.

    Example:
        >>> fill_holes(torch.tensor([[[1, 1, 1], [1, 0, 1], [1, 1, 1]]])).sum()
        tensor(9)
    """

    def fill(region: BoolArray, structure: BoolArray) -> BoolArray:
        return _ndimage().binary_fill_holes(region, structure=structure)

    return _per_label(mask, connectivity, fill)


def opening(mask: Tensor, *, radius: int = 1, connectivity: int = 1) -> Tensor:
    """Erosion, then dilation: removes what is too thin for the structuring element.

    Pixels outside the image are ignored: an object that the border cuts is not eroded from there.

    Args:
        mask: labels ``(B, *spatial)``.
        radius: steps of either operation, at least 1.
        connectivity: element of one step: 1 is the cross, the number of spatial axes the full square or cube.

    Returns:
        The opened mask, a subset of each label.

    Raises:
        ValueError: if the shape or a setting is out of range.

    Example:
        >>> opening(torch.tensor([[[0, 1, 0], [0, 1, 0], [0, 1, 0]]])).sum()
        tensor(0)
    """
    _check_radius(radius)

    def open_region(region: BoolArray, structure: BoolArray) -> BoolArray:
        return _dilate(_erode(region, structure, radius), structure, radius)

    return _per_label(mask, connectivity, open_region)


def closing(mask: Tensor, *, radius: int = 1, connectivity: int = 1) -> Tensor:
    """Dilation, then erosion: closes gaps too narrow for the structuring element.

    The dual of ``opening``: pixels outside the image are ignored.

    Args:
        mask: labels ``(B, *spatial)``.
        radius: steps of either operation, at least 1.
        connectivity: element of one step, as in ``opening``.

    Returns:
        The closed mask, a superset of each label.

    Raises:
        ValueError: if the shape or a setting is out of range.

    Example:
        >>> closing(torch.tensor([[[1, 1, 0, 1, 1]]]))
        tensor([[[1, 1, 1, 1, 1]]])
    """
    _check_radius(radius)

    def close_region(region: BoolArray, structure: BoolArray) -> BoolArray:
        return _erode(_dilate(region, structure, radius), structure, radius)

    return _per_label(mask, connectivity, close_region)


def _per_label(mask: Tensor, connectivity: int, operate: Callable[[BoolArray, BoolArray], BoolArray]) -> Tensor:
    """Apply ``operate(region, structure)`` to every label of every sample."""
    dims = mask.ndim - 1
    if dims not in (2, 3) or mask.is_floating_point() or mask.is_complex():
        raise ValueError(
            f"mask of shape {tuple(mask.shape)} and dtype {mask.dtype}: expected bool or integer labels "
            "(batch, *spatial) with 2 or 3 spatial axes"
        )
    if not 1 <= connectivity <= dims:
        raise ValueError(f"connectivity={connectivity} must be in [1, {dims}] for {dims} spatial axes")
    structure: BoolArray = _ndimage().generate_binary_structure(dims, connectivity)
    labels_BS: npt.NDArray[Any] = mask.numpy(force=True)
    result_BS = np.zeros_like(labels_BS)
    for labels_S, result_S in zip(labels_BS, result_BS, strict=True):
        labels = np.unique(labels_S[labels_S != 0])
        changed = [(label, operate(labels_S == label, structure)) for label in labels]
        for label, region in sorted(changed, key=lambda item: int(item[1].sum())):
            result_S[region & ((labels_S == label) | ((labels_S == 0) & (result_S == 0)))] = label
    return torch.from_numpy(result_BS).to(mask.device)


def _components(region: BoolArray, structure: BoolArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Number of each pixel's component (0 is background) and size of each component, the background's first."""
    components, _ = _ndimage().label(region, structure=structure)
    return components, np.bincount(components.ravel())


def _erode(region: BoolArray, structure: BoolArray, radius: int) -> BoolArray:
    return _ndimage().binary_erosion(region, structure, iterations=radius, border_value=1)


def _dilate(region: BoolArray, structure: BoolArray, radius: int) -> BoolArray:
    return _ndimage().binary_dilation(region, structure, iterations=radius, border_value=0)


def _check_radius(radius: int) -> None:
    if radius < 1:
        raise ValueError(f"radius={radius} must be at least 1")


def _ndimage() -> ModuleType:
    # scipy.ndimage is heavy, and most runs never clean a mask.
    from scipy import ndimage

    return ndimage
