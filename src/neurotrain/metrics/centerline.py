"""Running centreline Dice."""

from __future__ import annotations

from typing import get_args

from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.metrics.functional.centerline import centerline_dice
from neurotrain.metrics.functional.labels import check_choice
from neurotrain.metrics.functional.surface import EmptySurface
from neurotrain.metrics.records import bits_float, float_bits
from neurotrain.metrics.segmentation import Reduction, SegmentationScore


class CenterlineDice(SegmentationScore):
    """Centreline Dice over a data set; see :func:`neurotrain.metrics.functional.centerline_dice`.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 7, 9, dtype=torch.long)
        >>> target[0, 2:5, 1:8] = 1
        >>> metric = CenterlineDice()
        >>> metric.update(target, target)
        >>> metric.compute().item()
        1.0
    """

    def __init__(
        self,
        *,
        mode: SegmentationMode = "binary",
        num_classes: int = 1,
        reduction: Reduction = "mean",
        include_background: bool = False,
        empty: EmptySurface = "nan",
    ) -> None:
        """Set the problem and what is averaged.

        Args:
            mode: see :data:`neurotrain.batch.SegmentationMode`.
            num_classes: K: 1 for binary, L for multilabel.
            reduction: over classes, within each sample first; see
                :data:`~neurotrain.metrics.segmentation.Reduction`.
            include_background: whether class 0 of a multiclass problem enters the mean over classes.
            empty: score of a class without skeleton in both; ``"nan"`` skips it.

        Raises:
            ValueError: if a choice is unknown, or the settings contradict each other.
        """
        super().__init__(
            parts=1,
            mode=mode,
            num_classes=num_classes,
            average="sample",
            reduction=reduction,
            include_background=include_background,
        )
        check_choice("empty", empty, get_args(EmptySurface))
        self.empty: EmptySurface = empty

    def _measure(self, preds: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
        scores = centerline_dice(
            preds, target, mode=self.mode, num_classes=self.num_classes, valid=valid, empty=self.empty
        )
        return float_bits(scores).unsqueeze(-1)

    def _score(self, records: Tensor) -> Tensor:
        return bits_float(records).squeeze(-1)
