"""Semantic segmentation of images and volumes: one network, one loss, one step for every stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from neurotrain.batch import SegmentationBatch, SegmentationMode
from neurotrain.inference import Inferer
from neurotrain.losses import SegmentationLoss
from neurotrain.metrics import RunningConfusion, SampleMean, SegmentationReport, SegmentationScore, ThresholdSearch
from neurotrain.networks import SegmentationOutput
from neurotrain.tasks.optimization import OptimizerFactory, optimizer_and_schedule
from neurotrain.tasks.sample_losses import TrainingOutput, sample_losses
from neurotrain.tasks.schedules import Schedule
from neurotrain.tasks.training_figures import log_step, over_ranks

_SMALLEST_PROBABILITY = 1e-7  # keeps log(p) of a saturated float32 sigmoid finite


class Prediction(TypedDict):
    """What an evaluation or prediction step hands to the callbacks.

    Attributes:
        probabilities: float32 ``(B, K, *spatial)`` in [0, 1].
        labels: int64 ``(B, *spatial)``, or ``(B, L, *spatial)`` for multilabel, at the task's threshold.
        id: B names.
    """

    probabilities: Tensor
    labels: Tensor
    id: list[str]


class SegmentationTask(LightningModule):
    """Train, validate, test and predict with any segmentation network.

    Evaluation always runs in float32, whatever the training precision, through ``inferer`` (whole image or sliding
    window, with or without test-time augmentation), and only inside each sample's ``valid`` mask.

    Args:
        network: maps ``(B, C, *spatial)`` to logits ``(B, K, *spatial)`` or, in training, to ``SegmentationOutput``.
        loss: gets logits, labels and the validity mask.
        optimizer: factory over parameter groups.
        schedule: factor of the learning rate at each optimizer step.
        inferer: how a whole image is predicted.
        mode: ``binary``, ``multiclass`` or ``multilabel``.
        num_classes: 1 for binary, classes (background included) for multiclass, labels for multilabel.
        class_names: names for the tables; numbers where not given.
        threshold: probability above which a pixel is foreground. None: the one that maximises the mean per-image
            Dice of the validation data, found anew at each validation and kept in the checkpoint; the test data never
            choose it. Must be None for multiclass, which takes the most probable class.
        aux_weight: weight of the mean loss over auxiliary heads, beside 1 for the main one.
        metrics: further figures of validation and test by name, of labels at the task's threshold; their own settings
            (mode, classes, spacing) must be the task's.
        tolerance: of the normalized surface Dice, in pixels (or the unit of the spacing).
        channels_last: keep 2-D images and weights in channels-last memory format: the same numbers, up to rounding,
            and about 1.5 times as fast on CPUs and tensor cores.

    Raises:
        ValueError: if mode, num_classes, class_names and threshold contradict each other.
    """

    tells_sample_losses = False
    """See :class:`neurotrain.tasks.TellsSampleLosses`; auxiliary heads are left out of it."""

    def __init__(
        self,
        *,
        network: nn.Module,
        loss: SegmentationLoss,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        inferer: Inferer,
        mode: SegmentationMode = "binary",
        num_classes: int = 1,
        class_names: tuple[str, ...] | None = None,
        threshold: float | None = None,
        metrics: Mapping[str, SegmentationScore] | None = None,
        aux_weight: float = 1.0,
        tolerance: float = 1.0,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        _check(mode, num_classes, class_names, threshold)
        self.mode: SegmentationMode = mode
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.memory_format)
        self.loss = loss
        self.inferer = inferer
        self.aux_weight = aux_weight
        self._optimizer, self._schedule = optimizer, schedule
        self._search_threshold = threshold is None and mode != "multiclass"
        self.threshold: Tensor
        initial = torch.tensor(float("nan") if threshold is None else threshold)
        self.register_buffer(
            "threshold", initial, persistent=self._search_threshold
        )  # a typed one wins over a saved one
        # Of the epoch so far; buffers, so that a resumed epoch goes on.
        self.loss_sum: Tensor
        self.register_buffer("loss_sum", torch.zeros((), dtype=torch.float64))
        self.loss_count: Tensor
        self.register_buffer("loss_count", torch.zeros((), dtype=torch.float64))
        self.running = RunningConfusion(mode=mode, num_classes=num_classes)
        self.search = ThresholdSearch() if self._search_threshold else None
        self.validation = SegmentationReport(mode=mode, num_classes=num_classes, class_names=class_names, surface=False)
        self.report = SegmentationReport(
            mode=mode, num_classes=num_classes, class_names=class_names, tolerance=tolerance
        )
        self.validation_loss = SampleMean()
        self.metrics = _further(metrics or {}, mode=mode, num_classes=num_classes)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 - any attribute
        """Set an attribute; the one that Lightning sets fifty times a step without looking for parameters in it."""
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build optimizer and schedule over the horizon that the trainer derives."""
        return optimizer_and_schedule(
            self.network,
            optimizer=self._optimizer,
            schedule=self._schedule,
            total_steps=self.trainer.estimated_stepping_batches,
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take a threshold that was chosen from the checkpoint only where this task is to choose one."""
        state = checkpoint["state_dict"]
        if self._search_threshold:
            state.setdefault("threshold", self.threshold)
        else:
            state.pop("threshold", None)

    def on_fit_start(self) -> None:
        """Refuse at once a run that would end without a threshold that belongs to its final weights.

        Raises:
            ValueError: if the threshold is to be chosen and nothing, or not the last epoch, is validated.
        """
        if not self._search_threshold:
            return
        epochs, every = self.trainer.max_epochs, self.trainer.check_val_every_n_epoch
        if not self.trainer.enable_validation:
            raise ValueError(
                "model.threshold=null is chosen on validation data, and there are none: hold some out "
                "(data.validation=4, or data.folds=5) or set model.threshold"
            )
        if epochs is not None and every is not None and epochs > 0 and epochs % every:
            raise ValueError(
                f"trainer.max_epochs={epochs} is no multiple of trainer.check_val_every_n_epoch={every}: the last "
                "epoch would not be validated, and model.threshold=null would be chosen for older weights"
            )

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(B, K, *spatial)`` for images ``(B, C, *spatial)``."""
        logits, _ = _heads(self.network(image.contiguous(memory_format=self.memory_format)))
        return logits

    def training_step(self, batch: SegmentationBatch, batch_idx: int) -> Tensor | TrainingOutput:
        """Return the loss of one batch; figures are accumulated and logged when the trainer logs."""
        output = self.network(batch["image"].contiguous(memory_format=self.memory_format))
        logits, aux = _heads(output)
        loss = self.loss(logits, batch["mask"], batch["valid"])
        if aux:
            extra = torch.stack([self.loss(head, batch["mask"], batch["valid"]) for head in aux])
            loss = loss + self.aux_weight * extra.mean()
        detached = loss.detach()
        self.loss_sum.add_(detached)
        self.loss_count.add_(1)
        self.running.update(logits.detach(), batch["mask"], batch["valid"])
        log_step(self, detached, batch_size=len(batch["id"]))
        if self.tells_sample_losses:
            return {"loss": loss, "sample_loss": sample_losses(self.loss, logits, batch["mask"], batch["valid"])}
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss and its figures at threshold 0.5, then start anew."""
        total = over_ranks(self, torch.stack((self.loss_sum, self.loss_count)))
        figures = {f"train/{name}": value for name, value in self.running.compute().items()}
        self.log_dict({"train/loss": (total[0] / total[1].clamp(min=1)).float(), **figures}, prog_bar=False)
        self.loss_sum.zero_()
        self.loss_count.zero_()
        self.running.reset()

    def validation_step(self, batch: SegmentationBatch, batch_idx: int) -> Prediction:
        """Score one batch of validation images."""
        probabilities = self.probabilities(batch["image"])
        # Image by image: a batch's mean depends on who else is in it, hence on the number of processes.
        losses = sample_losses(self.loss, _logits_of(probabilities, self.mode), batch["mask"], batch["valid"])
        self.validation_loss.update(losses, ids=batch["id"])
        if self.search is not None:
            self.search.update(probabilities, batch["mask"], batch["valid"], ids=batch["id"])
        threshold = 0.5 if torch.isnan(self.threshold) else float(self.threshold)
        self.validation.update(probabilities, batch["mask"], batch["valid"], ids=batch["id"], threshold=threshold)
        prediction = self._prediction(probabilities, threshold, batch["id"])
        self._measure(prediction, batch)
        return prediction

    def on_validation_epoch_end(self) -> None:
        """Log the validation figures; choose the threshold where the task is asked to."""
        figures = self.validation.compute()
        if self.search is not None:
            # Only what needs no threshold: the one in force belonged to older weights.
            figures = {name: value for name, value in figures.items() if name.endswith("auc")}
            threshold, dice = self.search.compute()
            if not self.trainer.sanity_checking:
                self.threshold.copy_(threshold)
            figures |= {"dice": dice, "threshold": threshold}
            self.search.reset()
        figures |= self._measured() | {"loss": self.validation_loss.compute()}
        self.log_dict({f"val/{name}": value.float() for name, value in figures.items()})
        self.validation.reset()
        self.validation_loss.reset()

    def test_step(self, batch: SegmentationBatch, batch_idx: int) -> Prediction:
        """Score one batch of test images at the threshold that is already fixed."""
        probabilities = self.probabilities(batch["image"])
        threshold = self._fixed_threshold()
        self.report.update(probabilities, batch["mask"], batch["valid"], ids=batch["id"], threshold=threshold)
        prediction = self._prediction(probabilities, threshold, batch["id"])
        self._measure(prediction, batch)
        return prediction

    def on_test_epoch_end(self) -> None:
        """Log every figure of the report; its rows stay readable until the next test starts."""
        figures = self.report.compute()
        if self.mode != "multiclass":
            figures["threshold"] = self.threshold
        figures |= self._measured()
        self.log_dict({f"test/{name}": value.float() for name, value in figures.items()})

    def on_test_epoch_start(self) -> None:
        """Forget the rows of an earlier test."""
        self.report.reset()

    def predict_step(self, batch: SegmentationBatch, batch_idx: int) -> Prediction:
        """Predict one batch; labels are not read."""
        return self._prediction(self.probabilities(batch["image"]), self._fixed_threshold(), batch["id"])

    def probabilities(self, image: Tensor) -> Tensor:
        """Return float32 probabilities ``(B, K, *spatial)`` of whole images through the inferer."""
        with torch.autocast(image.device.type, enabled=False):
            return self.inferer(self._activate, image.float())

    def _measure(self, prediction: Prediction, batch: SegmentationBatch) -> None:
        for metric in self.metrics.values():
            assert isinstance(metric, SegmentationScore)
            metric.update(prediction["labels"], batch["mask"], batch["valid"])

    def _measured(self) -> dict[str, Tensor]:
        """The further figures, which begin anew."""
        figures: dict[str, Tensor] = {}
        for name, metric in self.metrics.items():
            assert isinstance(metric, SegmentationScore)
            figures[name] = metric.compute()
            metric.reset()
        return figures

    def _activate(self, image: Tensor) -> Tensor:
        logits = self(image)
        return logits.softmax(1) if self.mode == "multiclass" else logits.sigmoid()

    def _fixed_threshold(self) -> float:
        if self.mode == "multiclass":
            return 0.5  # not read: the most probable class is taken
        if torch.isnan(self.threshold):
            raise ValueError(
                "no threshold yet: it is chosen on validation data. Validate first (the checkpoint keeps it), "
                "give the data a validation part, or set model.threshold"
            )
        return float(self.threshold)

    def _prediction(self, probabilities: Tensor, threshold: float, ids: list[str]) -> Prediction:
        if self.mode == "multiclass":
            labels = probabilities.argmax(1)
        else:
            labels = (probabilities > threshold).long()
            labels = labels[:, 0] if self.mode == "binary" else labels
        return {"probabilities": probabilities, "labels": labels, "id": ids}


def _heads(output: Any) -> tuple[Tensor, tuple[Tensor, ...]]:  # noqa: ANN401 - a network returns one of two types
    if isinstance(output, SegmentationOutput):
        return output.logits, output.aux
    assert isinstance(output, Tensor), f"a segmentation network returns logits, got {type(output).__name__}"
    return output, ()


def _further(metrics: Mapping[str, SegmentationScore], *, mode: SegmentationMode, num_classes: int) -> nn.ModuleDict:
    for name, metric in metrics.items():
        if (metric.mode, metric.num_classes) != (mode, num_classes):
            raise ValueError(
                f"metrics.{name} has mode={metric.mode!r} and num_classes={metric.num_classes}, the task "
                f"mode={mode!r} and num_classes={num_classes}"
            )
        if metric.reduction != "mean":
            raise ValueError(f"metrics.{name} has reduction={metric.reduction!r}: one figure is logged, give 'mean'")
    return nn.ModuleDict(metrics)


def _logits_of(probabilities: Tensor, mode: SegmentationMode) -> Tensor:
    """Invert sigmoid or softmax, so that averaged probabilities get the training loss."""
    if mode == "multiclass":
        return probabilities.clamp(min=_SMALLEST_PROBABILITY).log()
    return torch.logit(probabilities, eps=_SMALLEST_PROBABILITY)


def _check(
    mode: SegmentationMode, num_classes: int, class_names: tuple[str, ...] | None, threshold: float | None
) -> None:
    if (mode == "binary") != (num_classes == 1):
        raise ValueError(f"mode={mode!r} with num_classes={num_classes}: binary has 1, the others 2 or more")
    if class_names is not None and len(class_names) != num_classes:
        raise ValueError(f"class_names={class_names} must name all num_classes={num_classes}")
    if threshold is not None and mode == "multiclass":
        raise ValueError(f"threshold={threshold} has no effect for multiclass, which takes the most probable class")
    if threshold is not None and not 0.0 < threshold < 1.0:
        raise ValueError(f"threshold={threshold} must be a probability in (0, 1)")
