"""Search for the probability threshold that a binary or multilabel model should be used with."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from neurotrain.metrics.functional.labels import (
    check_choice,
    check_classes,
    check_probabilities,
    check_valid,
    class_mask,
)
from neurotrain.metrics.functional.ranking import histogram_thresholds, score_histogram
from neurotrain.metrics.records import IdentifiedRecords

# means over images that differ by less are equal but for the rounding of their sums
_TIE = 1e-12


class ThresholdSearch(IdentifiedRecords):
    """The threshold with the greatest mean Dice over images, one for all labels.

    Candidates are ``0, 1/bins, ..., (bins-1)/bins`` in float32, and a voxel is positive where its probability is
    strictly greater, so the Dice found is the one that :class:`~neurotrain.metrics.report.SegmentationReport` gives at
    that threshold. As there, an image's Dice is the mean over its labels; a label that is absent from prediction and
    reference is skipped, and one that is absent from the reference alone scores 0. Of thresholds with equal Dice the
    one nearest to 0.5 is taken, of two the lower.

    Use it on validation images; a threshold that was searched on the test set is part of the training.

    Example:
        >>> search = ThresholdSearch(bins=10)
        >>> probabilities = torch.tensor([[[[0.15, 0.35, 0.45, 0.95]]]])
        >>> search.update(probabilities, torch.tensor([[[0, 0, 1, 1]]]), torch.ones(1, 1, 4).bool(), ids=["a"])
        >>> threshold, dice = search.compute()
        >>> round(threshold.item(), 4), dice.item()
        (0.4, 1.0)
    """

    is_differentiable = False
    higher_is_better = None

    def __init__(
        self, *, mode: Literal["binary", "multilabel"] = "binary", num_classes: int = 1, bins: int = 1000
    ) -> None:
        """Set the problem and the grid of thresholds.

        Args:
            mode: binary or multilabel; multiclass takes the argmax and has no threshold.
            num_classes: 1 for binary, L for multilabel.
            bins: number of candidates. Each image keeps ``16 * num_classes * (bins + 1)`` bytes.

        Raises:
            ValueError: if the mode is unknown, or a number does not fit.
        """
        super().__init__()
        check_choice("mode", mode, ("binary", "multilabel"))
        check_classes(mode, num_classes)
        self.mode: Literal["binary", "multilabel"] = mode
        self.num_classes = num_classes
        self.bins = bins
        self._thresholds = histogram_thresholds(bins)
        self._add_rows("histograms", shape=(num_classes, 2, bins + 1), dtype=torch.int64)

    def update(self, probabilities: Tensor, target: Tensor, valid: Tensor, *, ids: list[str]) -> None:
        """Add a batch.

        Args:
            probabilities: floats in [0, 1], ``(B, K, *spatial)``; compared in fp32.
            target: integer labels ``(B, *spatial)``, for multilabel ``(B, K, *spatial)``; 1 is positive.
            valid: bool ``(B, *spatial)``; only True voxels count.
            ids: B names, unique in the data set.

        Raises:
            ValueError: if shapes, types or values do not fit.
        """
        check_probabilities(probabilities, target, mode=self.mode, num_classes=self.num_classes)
        check_valid(valid, (probabilities.shape[0], *probabilities.shape[2:]))
        histograms = torch.zeros(len(probabilities), self.num_classes, 2, self.bins + 1, dtype=torch.int64)
        for label in range(self.num_classes):
            positive = class_mask(target, label, mode=self.mode)
            for image, keep in enumerate(valid):
                scores = probabilities[image, label][keep]
                histograms[image, label] = score_histogram(scores, positive[image][keep], bins=self.bins)
        self._append_ids(ids, count=len(histograms))
        self._append("histograms", histograms)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Best threshold and its mean Dice over the images of all ranks.

        Returns:
            float32 threshold in [0, 1) and float64 Dice. Where Dice is undefined at every threshold (no image, or
            nothing predicted and nothing there): the threshold nearest to 0.5, and NaN.

        Raises:
            ValueError: if one id was given to different images.
        """
        histograms = self._rows("histograms")
        rows = list(self._distinct(histograms.sum(dim=-1)).values())
        dice = torch.stack([self._dice(histograms[row]) for row in rows]) if rows else self._no_dice()
        mean = dice.nanmean(dim=0)
        best = mean.nan_to_num(nan=-1.0).max()
        ties = (mean.nan_to_num(nan=-1.0) >= best - _TIE).nonzero().flatten()
        # distance from 0.5 in integers, made odd above it: no two candidates are equal
        choice = ties[(2 * (2 * ties - self.bins).abs() + (2 * ties > self.bins)).argmin()]
        return self._thresholds.to(choice.device)[choice], mean[choice]

    def _dice(self, histogram: Tensor) -> Tensor:
        """``(bins,)``: mean over labels of one image's Dice at every threshold, from ``(K, 2, bins + 1)``."""
        above = histogram.flip(-1).cumsum(dim=-1).flip(-1)[..., 1:]
        hits, predicted = above[:, 1], above.sum(dim=1)
        relevant = histogram[:, 1].sum(dim=-1, keepdim=True)
        return (2 * hits.double() / (predicted + relevant)).nanmean(dim=0)

    def _no_dice(self) -> Tensor:
        return torch.full((1, self.bins), float("nan"), dtype=torch.float64, device=self.device)
