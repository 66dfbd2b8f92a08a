"""Detection and instance segmentation: one task over every detector, one step for every stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from neurotrain.batch import Categorized, Category, DetectionBatch
from neurotrain.metrics import MeanAveragePrecision
from neurotrain.networks.detection import Detection, DetectionTarget, Detector
from neurotrain.tasks.optimization import OptimizerFactory, optimizer_and_schedule
from neurotrain.tasks.schedules import Schedule
from neurotrain.tasks.training_figures import log_step, over_ranks

_CATEGORIES = "categories"
"""Key in a checkpoint: number and name of each label's category."""

_LEAST_EDGE = 1e-2
"""Pixels: a thinner box may vanish in float32 once the image is scaled, and such a box no detector takes."""


class DetectionPrediction(TypedDict):
    """What an evaluation or prediction step hands to the callbacks.

    Attributes:
        detections: one for each image, on the task's device.
        id: B names.
    """

    detections: list[Detection]
    id: list[str]


class DetectionTask(LightningModule):
    """Train, validate, test and predict with any detector; figures are COCO's, over all images of all processes.

    Crowds, and what is left of a box outside of its image, are not trained on; evaluation takes all annotations as they
    are. It runs in float32, whatever the training precision, in the pixels of the stored images, and counts an image
    once, by its id. Which categories the labels stand for is learned from the data, kept in checkpoints, and compared.

    Args:
        network: ours, see :mod:`neurotrain.networks.detection`.
        optimizer: factory over parameter groups.
        schedule: factor of the learning rate at each optimizer step.
        num_classes: number of labels.
        channels_last: keep weights in channels-last memory format: the same numbers, up to rounding, and faster
            convolutions on CPUs and tensor cores.

    Raises:
        ValueError: if network and task differ in the number of classes.
    """

    def __init__(
        self,
        *,
        network: Detector,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        num_classes: int = 80,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        if network.num_classes != num_classes:
            raise ValueError(f"network.num_classes={network.num_classes}, num_classes={num_classes}: must be equal")
        self.num_classes = num_classes
        self.network = network.to(memory_format=torch.channels_last) if channels_last else network
        self._optimizer, self._schedule = optimizer, schedule
        self.categories: tuple[Category, ...] | None = None
        # Sums of the epoch so far: each part of the loss, and batches; a buffer, so that a resumed epoch goes on.
        self.running: Tensor
        self.register_buffer("running", torch.zeros(len(network.loss_names) + 1, dtype=torch.float64))
        self.validation, self.report = self._metrics(), self._metrics()
        self.figures: dict[str, dict[str, Tensor]] = {}

    def setup(self, stage: str) -> None:
        """Learn from the data what the labels stand for.

        Raises:
            ValueError: if the data have another number of categories, or other ones than the checkpoint.
        """
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        known = data.categories() if isinstance(data, Categorized) else None
        if known is not None:
            self._compare(known, "the data")
            if len(known) != self.num_classes:
                raise ValueError(
                    f"num_classes={self.num_classes}, the data have {len(known)} categories: set "
                    f"model.num_classes={len(known)}"
                )
            self.categories = known

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build optimizer and schedule over the horizon that the trainer derives."""
        return optimizer_and_schedule(
            self.network,
            optimizer=self._optimizer,
            schedule=self._schedule,
            total_steps=self.trainer.estimated_stepping_batches,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the labels stand for."""
        if self.categories is not None:
            checkpoint[_CATEGORIES] = [{"id": one.id, "name": one.name} for one in self.categories]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it over.

        Raises:
            ValueError: if the data that are there have other categories.
        """
        stored = checkpoint.get(_CATEGORIES)
        if stored is not None:
            found = tuple(Category(one["id"], one["name"]) for one in stored)
            self._compare(found, "the checkpoint")
            self.categories = found

    def training_step(self, batch: DetectionBatch, batch_idx: int) -> Tensor:
        """Return the sum of the losses of one batch; figures are accumulated and logged when the trainer logs."""
        losses = self.network.losses(batch["image"], training_targets(batch, masks=self.network.predicts_masks))
        parts = torch.stack([losses[name].float() for name in self.network.loss_names])
        told = parts.detach()
        self.running.add_(torch.cat([told, torch.ones_like(told[:1])]))
        log_step(self, told.sum(), batch_size=len(batch["id"]))
        return parts.sum()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss, whole and in its parts, then start anew."""
        total = over_ranks(self, self.running)
        means = (total[:-1] / total[-1].clamp(min=1)).float()
        parts = {f"train/{_plain(name)}": value for name, value in zip(self.network.loss_names, means, strict=True)}
        self.log_dict({"train/loss": means.sum(), **parts}, prog_bar=False)
        self.running.zero_()

    def validation_step(self, batch: DetectionBatch, batch_idx: int) -> DetectionPrediction:
        """Score one batch of validation images."""
        return self._evaluate(batch, self.validation)

    def on_validation_epoch_end(self) -> None:
        """Log the validation figures."""
        self._tell(self.validation, "val")
        _reset(self.validation)

    def on_test_epoch_start(self) -> None:
        """Forget the images of an earlier test."""
        _reset(self.report)

    def test_step(self, batch: DetectionBatch, batch_idx: int) -> DetectionPrediction:
        """Score one batch of test images."""
        return self._evaluate(batch, self.report)

    def on_test_epoch_end(self) -> None:
        """Log every figure; those of each class are in :attr:`figures` until the next test."""
        self.figures = self._tell(self.report, "test")

    def predict_step(self, batch: DetectionBatch, batch_idx: int) -> DetectionPrediction:
        """Find objects in one batch; annotations are not read."""
        return {"detections": self.detect(batch), "id": batch["id"]}

    def detect(self, batch: DetectionBatch) -> list[Detection]:
        """Objects of each image in its stored pixels, in float32 whatever the precision of the training.

        Raises:
            ValueError: if images were scaled or cut on their way here.
        """
        for image, size, name in zip(batch["image"], batch["size"].tolist(), batch["id"], strict=True):
            if list(image.shape[-2:]) != size:
                raise ValueError(
                    f"{name!r} has {list(image.shape[-2:])} pixels, stored are {size}: eval_transform must leave the "
                    "size alone; the network scales to its own min_size and max_size"
                )
        with torch.autocast(batch["image"][0].device.type, enabled=False):
            return self.network([image.float() for image in batch["image"]])

    def _metrics(self) -> nn.ModuleDict:
        kinds: tuple[Literal["bbox", "segm"], ...] = ("bbox", "segm") if self.network.predicts_masks else ("bbox",)
        return nn.ModuleDict({kind: MeanAveragePrecision(iou_type=kind, per_class=True) for kind in kinds})

    def _evaluate(self, batch: DetectionBatch, metrics: nn.ModuleDict) -> DetectionPrediction:
        detections = self.detect(batch)
        targets = evaluation_targets(batch, masks=self.network.predicts_masks)
        for metric in metrics.values():
            assert isinstance(metric, MeanAveragePrecision)
            metric.update(detections, targets, ids=batch["id"])
        return {"detections": detections, "id": batch["id"]}

    def _tell(self, metrics: nn.ModuleDict, stage: str) -> dict[str, dict[str, Tensor]]:
        told: dict[str, dict[str, Tensor]] = {}
        for kind, metric in metrics.items():
            assert isinstance(metric, MeanAveragePrecision)
            figures = told[kind] = metric.compute()
            prefix = f"{stage}/mask_" if kind == "segm" else f"{stage}/"
            self.log_dict({f"{prefix}{name}": value.float() for name, value in figures.items() if value.ndim == 0})
        return told

    def _compare(self, found: tuple[Category, ...], where: str) -> None:
        if self.categories is not None and found != self.categories:
            pairs = zip(found, self.categories, strict=False)
            label, (new, old) = next(((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1]), (-1, ("", "")))
            told = f"label {label} is {new} there and {old} here" if label >= 0 else "one has more than the other"
            raise ValueError(f"{where} has {len(found)} categories, this task {len(self.categories)}: {told}")


def training_targets(batch: DetectionBatch, *, masks: bool) -> list[DetectionTarget]:
    """What a detector is to learn from: no crowds, boxes inside of their images, none without an area.

    Args:
        batch: of the data.
        masks: whether masks are learned.

    Raises:
        ValueError: if masks are learned and the batch has none.
    """
    _check_masks(batch, masks)
    targets: list[DetectionTarget] = []
    for row, image in enumerate(batch["image"]):
        height, width = image.shape[-2:]
        limit = batch["boxes"][row].new_tensor([width, height, width, height])
        boxes = batch["boxes"][row].clamp(min=0).minimum(limit).float()
        keep = (batch["iscrowd"][row] == 0) & ((boxes[:, 2:] - boxes[:, :2]) >= _LEAST_EDGE).all(1)
        target: DetectionTarget = {"boxes": boxes[keep], "labels": batch["labels"][row][keep]}
        targets.append({**target, "masks": batch["masks"][row][keep]} if masks and "masks" in batch else target)
    return targets


def evaluation_targets(batch: DetectionBatch, *, masks: bool) -> list[Mapping[str, Tensor]]:
    """All annotations as they are, in the words of the metrics.

    Args:
        batch: of the data.
        masks: whether masks are compared.

    Raises:
        ValueError: if masks are compared and the batch has none.
    """
    _check_masks(batch, masks)
    names = ("boxes", "labels", "iscrowd", "area", *(("masks",) if masks else ()))
    return [{name: batch[name][row] for name in names} for row in range(len(batch["id"]))]


def _check_masks(batch: DetectionBatch, masks: bool) -> None:
    if masks and "masks" not in batch:
        raise ValueError("the network predicts masks, the data have none: set data.decoder.masks=true")


def _plain(name: str) -> str:
    """``loss_classification`` of torchvision's ``classification`` and ``loss_classifier`` alike."""
    return f"loss_{name.removeprefix('loss_')}"


def _reset(metrics: nn.ModuleDict) -> None:
    for metric in metrics.values():
        assert isinstance(metric, MeanAveragePrecision)
        metric.reset()
