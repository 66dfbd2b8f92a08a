"""Predictions as pictures, one a photograph, of exactly its size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from neurotrain.batch import SegmentationBatch
from neurotrain.callbacks.checkpoint_files import hidden_name, publish
from neurotrain.data import SegmentationDataModule
from neurotrain.data.datasets import Record
from neurotrain.inference import MaskCleaning
from neurotrain.metrics.functional import predict_labels
from neurotrain.tasks import SegmentationTask

FOLDER = "predictions"
"""Where they lie in the run directory."""

_MOST_CLASSES = 256


class SegmentationPredictions(Callback):
    """Writes ``predictions/<id>.png`` for each image of ``stage=predict``, in the size that the image has on disk.

    Binary: 0 and 255. Multiclass: the class's number. Multilabel: ``<id>_<label>.png`` of 0 and 255 for each label.
    Pixels that do not count (outside the field of view) are background. Where ``eval_transform`` scaled the image, the
    probabilities are scaled back before they are turned into labels. A file is complete or not there.

    It reads what :class:`neurotrain.tasks.SegmentationTask` returns from its prediction step, and decides by its
    threshold.
    """

    def __init__(self, *, probabilities: bool = False, cleaning: MaskCleaning | None = None) -> None:
        """Set what to write.

        Args:
            probabilities: whether to write ``<id>_probability.png`` (``<id>_<label>_probability.png``) as well: 16-bit
                grey, 65535 times the probability of the foreground, which for multiclass is any class but the first.
            cleaning: of the labels, in the image's own size, before they are written; probabilities are not cleaned.
        """
        self.probabilities = probabilities
        self.cleaning = cleaning
        self._records: dict[str, Record] = {}
        self._written: dict[str, str] = {}  # file name: id

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks up the images.

        Raises:
            ValueError: if there are more classes than an 8-bit picture has values.
        """
        assert isinstance(pl_module, SegmentationTask), (
            "SegmentationPredictions writes what a SegmentationTask predicts"
        )
        classes = pl_module.report.num_classes
        if pl_module.mode == "multiclass" and classes > _MOST_CLASSES:
            raise ValueError(f"num_classes={classes}: labels are written as 8-bit pictures, of {_MOST_CLASSES} at most")
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        ours = isinstance(data, SegmentationDataModule)
        self._records = {record.id: record for record in data.records("predict")} if ours else {}
        self._written = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: SegmentationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes the batch's pictures.

        Raises:
            ValueError: if predictions are no pictures, or do not lie over the image, or two would have one name.
        """
        assert isinstance(pl_module, SegmentationTask)
        folder = Path(trainer.default_root_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for name, values, valid in zip(batch["id"], outputs["probabilities"], batch["valid"], strict=True):
            if valid.ndim != 2:
                raise ValueError(
                    f"{name!r} has {valid.ndim} spatial axes: only 2-D predictions are written as pictures"
                )
            values, valid = (self._laid_back(part.cpu(), name, trainer) for part in (values, valid))
            for suffix, pixels in self._pictures(values, valid, pl_module):
                self._write(folder, name, suffix, pixels)

    def _laid_back(self, part: Tensor, name: str, trainer: Trainer) -> Tensor:
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        return data.laid_back(part, self._records[name]) if isinstance(data, SegmentationDataModule) else part

    def _pictures(self, values: Tensor, valid: Tensor, task: SegmentationTask) -> Iterator[tuple[str, np.ndarray]]:
        """What follows the id in the file's name, and the pixels; ``values`` are ``(K, H, W)``."""
        labels = predict_labels(values[None], mode=task.mode, threshold=float(task.threshold))[0] * valid
        if self.cleaning is not None:
            # Each label of a multilabel problem is a mask of its own; nothing grows out of what counts.
            labels = self.cleaning(labels.reshape(-1, *valid.shape)).view_as(labels) * valid
        if task.mode == "multiclass":
            yield "", _bytes(labels)
            foreground = {"": 1 - values[0]}
        else:
            suffixes = [""] if task.mode == "binary" else [f"_{name}" for name in task.report.class_names]
            for suffix, label in zip(suffixes, labels.reshape(values.shape), strict=True):
                yield suffix, _bytes(label * 255)
            foreground = dict(zip(suffixes, values, strict=True))
        if self.probabilities:
            for suffix, value in foreground.items():
                yield f"{suffix}_probability", _words(value * valid)

    def _write(self, folder: Path, name: str, suffix: str, pixels: np.ndarray) -> None:
        from PIL import Image

        # No separators, nor anything else that some file system refuses in a name.
        path = folder / (re.sub(r'[\x00-\x1f/\\:*?"<>|]+', "_", f"{name}{suffix}") + ".png")
        other = self._written.setdefault(path.name, name)
        if other != name:
            raise ValueError(f"{path}: {other!r} and {name!r} would both be written here; rename one of the images")
        temporary = path.with_name(hidden_name(path.name))
        Image.fromarray(pixels).save(temporary, format="PNG")
        publish(temporary, path)


def _bytes(labels: Tensor) -> np.ndarray:
    return labels.numpy().astype(np.uint8)


def _words(probability: Tensor) -> np.ndarray:
    return (probability.double().clamp(0, 1) * 65535).round().numpy().astype(np.uint16)
