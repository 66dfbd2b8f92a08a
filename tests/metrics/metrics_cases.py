"""Generated test sets that several modules evaluate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    """A generated test set."""

    probabilities: Tensor
    target: Tensor
    valid: Tensor
    ids: list[str]

    def part(self, rows: list[int]) -> Case:
        """Some of the images, in this order."""
        return Case(self.probabilities[rows], self.target[rows], self.valid[rows], [self.ids[row] for row in rows])


def binary_case(images: int = 5, size: int = 12, seed: int = 0) -> Case:
    """Soft discs with noise; image 2 has an empty reference."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.arange(size).float()
    centre = size * (0.3 + 0.4 * torch.rand(images, 2, 1, 1, generator=generator))
    distance = ((line[:, None] - centre[:, 0]) ** 2 + (line[None, :] - centre[:, 1]) ** 2).sqrt()
    target = (distance < size / 4).long()
    target[2] = 0
    noise = torch.randn(images, size, size, generator=generator)
    probabilities = (1.5 * (size / 4 - distance) + noise).sigmoid().unsqueeze(1)
    valid = torch.rand(images, size, size, generator=generator) < 0.9
    return Case(probabilities, target, valid, [f"image/{9 - row} ö" for row in range(images)])


def multiclass_case(images: int = 4, classes: int = 4, size: int = 10, seed: int = 0) -> Case:
    """Random probabilities; the last class is absent from image 1."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (images, size, size), generator=generator)
    target[1][target[1] == classes - 1] = 0
    logits = torch.randn(images, classes, size, size, generator=generator)
    logits += 1.5 * torch.nn.functional.one_hot(target, classes).movedim(-1, 1)
    valid = torch.rand(images, size, size, generator=generator) < 0.8
    return Case(logits.softmax(1), target, valid, [f"case {row}" for row in range(images)])


def multilabel_case(images: int = 3, labels: int = 2, size: int = 8, seed: int = 0) -> Case:
    """Random probabilities of independent labels."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(2, (images, labels, size, size), generator=generator)
    probabilities = (torch.randn(target.shape, generator=generator) + target).sigmoid()
    valid = torch.rand(images, size, size, generator=generator) < 0.8
    return Case(probabilities, target, valid, [f"case {row}" for row in range(images)])
