"""Predicted volumes as NIfTI, voxel over voxel of the files that they were predicted from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from neurotrain.batch import VolumeBatch
from neurotrain.callbacks.checkpoint_files import publish
from neurotrain.callbacks.predictions import FOLDER
from neurotrain.data import VolumeDataModule
from neurotrain.data.volumes import VolumeRecord, write_labels
from neurotrain.tasks import VolumeSegmentationTask


class VolumePredictions(Callback):
    """Writes ``predictions/<id>.nii.gz`` for each case of ``stage=predict``, in the geometry of its first image.

    Axes, affine, both of its forms and their codes are the image's, bit by bit; labels are the data set's own codes. A
    file is complete or not there.

    It reads what :class:`neurotrain.tasks.VolumeSegmentationTask` returns from its prediction step, and needs a
    :class:`neurotrain.data.VolumeDataModule`.
    """

    def __init__(self) -> None:
        self._records: dict[str, VolumeRecord] = {}
        self._written: dict[str, str] = {}  # file name: id

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks up the cases.

        Raises:
            ValueError: if the network's classes are not those of the data set.
        """
        assert isinstance(pl_module, VolumeSegmentationTask), "VolumePredictions writes a VolumeSegmentationTask's"
        data = _data(trainer)
        known, found = data.dataset.label_map, pl_module.report
        if (known.mode, known.num_classes) != (found.mode, found.num_classes):
            raise ValueError(
                f"model.mode={found.mode!r} and model.num_classes={found.num_classes}: {data.title} has "
                f"{known.mode!r} and {known.num_classes}"
            )
        self._records = {record.id: record for record in data.records("predict")}
        self._written = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: VolumeBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes the batch's cases.

        Raises:
            ValueError: if two cases would have one file.
        """
        folder = Path(trainer.default_root_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        label_map = _data(trainer).dataset.label_map
        for name, labels in zip(batch["id"], outputs["labels"], strict=True):
            # No separators, nor anything else that some file system refuses in a name.
            path = folder / (re.sub(r'[\x00-\x1f/\\:*?"<>|]+', "_", name) + ".nii.gz")
            other = self._written.setdefault(path.name, name)
            if other != name:
                raise ValueError(f"{path}: {other!r} and {name!r} would both be written here; rename one of the cases")
            # Its ending is what says how it is packed.
            temporary = path.with_name(f".tmp-{path.name}")
            write_labels(temporary, label_map.decode(labels.cpu()).numpy(), like=self._records[name].images[0])
            publish(temporary, path)


def _data(trainer: Trainer) -> VolumeDataModule:
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(data, VolumeDataModule), "volumes are written over the files of a VolumeDataModule"
    return data
