"""Clean-up of predicted labels as one setting of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from neurotrain.inference.postprocess import closing, fill_holes, largest_component, opening, remove_small_components


@final
@dataclass(frozen=True, kw_only=True)
class MaskCleaning:
    """Opened, closed, small components away, then all but the largest, holes filled; each label by itself.

    Attributes:
        opening: radius in voxels: what is thinner goes; 0 leaves all.
        closing: radius in voxels: gaps that are narrower are closed; 0 closes none.
        min_size: components of fewer voxels become background; 1 removes none.
        largest: whether only the largest component of each label stays. Right for organs, wrong for lesions.
        fill: whether background that a label encloses becomes that label.
        connectivity: see :mod:`neurotrain.inference.postprocess`.

    Raises:
        ValueError: if the settings do nothing, or are out of range.

    Example:
        >>> import torch
        >>> MaskCleaning(largest=True)(torch.tensor([[[1, 1, 0, 1]]]))
        tensor([[[1, 1, 0, 0]]])
    """

    opening: int = 0
    closing: int = 0
    min_size: int = 1
    largest: bool = False
    fill: bool = False
    connectivity: int = 1

    def __post_init__(self) -> None:
        """Refuse settings without effect."""
        if self.min_size < 1 or not 1 <= self.connectivity <= 3:
            raise ValueError(f"min_size={self.min_size}, connectivity={self.connectivity}: at least 1, and 1 to 3")
        if self.opening < 0 or self.closing < 0:
            raise ValueError(f"opening={self.opening}, closing={self.closing}: radii of at least 0")
        if self.min_size == 1 and not (self.largest or self.fill or self.opening or self.closing):
            raise ValueError(
                "opening=0, closing=0, min_size=1, largest=False, fill=False clean nothing: set one of them, or "
                "cleaning=null"
            )

    def __call__(self, labels: Tensor) -> Tensor:
        """Clean labels.

        Args:
            labels: integers ``(B, *spatial)``, two or three axes; regions as ``(B * L, *spatial)``.

        Returns:
            Of the same shape, type and device.
        """
        if self.opening:
            labels = opening(labels, radius=self.opening, connectivity=self.connectivity)
        if self.closing:
            labels = closing(labels, radius=self.closing, connectivity=self.connectivity)
        if self.min_size > 1:
            labels = remove_small_components(labels, min_size=self.min_size, connectivity=self.connectivity)
        if self.largest:
            labels = largest_component(labels, connectivity=self.connectivity)
        return fill_holes(labels, connectivity=self.connectivity) if self.fill else labels
