"""Fidelity and diversity apart: precision, recall, density and coverage of generated samples.

A set's manifold is the union of balls around its samples, each as large as the distance to the k-th nearest neighbour.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neurotrain.metrics.functional.generation import checked_features, distances


def manifold_scores(
    real: Tensor, generated: Tensor, *, neighbours: int = 5, chunk_size: int = 2048
) -> dict[str, Tensor]:
    """Precision, recall, density and coverage.

    Args:
        real: floats ``(N, D)``.
        generated: floats ``(M, D)``.
        neighbours: k, at most ``min(N, M) - 1``; 3 is usual for precision and recall, 5 for density and coverage.
        chunk_size: rows of distances that are held at once.

    Returns:
        float64 scalars: ``precision``, share of generated samples in the real manifold; ``recall``, share of real
        samples in the generated one; ``density``, mean number of real balls around a generated sample, divided by k
        (may exceed 1); ``coverage``, share of real balls that hold a generated sample. Balls are closed.

    Raises:
        ValueError: if shapes do not fit, or there are not more than k samples of each.

    Reference:
        Kynkaanniemi et al., 2019 (arXiv:1904.06991), equations 1 and 2; Naeem et al., 2020 (arXiv:2002.09797),
        equations 3 and 5.

    Example:
        >>> samples = torch.arange(8.0)[:, None]
        >>> [round(value.item(), 4) for value in manifold_scores(samples, samples + 0.5, neighbours=1).values()]
        [1.0, 1.0, 1.875, 1.0]
    """
    x, y = checked_features("real", real), checked_features("generated", generated)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"real has {x.shape[1]} features, generated {y.shape[1]}: they must be equal")
    if not 1 <= neighbours < min(len(x), len(y)):
        raise ValueError(f"neighbours={neighbours} must be from 1 to less than {min(len(x), len(y))} samples")
    radius_x, radius_y = (_radii(one, neighbours, chunk_size) for one in (x, y))
    inside, found = torch.zeros(len(y), dtype=torch.int64, device=x.device), x.new_zeros(len(x), dtype=torch.bool)
    covered = torch.zeros_like(found)
    for begin in range(0, len(x), chunk_size):
        rows = slice(begin, begin + chunk_size)
        between = distances(x[rows], y)
        within = between <= radius_x[rows, None]
        inside += within.sum(dim=0)
        covered[rows] = within.any(dim=1)
        found[rows] = (between <= radius_y).any(dim=1)
    return {
        "precision": (inside > 0).double().mean(),
        "recall": found.double().mean(),
        "density": inside.double().mean() / neighbours,
        "coverage": covered.double().mean(),
    }


def _radii(samples: Tensor, neighbours: int, chunk_size: int) -> Tensor:
    """Distance of each sample to its k-th nearest neighbour, itself not counted."""
    radii: list[Tensor] = []
    for begin, rows in zip(range(0, len(samples), chunk_size), samples.split(chunk_size), strict=True):
        between = distances(rows, samples)
        between.diagonal(begin).fill_(torch.inf)
        radii.append(between.kthvalue(neighbours, dim=1).values)
    return torch.cat(radii)
