"""Pictures of what a segmentation run did: its images, its curves, its scores."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from neurotrain.batch import SegmentationBatch
from neurotrain.callbacks.curves import Point, roc_pr_figure
from neurotrain.callbacks.drawing import Segmentation, segmentation_figure
from neurotrain.callbacks.run_curves import write_run_curves
from neurotrain.data import SegmentationDataModule
from neurotrain.metrics.functional import auroc, score_histogram
from neurotrain.tasks import SegmentationTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 2**14
_OBSERVER = "reference/second_observer_"


class SegmentationFigures(Callback):
    """Draws images with their errors in test and validation, a run's curves, and ROC and precision-recall curves.

    Under ``figures/`` of the run directory: ``test/<source>-<id>.png`` and ``validation/epoch-0005/...`` (image,
    reference, probability, errors; grey where pixels do not count), ``curves.png`` at the end of a fit and
    ``roc_pr.png`` at the end of a test (all valid pixels together, and the second observer where
    :class:`SampleTable` scored one). Classes of a multi-class or multi-label problem are drawn as one foreground; of a
    volume, the slice along its first axis that has most of it. Rendered data are marked as such.

    It reads what :class:`neurotrain.tasks.SegmentationTask` returns from its steps.
    """

    def __init__(self, *, count: int | None = 8, every_n_epochs: int | None = None) -> None:
        """Set how much to draw. An image of DRIVE takes about a second.

        Args:
            count: images of each test and each validation, on each process; None draws all.
            every_n_epochs: epochs between drawn validations; None draws none. A validation on its own is drawn.

        Raises:
            ValueError: if ``count`` is negative or ``every_n_epochs`` below 1.
        """
        if count is not None and count < 0:
            raise ValueError(f"count={count}: expected 0 or more, or None for all")
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"every_n_epochs={every_n_epochs}: expected 1 or more, or None for none")
        self.count = count
        self.every_n_epochs = every_n_epochs
        self._drawn = 0
        self._images = 0
        self._histogram: Tensor | None = None
        self._confusion = torch.zeros(4, dtype=torch.int64)
        self._sources: set[str] = set()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts counting."""
        self._drawn = 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: SegmentationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first images, in the epochs in which that is due."""
        if trainer.sanity_checking:
            return
        folder = Path("validation")
        if trainer.state.fn == TrainerFn.FITTING:
            if self.every_n_epochs is None or (trainer.current_epoch + 1) % self.every_n_epochs:
                return
            folder /= f"epoch-{trainer.current_epoch + 1:04d}"
        self._draw(trainer, pl_module, outputs, batch, folder)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts counting."""
        self._drawn, self._images, self._histogram = 0, 0, None
        self._confusion = torch.zeros(4, dtype=torch.int64)
        self._sources = set()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: SegmentationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first images and counts the pixels of all."""
        assert isinstance(outputs, dict)
        valid = batch["valid"]
        label = foreground(batch["mask"], valid)
        score = foreground_probability(outputs["probabilities"], batch["mask"])[valid]
        histogram = score_histogram(score, label[valid], bins=_BINS).cpu()
        self._histogram = histogram if self._histogram is None else self._histogram + histogram
        kind = foreground(outputs["labels"], valid)[valid].long() + 2 * label[valid].long()
        self._confusion += torch.bincount(kind, minlength=4).cpu()
        self._images += len(batch["id"])
        self._sources.update(batch["source"])
        self._draw(trainer, pl_module, outputs, batch, Path("test"))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws ROC and precision-recall curves of all pixels of all processes."""
        if self._histogram is None:
            return
        parts = [self._histogram.flatten(), self._confusion, torch.tensor([self._images])]
        total = trainer.strategy.reduce(torch.cat(parts).to(trainer.strategy.root_device), reduce_op="sum")
        assert isinstance(total, Tensor)
        counts, confusion, images = total.cpu().split([self._histogram.numel(), 4, 1])
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        observer = None
        if f"{_OBSERVER}sensitivity" in metrics:
            observer = Point(*(float(metrics[f"{_OBSERVER}{name}"]) for name in ("sensitivity", "specificity")))
        quiet, alarm, miss, hit = confusion.double().tolist()
        network = Point(hit / max(hit + miss, 1), quiet / max(quiet + alarm, 1))
        figure = roc_pr_figure(
            counts.reshape(2, -1),
            title=f"{', '.join(sorted(self._sources))}: valid pixels of {int(images)} test images",
            network=network,
            observer=observer,
            synthetic=is_synthetic(trainer, self._sources),
        )
        _save(figure, _folder(trainer) / "roc_pr.png")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves of the run, from its ``metrics.csv``."""
        write_run_curves(trainer, synthetic=is_synthetic(trainer, ()))

    def _draw(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: SegmentationBatch,
        folder: Path,
    ) -> None:
        assert isinstance(outputs, dict)
        assert isinstance(pl_module, SegmentationTask), "SegmentationFigures draws what a SegmentationTask predicts"
        threshold = None if pl_module.mode == "multiclass" else float(pl_module.threshold)
        for index, (name, source) in enumerate(zip(batch["id"], batch["source"], strict=True)):
            if self.count is not None and self._drawn >= self.count:
                return
            self._drawn += 1
            shown = _shown(trainer, outputs, batch, index)
            figure = segmentation_figure(
                shown, title=_title(name, shown), threshold=threshold, synthetic=is_synthetic(trainer, (source,))
            )
            file = re.sub(r"[^\w.-]+", "_", f"{source}-{name}")
            _save(figure, _folder(trainer) / folder / f"{file}.png")


def foreground(labels: Tensor, valid: Tensor) -> Tensor:
    """Whether a pixel is of any class but the background.

    Args:
        labels: integers ``(B, *spatial)``, or ``(B, L, *spatial)`` for multilabel.
        valid: bool ``(B, *spatial)``.

    Returns:
        bool ``(B, *spatial)``.
    """
    return (labels > 0).any(1) if labels.ndim > valid.ndim else labels > 0


def foreground_probability(probabilities: Tensor, mask: Tensor) -> Tensor:
    """Probability that a pixel is of any class but the background; for multilabel, of the likeliest label.

    Args:
        probabilities: float ``(B, K, *spatial)``.
        mask: labels ``(B, *spatial)``, or ``(B, L, *spatial)`` for multilabel.

    Returns:
        float32 ``(B, *spatial)`` in [0, 1].
    """
    values = probabilities.float()
    if mask.ndim == values.ndim:
        return values.amax(1)
    return values[:, 0] if values.shape[1] == 1 else 1 - values[:, 0]


def is_synthetic(trainer: Trainer, sources: set[str] | tuple[str, ...]) -> bool:
    """Whether the data are rendered: the data set says so, or its name does."""
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    rendered = isinstance(data, SegmentationDataModule) and data.dataset.synthetic
    return rendered or any(source.startswith("synthetic") for source in sources)


def _shown(trainer: Trainer, outputs: dict[str, Tensor], batch: SegmentationBatch, index: int) -> Segmentation:
    one = slice(index, index + 1)
    valid = batch["valid"][one]
    label = foreground(batch["mask"][one], valid)[0].cpu()
    probability = foreground_probability(outputs["probabilities"][one], batch["mask"][one])[0].cpu()
    prediction = foreground(outputs["labels"][one], valid)[0].cpu()
    image, valid = batch["image"][index].float().cpu(), valid[0].cpu()
    if label.ndim == 3:
        busiest = int(label.sum((1, 2)).argmax())
        image = image[:, busiest]
        label, probability, prediction, valid = (part[busiest] for part in (label, probability, prediction, valid))
        return Segmentation(image, label, probability, prediction, valid)
    original = _original(trainer, batch, index)
    if original is not None:
        return Segmentation(original, label, probability, prediction, valid, is_rgb=True)
    return Segmentation(image, label, probability, prediction, valid)


def _original(trainer: Trainer, batch: SegmentationBatch, index: int) -> Tensor | None:
    """The image as it is on disk ``(H, W, 3)``, in its true colours, if the batch has it in the same geometry."""
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(data, SegmentationDataModule):
        return None
    splits = ("test",) if trainer.testing else ("validation",)
    for record in (record for split in splits for record in data.records(split) if record.id == batch["id"][index]):
        sample = data.dataset.read(record)
        same = torch.equal(sample["mask"], batch["mask"][index].cpu())
        if same and len(sample["image"]) in (1, 3):
            return sample["image"].expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1)
    return None


def _title(name: str, shown: Segmentation) -> str:
    hits = (shown.label & shown.prediction & shown.valid).sum()
    both = (shown.label & shown.valid).sum() + (shown.prediction & shown.valid).sum()
    area = auroc(shown.probability, shown.label.long(), valid=shown.valid)
    scores = {"Dice": float(2 * hits / both), "AUC": float(area)}
    return "    ".join([name, *(f"{key} {value:.4f}" for key, value in scores.items() if value == value)])


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "figures"


def _save(figure: Figure | None, path: Path) -> None:
    if figure is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
