"""Masks read at points instead of everywhere: where the prediction is undecided, and at random.

Shape legend: ``M`` masks, ``*spatial`` two or three axes (``S`` in suffixes), ``d`` how many those are, ``P`` points.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def read_points(maps_MS: Tensor, points_MPd: Tensor) -> Tensor:
    """Values of maps at points, linear between the pixels' centres, 0 beyond the border.

    Args:
        maps_MS: floats ``(M, *spatial)``.
        points_MPd: ``(M, P, d)`` in [0, 1], the last axis of the maps first, as ``grid_sample`` wants it.

    Returns:
        ``(M, P)``.

    Example:
        >>> read_points(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.5, 0.5]]])).tolist()
        [[2.0]]
    """
    dims = maps_MS.ndim - 1
    grid = (2 * points_MPd - 1).view(len(maps_MS), -1, *[1] * (dims - 1), dims)
    return F.grid_sample(maps_MS[:, None], grid.to(maps_MS.dtype), align_corners=False).flatten(1)


def counted_points(valid_MS: Tensor, points_MPd: Tensor) -> Tensor:
    """Whether a point counts: bool ``(M, P)``, False where a pixel that does not count has any part in its value."""
    # What does not count is read, not what does: beyond the border there is neither.
    return read_points((~valid_MS).float(), points_MPd) == 0


def random_points(masks: int, count: int, dims: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Points evenly spread by chance: ``(masks, count, dims)`` in [0, 1), on the device of ``like``."""
    # Drawn where the generator lives, so that one seed gives the same points on any device.
    device = like.device if generator is None else generator.device
    return torch.rand(masks, count, dims, generator=generator, device=device).to(like.device)


def undecided_points(
    logits_MS: Tensor,
    count: int,
    *,
    valid_MS: Tensor | None = None,
    oversampling: float = 3.0,
    undecided_share: float = 0.75,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Points of which a share lies where the logits are nearest to 0 among more points drawn at random.

    Args:
        logits_MS: ``(M, *spatial)``; no gradient passes.
        count: P.
        valid_MS: bool ``(M, *spatial)``: where a point may be undecided at all; everywhere when None.
        oversampling: how many times P points are drawn to choose from, at least 1.
        undecided_share: in [0, 1].
        generator: of the draws; None: torch's own.

    Returns:
        ``(M, P, d)`` in [0, 1).

    Reference:
        Kirillov et al., 2020 (arXiv:1912.08193), section 3.1.
    """
    logits_MS = logits_MS.detach()
    masks, dims = len(logits_MS), logits_MS.ndim - 1
    chosen = int(undecided_share * count)
    drawn_MPd = random_points(masks, int(oversampling * count), dims, logits_MS, generator)
    doubt_MP = -read_points(logits_MS, drawn_MPd).abs()
    if valid_MS is not None:
        # Also of the logits: topk takes NaN, which may stand where nothing counts, for the greatest.
        doubt_MP = torch.where(counted_points(valid_MS, drawn_MPd), doubt_MP, float("-inf"))
    best_MP = doubt_MP.topk(chosen, dim=1).indices
    kept_MPd = drawn_MPd.gather(1, best_MP[..., None].expand(-1, -1, dims))
    return torch.cat((kept_MPd, random_points(masks, count - chosen, dims, logits_MS, generator)), 1)
