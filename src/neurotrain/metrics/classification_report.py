"""Every figure of a classification problem over a data set, each image counted once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from neurotrain.metrics.functional.classification_curves import (
    average_precision,
    calibration_error_of,
    confidences,
)
from neurotrain.metrics.functional.labels import check_choice
from neurotrain.metrics.records import IdentifiedRecords

ReportMode = Literal["multiclass", "multilabel"]
"""``multiclass``: one class an image; ``multilabel``: each label apart, present from probability 0.5 on."""


class ClassificationReport(IdentifiedRecords):
    """Accuracy, top-k accuracy, macro F1 and calibration error; for multilabel exact match, macro F1 and mAP.

    ``accuracy`` is the share of images whose most probable class is theirs (of equals the lowest counts), ``f1`` the
    mean over classes that occur in labels or predictions, ``balanced_accuracy`` the mean recall over those that occur
    in labels, ``calibration_error`` over 15 bins of confidence. For multilabel: ``exact_match``, ``f1`` and ``map``.

    Example:
        >>> report = ClassificationReport(num_classes=3, top_k=2)
        >>> report.update(torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]), torch.tensor([1, 2]), ids=["a", "b"])
        >>> figures = report.compute()
        >>> figures["accuracy"].item(), figures["top2_accuracy"].item()
        (0.5, 1.0)
    """

    is_differentiable = False

    def __init__(self, *, mode: ReportMode = "multiclass", num_classes: int = 10, top_k: int | None = 5) -> None:
        """Set the problem.

        Args:
            mode: see :data:`ReportMode`.
            num_classes: K.
            top_k: guesses of ``top<k>_accuracy``; None leaves it out, and so do multilabel and
                ``top_k >= num_classes``, where it would always be 1.

        Raises:
            ValueError: if a choice is unknown or a number out of range.
        """
        super().__init__()
        check_choice("mode", mode, get_args(ReportMode))
        if num_classes < 1 or (top_k is not None and top_k < 1):
            raise ValueError(f"num_classes={num_classes}, top_k={top_k}: must be at least 1")
        self.mode: ReportMode = mode
        self.num_classes = num_classes
        self.top_k = top_k if mode == "multiclass" and top_k is not None and 1 < top_k < num_classes else None
        # float32 as its bits: see the module of records; 4 bytes each, for a thousand classes of many images.
        self._add_rows("probabilities", shape=(num_classes,), dtype=torch.int32)
        self._add_rows("labels", shape=() if mode == "multiclass" else (num_classes,), dtype=torch.int64)

    def update(self, probabilities: Tensor, target: Tensor, *, ids: Sequence[str]) -> None:
        """Add a batch.

        Args:
            probabilities: floats ``(B, K)`` in [0, 1].
            target: integer classes ``(B,)``, or ``(B, K)`` in {0, 1} for multilabel.
            ids: B names; an image of a known one does not count again.

        Raises:
            ValueError: if shapes or values do not fit.
        """
        wanted = probabilities.shape[:1] if self.mode == "multiclass" else probabilities.shape
        if probabilities.ndim != 2 or probabilities.shape[1] != self.num_classes or target.shape != wanted:
            raise ValueError(
                f"probabilities {tuple(probabilities.shape)}, target {tuple(target.shape)}: expected "
                f"(B, {self.num_classes}) and {'(B,)' if self.mode == 'multiclass' else 'the same'}"
            )
        highest = self.num_classes - 1 if self.mode == "multiclass" else 1
        if target.numel() and not 0 <= int(target.min()) <= int(target.max()) <= highest:
            raise ValueError(f"labels from {int(target.min())} to {int(target.max())}: expected 0 to {highest}")
        if probabilities.isnan().any():
            raise ValueError(f"probabilities of {list(ids)[:3]} hold NaN")
        self._append_ids(ids, count=len(probabilities))
        self._append("probabilities", probabilities.float().contiguous().view(torch.int32))
        self._append("labels", target.long())

    def gathered(self) -> tuple[list[str], Tensor, Tensor]:
        """Ids, probabilities and labels of the distinct images, by id; within a sync those of all ranks."""
        labels = self._rows("labels")
        rows = self._distinct(labels)
        chosen = torch.tensor(list(rows.values()), dtype=torch.int64, device=labels.device)
        probabilities = self._rows("probabilities").contiguous().view(torch.float32)
        return list(rows), probabilities[chosen], labels[chosen]

    def confusion(self) -> Tensor:
        """Images by class (rows) and prediction (columns), int64 ``(K, K)``; multiclass only."""
        assert self.mode == "multiclass", "labels of their own have no common confusion matrix"
        _, probabilities, labels = self.gathered()
        return confusion_matrix(probabilities.argmax(1), labels, num_classes=self.num_classes)

    def compute(self) -> dict[str, Tensor]:
        """Figures by name, float64; NaN without images."""
        _, probabilities, labels = self.gathered()
        if self.mode == "multilabel":
            return self._multilabel(probabilities, labels)
        table = confusion_matrix(probabilities.argmax(1), labels, num_classes=self.num_classes)
        scores = per_class_scores(table)
        confidence, right = confidences(probabilities.double(), labels)
        figures = {
            "accuracy": table.diagonal().sum().double() / table.sum(),
            "balanced_accuracy": scores["recall"].nanmean(),
            "f1": scores["f1"].nanmean(),
            "calibration_error": calibration_error_of(confidence, right, bins=15, norm="l1"),
        }
        if self.top_k is not None:
            # Ties go to the lower class, as argmax has it.
            order = probabilities.sort(dim=1, descending=True, stable=True).indices[:, : self.top_k]
            figures[f"top{self.top_k}_accuracy"] = (order == labels[:, None]).any(1).double().mean()
        return figures

    def _multilabel(self, probabilities: Tensor, labels: Tensor) -> dict[str, Tensor]:
        present = (probabilities >= 0.5).long()
        hits = (present * labels).sum(0).double()
        return {
            "exact_match": (present == labels).all(1).double().mean(),
            "f1": (2 * hits / (present.sum(0) + labels.sum(0))).nanmean(),
            "map": average_precision(probabilities, labels).nanmean(),
        }


def confusion_matrix(predicted: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """Count images by class and prediction.

    Args:
        predicted: integers ``(N,)``.
        labels: integers ``(N,)``.
        num_classes: K.

    Returns:
        int64 ``(K, K)``, rows the classes, columns the predictions.
    """
    counts = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def per_class_scores(table: Tensor) -> dict[str, Tensor]:
    """What a confusion matrix says of each class.

    Args:
        table: int64 ``(K, K)`` of :func:`confusion_matrix`.

    Returns:
        ``images``, ``precision``, ``recall`` and ``f1``, float64 ``(K,)``; NaN for 0 / 0.
    """
    table = table.double()
    hits, images, guesses = table.diagonal(), table.sum(1), table.sum(0)
    return {"images": images, "precision": hits / guesses, "recall": hits / images, "f1": 2 * hits / (images + guesses)}
