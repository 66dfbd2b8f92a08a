"""What a detection run did, to look at: drawings beside the truth, each class's and each image's figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from neurotrain.batch import Category, DetectionBatch
from neurotrain.callbacks.detection_drawing import Objects, detection_figure
from neurotrain.callbacks.run_curves import write_run_curves
from neurotrain.callbacks.tables import write_table
from neurotrain.metrics.functional import box_iou, detection_confusion
from neurotrain.networks.detection import Detection
from neurotrain.tasks import DetectionTask
from neurotrain.tasks.detection import evaluation_targets

Rows = list[dict[str, str | float]]


class DetectionFigures(Callback):
    """Writes tables and drawings of the test set, and the run's curves.

    In the run directory: ``test_samples.csv`` (an image a row: objects, detections that are right, of another class,
    of nothing, and objects that were missed), ``test_classes.csv`` (average precision and recall of each class that
    has an object), and under ``figures/`` ``test/<source>-<id>.png`` (annotations on the left, detections on the right;
    dashed is what the other side has not) and ``curves.png``. Of several processes, each writes the rows of its own
    images, the first one into that file, the others into ``test_samples-rank<n>.csv``.

    It reads what :class:`neurotrain.tasks.DetectionTask` returns from its steps.
    """

    def __init__(self, *, count: int | None = 8, score_threshold: float = 0.5, iou_threshold: float = 0.5) -> None:
        """Set how much to draw. A drawing takes about a second.

        Args:
            count: images that are drawn, on each process; None draws all.
            score_threshold: detections with a lower score are neither drawn nor counted in ``test_samples.csv``.
            iou_threshold: overlap from which on a detection and an object are the same there.

        Raises:
            ValueError: if a number is out of range.
        """
        if count is not None and count < 0:
            raise ValueError(f"count={count}: expected 0 or more, or None for all")
        if not 0 <= score_threshold <= 1 or not 0 < iou_threshold <= 1:
            raise ValueError(f"score_threshold={score_threshold}, iou_threshold={iou_threshold}: must be in [0, 1]")
        self.count = count
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold
        self._rows: dict[str, dict[str, str | float]] = {}
        self._drawn = 0

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        assert isinstance(pl_module, DetectionTask), "DetectionFigures draws what a DetectionTask finds"
        self._rows, self._drawn = {}, 0

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: DetectionBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts, and draws the first images."""
        assert isinstance(outputs, dict)
        assert isinstance(pl_module, DetectionTask)
        targets = evaluation_targets(batch, masks=pl_module.network.predicts_masks)
        for row, (name, found) in enumerate(zip(outputs["id"], outputs["detections"], strict=True)):
            truth = {key: value.cpu() for key, value in targets[row].items()}
            seen = _on_cpu(found)
            self._rows.setdefault(name, self._row(name, seen, truth, pl_module.num_classes))
            if self.count is None or self._drawn < self.count:
                self._drawn += 1
                self._draw(trainer, batch, row, seen, truth, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the tables."""
        assert isinstance(pl_module, DetectionTask)
        run = Path(trainer.default_root_dir)
        rank = f"-rank{trainer.global_rank}" if trainer.global_rank else ""
        write_table(run / f"test_samples{rank}.csv", [*self._rows.values()])
        if trainer.is_global_zero:
            write_table(run / "test_classes.csv", class_rows(pl_module.figures, pl_module.categories))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves of the run, from its ``metrics.csv``."""
        write_run_curves(trainer)

    def _row(self, name: str, found: Detection, truth: Mapping[str, Tensor], classes: int) -> dict[str, str | float]:
        table = detection_confusion(
            [found],
            [truth],
            num_classes=classes,
            iou_threshold=self.iou_threshold,
            score_threshold=self.score_threshold,
        )
        right, pairs = int(table.diagonal()[:-1].sum()), int(table[:-1, :-1].sum())
        missed, false = int(table[:-1, -1].sum()), int(table[-1, :-1].sum())
        crowds = int(truth["iscrowd"].sum())
        return {
            "id": name,
            "objects": len(truth["labels"]) - crowds,
            "crowds": crowds,
            "right": right,
            "wrong_class": pairs - right,
            "of_nothing": false,
            "missed": missed,
            "f1": 2 * right / max(2 * pairs + missed + false, 1),
        }

    def _draw(
        self,
        trainer: Trainer,
        batch: DetectionBatch,
        row: int,
        found: Detection,
        truth: Mapping[str, Tensor],
        task: DetectionTask,
    ) -> None:
        chosen = found["scores"] >= self.score_threshold
        boxes, labels, scores = found["boxes"][chosen], found["labels"][chosen], found["scores"][chosen].tolist()
        names = _names(task)
        partners = matches(boxes, labels, truth["boxes"], truth["labels"], iou_threshold=self.iou_threshold)
        texts = [f"{names[label]} {score:.2f}" for label, score in zip(labels.tolist(), scores, strict=True)]
        seen = Objects(boxes, labels, texts, partners[0], found["masks"][chosen] if "masks" in found else None)
        texts = [
            f"{names[label]}{' (crowd)' if crowd else ''}"
            for label, crowd in zip(truth["labels"].tolist(), truth["iscrowd"].tolist(), strict=True)
        ]
        masks = truth["masks"].bool() if "masks" in truth else None
        annotated = Objects(truth["boxes"], truth["labels"], texts, partners[1], masks)
        source, name = batch["source"][row], batch["id"][row]
        picture = batch["image"][row].float().cpu().permute(1, 2, 0).clamp(0, 1)
        synthetic = source.startswith("synthetic")
        figure = detection_figure(picture, annotated, seen, title=f"{source} {name}", synthetic=synthetic)
        path = (
            Path(trainer.default_root_dir)
            / "figures"
            / "test"
            / (re.sub(r"[^\w.-]+", "_", f"{source}-{name}") + ".png")
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def matches(
    boxes: Tensor, labels: Tensor, true_boxes: Tensor, true_labels: Tensor, *, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Which detections have an object and which objects a detection: of one class, each at most once, best first.

    Args:
        boxes: ``(N, 4)`` of the detections, best first.
        labels: ``(N,)``.
        true_boxes: ``(M, 4)``.
        true_labels: ``(M,)``.
        iou_threshold: overlap from which on a pair is one.

    Returns:
        bool ``(N,)`` and ``(M,)``.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
        >>> one = torch.tensor([1])
        >>> matches(torch.cat([box, box]), torch.cat([one, one]), box, one, iou_threshold=0.5)
        (tensor([ True, False]), tensor([True]))
    """
    overlap = box_iou(boxes.double(), true_boxes.double())
    overlap[labels[:, None] != true_labels[None]] = 0.0
    found, taken = torch.zeros(len(boxes), dtype=torch.bool), torch.zeros(len(true_boxes), dtype=torch.bool)
    for row in range(len(boxes) if len(true_boxes) else 0):
        free = overlap[row].masked_fill(taken, 0.0)
        best = int(free.argmax())
        if free[best] >= iou_threshold:
            found[row] = taken[best] = True
    return found, taken


def class_rows(figures: Mapping[str, Mapping[str, Tensor]], categories: tuple[Category, ...] | None) -> Rows:
    """A row a class that has an object.

    Args:
        figures: of boxes (``bbox``) and, where there are, masks (``segm``), as the metric gives them.
        categories: by label; None: labels are numbers.

    Returns:
        ``class``, ``category_id``, ``ap`` and ``ar``, and ``mask_ap`` and ``mask_ar`` where there are masks.
    """
    rows: dict[int, dict[str, str | float]] = {}
    for kind, found in figures.items():
        prefix = "mask_" if kind == "segm" else ""
        values = zip(
            found["classes"].tolist(), found["map_per_class"].tolist(), found["mar_100_per_class"].tolist(), strict=True
        )
        for label, precision, recall in values:
            category = Category(label, str(label)) if categories is None else categories[label]
            row = rows.setdefault(label, {"class": category.name, "category_id": category.id})
            row |= {f"{prefix}ap": precision, f"{prefix}ar": recall}
    # A class without objects has no figures: NaN.
    return [rows[label] for label in sorted(rows) if any(value == value for value in [*rows[label].values()][2:])]


def _names(task: DetectionTask) -> list[str]:
    if task.categories is None:
        return [str(label) for label in range(task.num_classes)]
    return [category.name for category in task.categories]


def _on_cpu(found: Detection) -> Detection:
    moved: Any = {name: value.cpu() for name, value in found.items()}  # pyright: ignore[reportAttributeAccessIssue]
    return moved
