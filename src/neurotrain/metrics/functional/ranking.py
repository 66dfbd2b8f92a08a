"""Ranking of scores: the area under the ROC curve, exact or from a histogram.

The area is the Mann-Whitney statistic, ``P(s+ > s-) + P(s+ = s-) / 2``. All counts are integers and are divided once,
in float64, so the result is exact up to one rounding for as many as 2e9 scores of either class.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neurotrain.metrics.functional.labels import check_valid


def auroc(scores: Tensor, target: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Area under the ROC curve over all elements, exact with ties.

    Scores of 32 bits or fewer are packed with their label into one integer, so that a single sort without permutation
    does the work (about a third of sorting the floats with their indices).

    Args:
        scores: floats of any shape; any monotone score, not only probabilities. Compared in their own precision.
        target: labels in {0, 1} or bool, same shape.
        valid: bool, same shape; only True elements count, and other labels and scores may be anything.

    Returns:
        float64 scalar in [0, 1]; NaN where a class is absent.

    Raises:
        ValueError: if shapes or types do not fit, a score is NaN, or a label is neither 0 nor 1.

    Reference:
        Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 1982.

    Example:
        >>> auroc(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1])).item()
        0.875
    """
    if scores.shape != target.shape:
        raise ValueError(f"scores has shape {tuple(scores.shape)}, target {tuple(target.shape)}: they must be equal")
    if not scores.is_floating_point():
        raise ValueError(f"scores must be floating point, not {scores.dtype}")
    check_valid(valid, scores.shape)
    flat_scores, flat_target = scores.detach().flatten(), target.flatten()
    if valid is not None:
        keep = valid.flatten()
        flat_scores, flat_target = flat_scores[keep], flat_target[keep]
    if not len(flat_scores):
        return torch.full((), float("nan"), dtype=torch.float64, device=scores.device)
    if flat_scores.aminmax().max.isnan():
        raise ValueError("scores must not hold NaN")
    key = _ordered_integers(flat_scores).mul_(2).add_(_as_positive(flat_target))
    return _area_of_sorted(key.sort().values)


def _as_positive(target: Tensor) -> Tensor:
    if target.dtype == torch.bool:
        return target
    positive = target == 1
    if not (positive | (target == 0)).all():
        raise ValueError("target must hold the labels 0 and 1 only where it is valid")
    return positive


def _ordered_integers(scores: Tensor) -> Tensor:
    """int64 with the order and the ties of the scores."""
    if scores.dtype == torch.float64:
        return scores.unique(return_inverse=True)[1]  # 64 bits leave no room for the label
    bits = scores.float().contiguous().view(torch.int32)
    # sign and magnitude become two's complement; -0.0 becomes 0
    return torch.where(bits < 0, -(2**31) - bits, bits).long()


def _area_of_sorted(key: Tensor) -> Tensor:
    """Area from ascending ``2 * score + label``, where of equal scores the negatives come first."""
    ranks = (key & 1).nonzero().flatten()
    positives, negatives = len(ranks), len(key) - len(ranks)
    if not (positives and negatives):
        return torch.full((), float("nan"), dtype=torch.float64, device=key.device)
    not_above = ranks.sum() - positives * (positives - 1) // 2  # pairs with the negative's score at most the positive's
    # the first positive after the negatives of its score
    after = ranks[ranks > 0]
    after = after[key[after] - key[after - 1] == 1]
    tied_negatives = after - torch.searchsorted(key, key[after] - 1)
    tied_positives = torch.searchsorted(key, key[after], right=True) - after
    twice_wins = 2 * not_above - (tied_negatives * tied_positives).sum()
    return twice_wins.double() / (2 * positives * negatives)


def auroc_from_histogram(positives: Tensor, negatives: Tensor) -> Tensor:
    """Area under the ROC curve of counts per bin, scores within a bin being tied.

    Args:
        positives: int64 ``(..., bins)``, bins in ascending order of the score.
        negatives: the same shape.

    Returns:
        float64 ``(...)`` in [0, 1]; NaN where a class is absent. Off the exact area by at most half the share of
        (positive, negative) pairs that fall into one bin.

    Example:
        >>> auroc_from_histogram(torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0])).item()
        0.875
    """
    below = negatives.cumsum(dim=-1) - negatives
    twice_wins = (positives * (2 * below + negatives)).sum(dim=-1)
    pairs = positives.sum(dim=-1) * negatives.sum(dim=-1)
    return twice_wins.double() / (2 * pairs.double())  # 0 / 0 is NaN: no pair, no area


def score_histogram(scores: Tensor, positive: Tensor, *, bins: int) -> Tensor:
    """Histogram of scores in [0, 1], negatives and positives apart.

    Cell ``c`` counts the scores that exceed exactly ``c`` of the thresholds ``0, 1/bins, ..., (bins-1)/bins`` (each
    rounded to float32), so the sum from cell ``k + 1`` on is what ``score > k/bins`` selects, exactly.

    Args:
        scores: floats in [0, 1], any shape; compared in fp32.
        positive: bool, same shape.
        bins: number of thresholds.

    Returns:
        int64 ``(2, bins + 1)``: negatives, positives.

    Example:
        >>> score_histogram(torch.tensor([0.0, 0.5, 0.6]), torch.tensor([False, False, True]), bins=2).tolist()
        [[1, 1, 0], [0, 0, 1]]
    """
    cells = torch.bucketize(scores.detach().float().flatten(), histogram_thresholds(bins).to(scores.device))
    counts = torch.bincount(cells + (bins + 1) * positive.flatten(), minlength=2 * (bins + 1))
    return counts.reshape(2, bins + 1)


def histogram_thresholds(bins: int) -> Tensor:
    """The thresholds of :func:`score_histogram`: float32 ``(bins,)``, ``k / bins`` for ``k`` from 0.

    Args:
        bins: number of thresholds, at least 1.

    Raises:
        ValueError: if ``bins`` is less than 1.
    """
    if bins < 1:
        raise ValueError(f"bins={bins} must be at least 1")
    return (torch.arange(bins, dtype=torch.float64) / bins).float()
