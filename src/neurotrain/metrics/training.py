"""Scores of the training itself, cheap enough for every step."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor
from torchmetrics import Metric

from neurotrain.batch import SegmentationMode
from neurotrain.metrics.functional.labels import check_classes
from neurotrain.metrics.functional.overlap import accuracy_from_counts, confusion_counts, dice_from_counts
from neurotrain.metrics.segmentation import scored_classes


class RunningConfusion(Metric):
    """Confusion counts of an epoch's predictions at logit 0 (binary, multilabel) or at the argmax (multiclass).

    Call ``update`` only: torchmetrics' ``forward`` computes the batch's own value as well and costs several times more.
    The counts are persistent, so the epoch of a resumed run goes on where it was. (Each rank has counts of its own: a
    checkpoint that only one rank writes holds that rank's.)

    Example:
        >>> metric = RunningConfusion()
        >>> metric.update(torch.tensor([[[1.0, 2.0, -1.0, -3.0]]]), torch.tensor([[1, 0, 0, 0]]))
        >>> {key: round(value.item(), 4) for key, value in metric.compute().items()}
        {'dice': 0.6667, 'accuracy': 0.75}
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    counts: Tensor

    def __init__(self, *, mode: SegmentationMode = "binary", num_classes: int = 1) -> None:
        """Set the problem.

        Args:
            mode: see :data:`neurotrain.batch.SegmentationMode`.
            num_classes: K, the number of channels of the logits.

        Raises:
            ValueError: if the mode is unknown, or the number of classes does not fit it.
        """
        super().__init__()
        check_classes(mode, num_classes)
        self.mode: SegmentationMode = mode
        self.num_classes = num_classes
        self.add_state("counts", torch.zeros(num_classes, 4, dtype=torch.int64), dist_reduce_fx="sum")
        self.persistent(True)

    def update(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Count a batch.

        Args:
            logits: floats ``(B, K, *spatial)``.
            target: int64 labels ``(B, *spatial)``, for multilabel ``(B, K, *spatial)``. Binary and multilabel take any
                label but 0 for positive.
            valid: bool ``(B, *spatial)``; only True voxels count.

        Raises:
            ValueError: if a shape does not fit; in multiclass also if a valid label is out of range.
        """
        spatial = logits.shape[2:]
        expected = (*logits.shape[:2], *spatial) if self.mode == "multilabel" else (logits.shape[0], *spatial)
        if logits.shape[1] != self.num_classes or tuple(target.shape) != tuple(expected):
            raise ValueError(
                f"logits {tuple(logits.shape)} and target {tuple(target.shape)} do not fit mode {self.mode!r} with "
                f"num_classes={self.num_classes}"
            )
        if self.mode == "multiclass":
            labels = logits.argmax(dim=1)
            batch = confusion_counts(labels, target, mode=self.mode, num_classes=self.num_classes, valid=valid)
            counts = batch.sum(dim=0)
        else:
            counts = _count_positives(logits > 0, target.reshape(logits.shape).bool(), valid)
        # a loaded state may lie on another device than the module
        self.counts = self.counts.to(counts.device) + counts

    def compute(self) -> dict[str, Tensor]:
        """Pooled scores since the last reset.

        Returns:
            float64 scalars: ``dice``, the mean over classes (background left out, absent classes skipped), and
            ``accuracy``, the share of valid voxels that are labelled right (multilabel: mean over labels). NaN before
            the first valid voxel.
        """
        scored = scored_classes(self.mode, self.num_classes, include_background=False)
        dice = dice_from_counts(self.counts)[scored].nanmean()
        if self.mode == "multiclass":
            accuracy = self.counts[:, 0].sum().double() / self.counts[0].sum()
        else:
            accuracy = accuracy_from_counts(self.counts).mean()
        return {"dice": dice, "accuracy": accuracy}


def _count_positives(predicted: Tensor, wanted: Tensor, valid: Tensor | None) -> Tensor:
    """int64 ``(K, 4)`` of bool ``(B, K, *spatial)``: bit operations and sums, no transfer from the device."""
    batch, classes = predicted.shape[:2]
    axes = [axis for axis in range(predicted.ndim) if axis != 1]
    voxels = batch * prod(predicted.shape[2:])
    # sums in int32 take half the time of int64
    total = torch.int32 if voxels < 2**31 else torch.int64
    if valid is None:
        every = torch.full((classes,), voxels, dtype=total, device=predicted.device)
    else:
        predicted, wanted = predicted & valid.unsqueeze(1), wanted & valid.unsqueeze(1)
        every = valid.sum(dtype=total).expand(classes)
    hits, positives, relevant = (part.sum(dim=axes, dtype=total) for part in (predicted & wanted, predicted, wanted))
    return torch.stack([hits, positives - hits, relevant - hits, every - positives - relevant + hits], dim=-1).long()
