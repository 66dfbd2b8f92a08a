"""Distances from voxels to the nearest of other voxels."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor


def nearest_distances(points: Tensor, others: Tensor, *, steps: Sequence[float], farthest: float = inf) -> Tensor:
    """Euclidean distance of every point to the nearest of the others, by a search tree on the processor.

    Distances are rounded as SciPy's distance transform rounds them: squares of whole steps summed from the first axis
    on, then the root.

    Args:
        points: int64 ``(n, axes)`` coordinates of voxels.
        others: int64 ``(m, axes)``.
        steps: size of a voxel along each axis.
        farthest: nearest points beyond it need not be found.

    Returns:
        float64 ``(n,)`` on the device of ``points``; infinite where there is no other point, or none within
        ``farthest``.

    Example:
        >>> nearest_distances(torch.tensor([[0, 0]]), torch.tensor([[3, 2], [9, 9]]), steps=(1.0, 2.0)).item()
        5.0
    """
    from scipy.spatial import KDTree

    found = torch.full((len(points),), inf, dtype=torch.float64)
    if not (len(points) and len(others)):
        return found.to(points.device)
    here, there = points.cpu(), others.cpu()
    sizes = torch.tensor(tuple(steps), dtype=torch.float64)
    tree = KDTree((there * sizes).numpy(), leafsize=32, compact_nodes=False, balanced_tree=False)
    # the search rounds otherwise: a little farther, so that it finds what lies exactly at the limit
    _, index = tree.query((here * sizes).numpy(), distance_upper_bound=farthest * (1 + 1e-9) + 1e-12)
    nearest = torch.from_numpy(index)
    inside = nearest < len(there)
    squared = torch.zeros(int(inside.sum()), dtype=torch.float64)
    for axis, step in enumerate(steps):
        squared = squared + ((here[inside, axis] - there[nearest[inside], axis]).double() * step) ** 2
    found[inside] = squared.sqrt()
    return found.to(points.device)
