"""What a classification run did, to look at: confusion, each class's scores, each image's, and the evidence."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from neurotrain.batch import ClassificationBatch
from neurotrain.callbacks.classification_drawing import Looked, confusion_figure, evidence_figure
from neurotrain.callbacks.classification_evidence import (
    TITLES,
    Evidence,
    check_evidence,
    known_evidence,
    refusal,
    seen_evidence,
)
from neurotrain.callbacks.drawing import stretched
from neurotrain.callbacks.run_curves import write_run_curves
from neurotrain.callbacks.tables import write_table
from neurotrain.metrics.classification_report import confusion_matrix, per_class_scores
from neurotrain.tasks import ClassificationTask

logger = logging.getLogger(__name__)


class ClassificationFigures(Callback):
    """Writes tables and pictures of the test set, and the run's curves.

    In the run directory: ``test_samples.csv`` (a row an image: id, class, prediction, probability),
    ``test_classes.csv`` (images, precision, recall and F1 of each class), and under ``figures/`` ``confusion.png``,
    ``grad_cam.png`` (first test images with the evidence for what is predicted), ``attention_rollout.png`` and
    ``last_attention.png`` (the same with where a transformer's head looks) and ``curves.png``. For multilabel problems
    only the curves and ``test_samples.csv``, with a column of probabilities for each label.

    It reads what :class:`neurotrain.tasks.ClassificationTask` returns from its steps.
    """

    def __init__(self, *, count: int = 16, evidence: tuple[Evidence, ...] | None = None) -> None:
        """Set how much to draw.

        Args:
            count: images with evidence; 0 leaves them out.
            evidence: see :data:`~neurotrain.callbacks.classification_evidence.Evidence`; None: all that the network
                can show.

        Raises:
            ValueError: if ``count`` is negative, or ``evidence`` is unknown or has no effect.
        """
        if count < 0:
            raise ValueError(f"count={count}: expected 0 or more")
        if evidence is not None:
            evidence = known_evidence(evidence, owner="ClassificationFigures")
            if evidence and not count:
                raise ValueError(f"evidence={list(evidence)} has no effect with count=0")
        self.count, self.evidence = count, evidence
        self._kinds: tuple[Evidence, ...] = ()
        self._looked: dict[Evidence, list[Looked]] = {}
        self._sources: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses evidence that the network cannot show, before the first step.

        Raises:
            ValueError: naming it and the network.
        """
        assert isinstance(pl_module, ClassificationTask), "ClassificationFigures draws a ClassificationTask"
        if not self.evidence:
            return
        if pl_module.mode == "multilabel":
            raise ValueError(f"evidence={list(self.evidence)}: multilabel problems have no pictures of evidence")
        check_evidence(pl_module, self.evidence, owner="ClassificationFigures")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        assert isinstance(pl_module, ClassificationTask)
        reasons = {kind: refusal(pl_module.network, kind) for kind in get_args(Evidence)}
        can = tuple(kind for kind, reason in reasons.items() if reason is None)
        self._kinds = can if self.evidence is None else self.evidence
        self._looked, self._sources = {kind: [] for kind in self._kinds}, set()
        if self.evidence is None and self.count and not can:
            logger.warning("no pictures of evidence: %s", "; ".join(sorted({*map(str, reasons.values())})))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: ClassificationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Looks for the evidence in the first images."""
        assert isinstance(outputs, dict)
        assert isinstance(pl_module, ClassificationTask)
        self._sources.update(batch["source"])
        if not trainer.is_global_zero or pl_module.mode == "multilabel":
            return
        for kind in self._kinds:
            missing = self.count - len(self._looked[kind])
            if missing > 0:
                self._looked[kind] += _looked(pl_module, kind, outputs, batch, missing)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes tables and pictures."""
        assert isinstance(pl_module, ClassificationTask)
        report = pl_module.report
        with report.sync_context(dist_sync_fn=report.dist_sync_fn):
            ids, probabilities, labels = report.gathered()
        if not trainer.is_global_zero:
            return
        run, names = Path(trainer.default_root_dir), pl_module.class_names
        probabilities, labels = probabilities.cpu(), labels.cpu()
        write_table(run / "test_samples.csv", sample_rows(ids, probabilities, labels, names))
        if pl_module.mode == "multilabel":
            return
        table = confusion_matrix(probabilities.argmax(1), labels, num_classes=len(names))
        scores = {name: values.tolist() for name, values in per_class_scores(table).items()}
        columns = {"class": names, **scores}
        rows = [{key: values[row] for key, values in columns.items()} for row in range(len(names))]
        write_table(run / "test_classes.csv", rows)
        folder, title = run / "figures", f"{', '.join(sorted(self._sources))}: {len(ids):,} test images"
        folder.mkdir(parents=True, exist_ok=True)
        synthetic = any(source.startswith("synthetic") for source in self._sources)
        confusion_figure(table, names, title=title, synthetic=synthetic).savefig(folder / "confusion.png")
        for kind, looked in self._looked.items():
            if looked:
                evidence_figure(looked, title=TITLES[kind], synthetic=synthetic).savefig(folder / f"{kind}.png")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves of the run, from its ``metrics.csv``."""
        write_run_curves(trainer)


def _looked(
    task: ClassificationTask, kind: Evidence, outputs: dict[str, Tensor], batch: ClassificationBatch, count: int
) -> list[Looked]:
    """The first images of a batch with what was seen in them."""
    image, predicted = batch["image"][:count], outputs["labels"][:count]
    evidence = seen_evidence(task, kind, image, predicted)
    everywhere = torch.ones(image.shape[-2:], dtype=torch.bool)
    found: list[Looked] = []
    for row, (name, label) in enumerate(zip(batch["id"][:count], batch["label"].tolist(), strict=False)):
        guess = int(predicted[row])
        probability = float(outputs["probabilities"][row, guess])
        title = f"{name}\n{task.class_names[label]} as {task.class_names[guess]} ({probability:.2f})"
        found.append(Looked(stretched(image[row].cpu(), everywhere), evidence[row], title, guess == label))
    return found


def sample_rows(
    ids: list[str], probabilities: Tensor, labels: Tensor, names: tuple[str, ...]
) -> list[dict[str, str | float]]:
    """A row an image.

    Args:
        ids: N names.
        probabilities: ``(N, K)``.
        labels: classes ``(N,)``, or ``(N, K)`` for multilabel.
        names: of the classes.

    Returns:
        ``id``, ``label``, ``predicted``, ``probability`` and ``right``; for multilabel ``id``, ``label`` (the names
        that are there, with spaces between) and the probability of each.
    """
    if labels.ndim == 2:
        return [
            {"id": name, "label": " ".join(names[place] for place in there.nonzero().flatten().tolist())}
            | dict(zip(names, values.tolist(), strict=True))
            for name, values, there in zip(ids, probabilities, labels, strict=True)
        ]
    best = probabilities.max(1)
    rows = zip(ids, labels.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        {
            "id": name,
            "label": names[label],
            "predicted": names[guess],
            "probability": value,
            "right": int(guess == label),
        }
        for name, label, guess, value in rows
    ]
