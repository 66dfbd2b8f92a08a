"""Classification of whole images: one network, one loss, one step for every stage."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from neurotrain.batch import ClassificationBatch
from neurotrain.inference import View, check_views, mean_over_views
from neurotrain.losses.classification import ClassificationLoss
from neurotrain.metrics import ClassificationReport, SampleMean
from neurotrain.networks.classification import Classifier
from neurotrain.tasks.mixing import Mixing
from neurotrain.tasks.optimization import OptimizerFactory, layer_groups, optimizer_and_schedule
from neurotrain.tasks.sample_losses import TrainingOutput, sample_losses
from neurotrain.tasks.schedules import Schedule
from neurotrain.tasks.teaching import Distillation
from neurotrain.tasks.training_figures import log_step, over_ranks

_MIXED = "mixed_batches"
"""Key in a checkpoint: how many batches this run has mixed."""


class ClassPrediction(TypedDict):
    """What an evaluation or prediction step hands to the callbacks.

    Attributes:
        probabilities: float32 ``(B, K)`` in [0, 1].
        labels: int64 ``(B,)``, the most probable class; for multilabel ``(B, K)``, 1 from probability 0.5 on.
        id: B names.
    """

    probabilities: Tensor
    labels: Tensor
    id: list[str]


class ClassificationTask(LightningModule):
    """Train, validate, test and predict with any network that maps images to logits ``(B, K)``.

    Evaluation always runs in float32, whatever the training precision, and counts an image once, by its id.

    Args:
        network: maps ``(B, C, H, W)`` to logits ``(B, K)``: ours, timm's, torchvision's or your own.
        loss: of logits and classes, or of probabilities of them where images are mixed; says which mode it is.
        optimizer: factory over parameter groups.
        schedule: factor of the learning rate at each optimizer step.
        num_classes: K; the number of labels for multilabel.
        class_names: names for tables and pictures; numbers where not given.
        mixing: of training batches; None: images are taken as they are.
        distillation: a teacher's share of the loss; None: there is no teacher.
        layer_decay: factor of the learning rate from a layer to the one before it, in (0, 1]; None: one rate for all.
        top_k: see :class:`neurotrain.metrics.ClassificationReport`.
        channels_last: keep images and weights in channels-last memory format: the same numbers, up to rounding, and
            faster convolutions on CPUs and tensor cores.
        views: of an image, over which its logits are averaged wherever it is evaluated or predicted.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    tells_sample_losses = False
    """See :class:`neurotrain.tasks.TellsSampleLosses`; of mixed images, the loss is that of the mixture."""

    def __init__(
        self,
        *,
        network: nn.Module,
        loss: ClassificationLoss,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        num_classes: int = 10,
        class_names: tuple[str, ...] | None = None,
        mixing: Mixing | None = None,
        distillation: Distillation | None = None,
        layer_decay: float | None = None,
        top_k: int | None = 5,
        channels_last: bool = False,
        views: View = "one",
    ) -> None:
        super().__init__()
        _check(network, num_classes, class_names, layer_decay)
        check_views(views)
        self.views: View = views
        self.num_classes = num_classes
        self.mode = loss.mode
        self.class_names = tuple(map(str, range(num_classes))) if class_names is None else tuple(class_names)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.memory_format)
        self.loss = loss
        self._optimizer, self._schedule, self._layer_decay = optimizer, schedule, layer_decay
        self._mixing, self._distillation = mixing, distillation
        self._mixed = 0
        # Sums of the epoch so far: loss, hits, images, batches; a buffer, so that a resumed epoch goes on.
        self.running: Tensor
        self.register_buffer("running", torch.zeros(4, dtype=torch.float64))
        self.validation = ClassificationReport(mode=self.mode, num_classes=num_classes, top_k=top_k)
        self.report = ClassificationReport(mode=self.mode, num_classes=num_classes, top_k=top_k)
        self.evaluation_loss = SampleMean()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build optimizer and schedule over the horizon that the trainer derives."""
        groups = None
        if self._layer_decay is not None:
            assert isinstance(self.network, Classifier)
            groups = layer_groups(self.network, self.network.depths(), decay=self._layer_decay)
        return optimizer_and_schedule(
            self.network,
            optimizer=self._optimizer,
            schedule=self._schedule,
            total_steps=self.trainer.estimated_stepping_batches,
            groups=groups,
        )

    def on_fit_start(self) -> None:
        """Bring the teacher to this process's device."""
        if self._distillation is not None:
            self._distillation.prepare(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say how many batches were mixed: the next one's random numbers follow from that."""
        checkpoint[_MIXED] = self._mixed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""
        self._mixed = checkpoint.get(_MIXED, 0)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(B, K)`` for images ``(B, C, H, W)``."""
        return self.network(image.contiguous(memory_format=self.memory_format))

    def training_step(self, batch: ClassificationBatch, batch_idx: int) -> Tensor | TrainingOutput:
        """Return the loss of one batch; figures are accumulated and logged when the trainer logs."""
        image, target = self._mixed_batch(batch)
        logits = self(image)
        loss = self.loss(logits, target)
        if self._distillation is not None:
            share = self._distillation.share
            loss = (1 - share) * loss + share * self._distillation.loss(logits, image)
        self._count(loss.detach(), logits.detach(), target)
        log_step(self, loss, batch_size=len(batch["id"]))
        if self.tells_sample_losses:
            return {"loss": loss, "sample_loss": sample_losses(self.loss, logits, target)}
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss and accuracy (of mixed images: in their heavier class), then start anew."""
        loss, hits, images, batches = over_ranks(self, self.running)
        figures = {"train/loss": (loss / batches.clamp(min=1)).float()}
        figures["train/accuracy"] = (hits / images.clamp(min=1)).float()
        self.log_dict(figures, prog_bar=False)
        self.running.zero_()

    def validation_step(self, batch: ClassificationBatch, batch_idx: int) -> ClassPrediction:
        """Score one batch of validation images."""
        return self._evaluate(batch, self.validation)

    def on_validation_epoch_end(self) -> None:
        """Log the validation figures."""
        self._tell("val", self.validation)
        self.validation.reset()

    def on_test_epoch_start(self) -> None:
        """Forget the images of an earlier test."""
        self.report.reset()

    def test_step(self, batch: ClassificationBatch, batch_idx: int) -> ClassPrediction:
        """Score one batch of test images."""
        return self._evaluate(batch, self.report)

    def on_test_epoch_end(self) -> None:
        """Log every figure of the report, whose images stay readable until the next test starts."""
        self._tell("test", self.report)

    def predict_step(self, batch: ClassificationBatch, batch_idx: int) -> ClassPrediction:
        """Predict one batch; labels are not read."""
        return self._prediction(self.logits(batch["image"]), batch["id"])

    def logits(self, image: Tensor) -> Tensor:
        """Return float32 logits ``(B, K)``, the mean over the views, whatever the precision of the training."""
        with torch.autocast(image.device.type, enabled=False):
            return mean_over_views(self, image.float(), views=self.views)

    def _mixed_batch(self, batch: ClassificationBatch) -> tuple[Tensor, Tensor]:
        if self._mixing is None:
            return batch["image"], batch["label"]
        draw = (self.global_rank, self._mixed)
        self._mixed += 1
        return self._mixing(batch["image"], batch["label"], num_classes=self.num_classes, draw=draw)

    def _count(self, loss: Tensor, logits: Tensor, target: Tensor) -> None:
        if self.mode == "multilabel":
            hits = ((logits >= 0) == (target >= 0.5)).double().mean(1).sum()
        else:
            hits = (logits.argmax(1) == (target.argmax(1) if target.ndim == 2 else target)).sum()
        count = torch.tensor(float(len(logits)), device=loss.device)
        self.running.add_(torch.stack((loss.float(), hits.float(), count, torch.ones_like(count))))

    def _tell(self, stage: str, report: ClassificationReport) -> None:
        figures = {"loss": self.evaluation_loss.compute(), **report.compute()}
        self.log_dict({f"{stage}/{name}": value.float() for name, value in figures.items()})
        self.evaluation_loss.reset()

    def _evaluate(self, batch: ClassificationBatch, report: ClassificationReport) -> ClassPrediction:
        logits = self.logits(batch["image"])
        # Image by image: a batch's mean depends on who else is in it, hence on the number of processes.
        losses = sample_losses(self.loss, logits, batch["label"])
        self.evaluation_loss.update(losses, ids=batch["id"], weights=self.loss.sample_weights(batch["label"]))
        prediction = self._prediction(logits, batch["id"])
        report.update(prediction["probabilities"], batch["label"], ids=batch["id"])
        return prediction

    def _prediction(self, logits: Tensor, ids: list[str]) -> ClassPrediction:
        probabilities = logits.sigmoid() if self.mode == "multilabel" else logits.softmax(1)
        labels = (probabilities >= 0.5).long() if self.mode == "multilabel" else probabilities.argmax(1)
        return {"probabilities": probabilities, "labels": labels, "id": ids}


def _check(
    network: nn.Module, num_classes: int, class_names: tuple[str, ...] | None, layer_decay: float | None
) -> None:
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes}: must be at least 1")
    if class_names is not None and len(class_names) != num_classes:
        raise ValueError(f"class_names names {len(class_names)} classes, num_classes={num_classes}")
    if isinstance(network, Classifier) and network.num_classes != num_classes:
        raise ValueError(f"network.num_classes={network.num_classes}, num_classes={num_classes}: must be equal")
    if layer_decay is None:
        return
    if not 0.0 < layer_decay <= 1.0:
        raise ValueError(f"layer_decay={layer_decay} must be in (0, 1]")
    if not isinstance(network, Classifier):
        raise ValueError(
            f"layer_decay={layer_decay}: {type(network).__name__} does not tell its layers; networks that derive from "
            "neurotrain.networks.classification.Classifier do"
        )
