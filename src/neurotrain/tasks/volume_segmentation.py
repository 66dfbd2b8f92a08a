"""Segmentation of medical volumes: trained on patches, scored case by case over the voxels of the files."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from neurotrain.batch import SegmentationBatch, VolumeBatch
from neurotrain.inference import Inferer, MaskCleaning, labels_over
from neurotrain.losses import DeepSupervisionLoss, SegmentationLoss
from neurotrain.metrics import RunningConfusion, VolumeReport
from neurotrain.metrics.volumes import Absent
from neurotrain.networks import SegmentationOutput
from neurotrain.tasks.optimization import OptimizerFactory, optimizer_and_schedule
from neurotrain.tasks.schedules import Schedule
from neurotrain.tasks.training_figures import log_step, over_ranks


class VolumePrediction(TypedDict):
    """What an evaluation or prediction step hands to the callbacks.

    Attributes:
        labels: uint8 classes ``(B, *size)`` over the voxels of the files, or regions ``(B, K, *size)``.
        id: B names.
    """

    labels: Tensor
    id: list[str]


class VolumeSegmentationTask(LightningModule):
    """Train on patches; validate, test and predict whole cases in the geometry of their files.

    A case is predicted through ``inferer`` in float32, whatever the training precision; its probabilities are laid back
    over the voxels of its file, decided there, cleaned, and scored in millimetres with its own spacing.

    Args:
        network: maps ``(B, C, *spatial)`` to logits ``(B, K, *spatial)`` or, in training, to ``SegmentationOutput``.
        loss: gets logits, labels and the validity mask; only a ``DeepSupervisionLoss`` takes several heads.
        optimizer: factory over parameter groups.
        schedule: factor of the learning rate at each optimizer step.
        inferer: how a whole case is predicted.
        mode: ``multiclass``, or ``multilabel`` for regions that overlap.
        num_classes: classes with the background, or regions.
        class_names: names for the tables; numbers where not given.
        threshold: of multilabel: probability above which a voxel is of a region; 0.5 where not given.
        cleaning: of predicted labels; None: they are taken as they are.
        tolerance: of the normalised surface Dice, in millimetres.
        absent: see :data:`neurotrain.metrics.volumes.Absent`.
        missing: HD95 in millimetres where a class is in one of prediction and reference only; None leaves such a case
            out of the mean.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        loss: SegmentationLoss,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        inferer: Inferer,
        mode: Literal["multiclass", "multilabel"] = "multiclass",
        num_classes: int = 2,
        class_names: tuple[str, ...] | None = None,
        threshold: float | None = None,
        cleaning: MaskCleaning | None = None,
        tolerance: float = 2.0,
        absent: Absent = "skip",
        missing: float | None = None,
    ) -> None:
        super().__init__()
        _check(mode, loss, threshold)
        self.mode: Literal["multiclass", "multilabel"] = mode
        self.network, self.loss, self.inferer = network, loss, inferer
        self.threshold = 0.5 if threshold is None else threshold
        self._cleaning = cleaning
        self._optimizer, self._schedule = optimizer, schedule
        # Loss and batches of the epoch so far; a buffer, so that a resumed epoch goes on.
        self.loss_sum: Tensor
        self.register_buffer("loss_sum", torch.zeros(2, dtype=torch.float64))
        self.running = RunningConfusion(mode=mode, num_classes=num_classes)
        self.validation = VolumeReport(
            mode=mode, num_classes=num_classes, class_names=class_names, absent=absent, surface=False
        )
        self.report = VolumeReport(
            mode=mode,
            num_classes=num_classes,
            class_names=class_names,
            absent=absent,
            tolerance=tolerance,
            missing=float("nan") if missing is None else missing,
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build optimizer and schedule over the horizon that the trainer derives."""
        return optimizer_and_schedule(
            self.network,
            optimizer=self._optimizer,
            schedule=self._schedule,
            total_steps=self.trainer.estimated_stepping_batches,
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(B, K, *spatial)`` of the main head."""
        output = self.network(image)
        return output.logits if isinstance(output, SegmentationOutput) else output

    def training_step(self, batch: SegmentationBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch of patches; figures are accumulated and logged when the trainer logs."""
        output = self.network(batch["image"])
        logits, loss = self._loss(output, batch["mask"], batch["valid"])
        detached = loss.detach()
        self.loss_sum.add_(torch.stack((detached.double(), torch.ones_like(detached, dtype=torch.float64))))
        self.running.update(logits.detach(), batch["mask"], batch["valid"])
        log_step(self, detached, batch_size=len(batch["id"]))
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss and its figures over all patches, then start anew."""
        total = over_ranks(self, self.loss_sum)
        figures = {f"train/{name}": value for name, value in self.running.compute().items()}
        self.log_dict({"train/loss": (total[0] / total[1].clamp(min=1)).float(), **figures}, prog_bar=False)
        self.loss_sum.zero_()
        self.running.reset()

    def validation_step(self, batch: VolumeBatch, batch_idx: int) -> VolumePrediction:
        """Score one whole case of the validation data."""
        return self._scored(batch, self.validation)

    def on_validation_epoch_end(self) -> None:
        """Log the validation figures."""
        self.log_dict({f"val/{name}": value.float() for name, value in self.validation.compute().items()})
        self.validation.reset()

    def on_test_epoch_start(self) -> None:
        """Forget the cases of an earlier test."""
        self.report.reset()

    def test_step(self, batch: VolumeBatch, batch_idx: int) -> VolumePrediction:
        """Score one whole case of the test data."""
        return self._scored(batch, self.report)

    def on_test_epoch_end(self) -> None:
        """Log every figure of the report; its rows stay readable until the next test starts."""
        self.log_dict({f"test/{name}": value.float() for name, value in self.report.compute().items()})

    def predict_step(self, batch: VolumeBatch, batch_idx: int) -> VolumePrediction:
        """Predict one whole case; its reference is not read."""
        return {"labels": self.labels(batch), "id": batch["id"]}

    def probabilities(self, image: Tensor) -> Tensor:
        """Return float32 probabilities ``(B, K, *spatial)`` of prepared volumes through the inferer."""
        with torch.autocast(image.device.type, enabled=False):
            return self.inferer(self._activate, image.float())

    def labels(self, batch: VolumeBatch) -> Tensor:
        """Predict labels over the voxels of the files.

        Args:
            batch: cases of one shape.

        Returns:
            uint8 classes ``(B, *size)``, or regions ``(B, K, *size)``, cleaned.
        """
        probabilities = self.probabilities(batch["image"])
        places = zip(probabilities, batch["box"].cpu(), batch["size"].cpu(), strict=True)
        labels = torch.stack(
            [labels_over(p, box=box, size=size, mode=self.mode, threshold=self.threshold) for p, box, size in places]
        )
        if self._cleaning is None:
            return labels
        flat = labels.flatten(0, 1) if self.mode == "multilabel" else labels
        return self._cleaning(flat).view_as(labels)

    def _loss(self, output: Any, mask: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        if not isinstance(output, SegmentationOutput):
            return output, self.loss(output, mask, valid)
        if not isinstance(self.loss, DeepSupervisionLoss):
            raise ValueError(
                f"the network has {len(output.aux)} further heads, which {type(self.loss).__name__} does not read: "
                "wrap it into DeepSupervisionLoss (model/loss=deep_supervision) or set "
                "model.network.deep_supervision=0"
            )
        return output.logits, self.loss.over_heads(output.logits, output.aux, mask, valid)

    def _scored(self, batch: VolumeBatch, report: VolumeReport) -> VolumePrediction:
        assert "reference" in batch, "cases that are scored have labels"
        labels = self.labels(batch)
        reference = batch["reference"].to(labels.device)
        report.update(labels, reference, ids=batch["id"], spacing=batch["spacing"])
        return {"labels": labels, "id": batch["id"]}

    def _activate(self, image: Tensor) -> Tensor:
        logits = self(image)
        return logits.softmax(1) if self.mode == "multiclass" else logits.sigmoid()


def _check(mode: str, loss: SegmentationLoss, threshold: float | None) -> None:
    if loss.mode != mode:
        raise ValueError(f"loss.mode={loss.mode!r}, mode={mode!r}: must be equal")
    if threshold is not None and mode == "multiclass":
        raise ValueError(f"threshold={threshold} has no effect for multiclass, which takes the most probable class")
    if threshold is not None and not 0.0 < threshold < 1.0:
        raise ValueError(f"threshold={threshold} must be a probability in (0, 1)")
