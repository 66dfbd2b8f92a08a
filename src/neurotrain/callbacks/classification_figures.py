"""What a classification run did, to look at: confusion, each class's scores, each image's, and the evidence."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from neurotrain.batch import ClassificationBatch
from neurotrain.callbacks.classification_drawing import Looked, confusion_figure, evidence_figure
from neurotrain.callbacks.drawing import stretched
from neurotrain.callbacks.run_curves import write_run_curves
from neurotrain.callbacks.tables import write_table
from neurotrain.inference import grad_cam
from neurotrain.metrics.classification_report import confusion_matrix, per_class_scores
from neurotrain.networks.classification import Classifier
from neurotrain.tasks import ClassificationTask

logger = logging.getLogger(__name__)


class ClassificationFigures(Callback):
    """Writes tables and pictures of the test set, and the run's curves.

    In the run directory: ``test_samples.csv`` (a row an image: id, class, prediction, probability),
    ``test_classes.csv`` (images, precision, recall and F1 of each class), and under ``figures/`` ``confusion.png``,
    ``grad_cam.png`` (first test images with the evidence for what is predicted; networks that tell their last map only)
    and ``curves.png``. For multilabel problems only the curves and ``test_samples.csv``, with a column of probabilities
    for each label.

    It reads what :class:`neurotrain.tasks.ClassificationTask` returns from its steps.
    """

    def __init__(self, *, count: int = 16) -> None:
        """Set how much to draw.

        Args:
            count: images of ``grad_cam.png``; 0 leaves it out.

        Raises:
            ValueError: if it is negative.
        """
        if count < 0:
            raise ValueError(f"count={count}: expected 0 or more")
        self.count = count
        self._looked: list[Looked] = []
        self._reason: str | None = None
        self._sources: set[str] = set()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self._looked, self._reason, self._sources = [], None, set()

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
        assert isinstance(pl_module, ClassificationTask), "ClassificationFigures draws a ClassificationTask"
        self._sources.update(batch["source"])
        missing = self.count - len(self._looked)
        if not trainer.is_global_zero or missing <= 0 or self._reason or pl_module.mode == "multilabel":
            return
        self._look(pl_module, outputs, batch, missing)

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
        if self._looked:
            evidence_figure(self._looked, title="Grad-CAM", synthetic=synthetic).savefig(folder / "grad_cam.png")
        if self._reason:
            logger.warning("no grad_cam.png: %s", self._reason)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves of the run, from its ``metrics.csv``."""
        write_run_curves(trainer)

    def _look(
        self, task: ClassificationTask, outputs: dict[str, Tensor], batch: ClassificationBatch, missing: int
    ) -> None:
        if not isinstance(task.network, Classifier):
            self._reason = f"{type(task.network).__name__} does not tell its last map of features"
            return
        image, predicted = batch["image"][:missing], outputs["labels"][:missing]
        try:
            evidence = grad_cam(task, task.network.evidence_layer(), image, predicted).cpu()
        except ValueError as error:
            self._reason = str(error)
            return
        everywhere = torch.ones(image.shape[-2:], dtype=torch.bool)
        for row, (name, label) in enumerate(zip(batch["id"][:missing], batch["label"].tolist(), strict=False)):
            guess = int(predicted[row])
            probability = float(outputs["probabilities"][row, guess])
            title = f"{name}\n{task.class_names[label]} as {task.class_names[guess]} ({probability:.2f})"
            picture = stretched(image[row].cpu(), everywhere)
            self._looked.append(Looked(picture, evidence[row], title, guess == label))


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
