"""From the codes of a label file to what a network predicts, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Labelling = Literal["multiclass", "multilabel"]
"""``multiclass``: one class a voxel, 0 is background; ``multilabel``: regions that overlap."""


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """Which codes make up each class or region.

    Attributes:
        mode: classes, or overlapping regions.
        names: of the K classes (background first) or regions.
        codes: for each of them the codes in a label file.
        paint: for regions: code that is written for each, in the order in which later ones cover earlier ones.

    Raises:
        ValueError: if their numbers differ, or two classes share a code.

    Example:
        >>> tumour = LabelMap(mode="multilabel", names=("whole", "core"), codes=((1, 2), (1,)), paint=((0, 2), (1, 1)))
        >>> regions = tumour.encode(torch.tensor([[0, 1, 2]], dtype=torch.uint8))
        >>> regions.tolist()
        [[[0, 1, 1]], [[0, 1, 0]]]
        >>> tumour.decode(regions).tolist()
        [[0, 1, 2]]
    """

    mode: Labelling
    names: tuple[str, ...]
    codes: tuple[tuple[int, ...], ...]
    paint: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if len(self.names) != len(self.codes):
            raise ValueError(f"names={self.names} and codes={self.codes}: need as many of both")
        flat = [code for codes in self.codes for code in codes]
        if self.mode == "multiclass" and len(flat) != len(set(flat)):
            raise ValueError(f"codes={self.codes}: a voxel has one class, so no two of them share a code")
        if self.mode == "multilabel" and sorted(region for region, _ in self.paint) != list(range(len(self.names))):
            raise ValueError(f"paint={self.paint} must say once what is written for each of {self.names}")

    @property
    def num_classes(self) -> int:
        """Classes with the background, or regions."""
        return len(self.names)

    @property
    def known(self) -> frozenset[int]:
        """Codes that a file may hold; 0 is background."""
        return frozenset({0}.union(*self.codes))

    def encode(self, labels: Tensor) -> Tensor:
        """Make what a network predicts out of a file's codes.

        Args:
            labels: uint8 codes ``(*spatial)``.

        Returns:
            uint8: classes ``(*spatial)``, or ``(K, *spatial)`` in {0, 1} for regions.
        """
        tables = torch.zeros(1 if self.mode == "multiclass" else self.num_classes, 256, dtype=torch.uint8)
        for index, codes in enumerate(self.codes):
            row, value = (0, index) if self.mode == "multiclass" else (index, 1)
            tables[row, list(codes)] = value
        flat = labels.reshape(-1).int()
        encoded = torch.stack([table.index_select(0, flat).reshape(labels.shape) for table in tables])
        return encoded[0] if self.mode == "multiclass" else encoded

    def decode(self, predicted: Tensor) -> Tensor:
        """Make a file's codes out of what a network predicts.

        Args:
            predicted: classes ``(*spatial)``, or ``(K, *spatial)`` in {0, 1} for regions.

        Returns:
            uint8 codes ``(*spatial)``; of a class with several codes the first.
        """
        if self.mode == "multiclass":
            firsts = torch.tensor([codes[0] for codes in self.codes], dtype=torch.uint8)
            return firsts[predicted.long()]
        labels = torch.zeros(predicted.shape[1:], dtype=torch.uint8)
        for region, code in self.paint:
            labels[predicted[region] > 0] = code
        return labels
