"""Predicted classes as a table, and pictures of where the network found them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from neurotrain.batch import ClassificationBatch
from neurotrain.callbacks.checkpoint_files import hidden_name, publish
from neurotrain.callbacks.classification_evidence import (
    Evidence,
    check_evidence,
    known_evidence,
    overlaid,
    seen_evidence,
)
from neurotrain.callbacks.drawing import stretched
from neurotrain.callbacks.predictions import FOLDER
from neurotrain.callbacks.tables import write_table
from neurotrain.tasks import ClassificationTask


class ClassificationPredictions(Callback):
    """Writes ``predictions/predictions.csv`` for ``stage=predict``: ``id``, ``label``, ``probability``, by id.

    For multilabel: ``id`` and the probability of each label. Of several processes each writes its own images, the first
    one into that file, the others into ``predictions-rank<n>.csv``. The file is complete or not there.

    With ``evidence`` also ``predictions/<evidence>/<id>.png``: the image, in the size that the network saw, under what
    speaks for the predicted class, or where a transformer's head looked.

    It reads what :class:`neurotrain.tasks.ClassificationTask` returns from its prediction step.
    """

    def __init__(self, *, probabilities: bool = False, evidence: tuple[Evidence, ...] = ()) -> None:
        """Set what to write.

        Args:
            probabilities: whether to write the probability of every class as well, in a column of its name.
            evidence: see :data:`~neurotrain.callbacks.classification_evidence.Evidence`.

        Raises:
            ValueError: if ``evidence`` is unknown.
        """
        self.probabilities = probabilities
        self.evidence = known_evidence(evidence, owner="ClassificationPredictions")
        self._rows: dict[str, dict[str, str | float]] = {}
        self._written: dict[Path, str] = {}  # picture: id

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses evidence that the network cannot show.

        Raises:
            ValueError: naming it and the network.
        """
        assert isinstance(pl_module, ClassificationTask), (
            "ClassificationPredictions writes what a ClassificationTask predicts"
        )
        check_evidence(pl_module, self.evidence, owner="ClassificationPredictions")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self._rows, self._written = {}, {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: ClassificationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the batch's rows and writes its pictures.

        Raises:
            ValueError: if two pictures would have one name.
        """
        assert isinstance(pl_module, ClassificationTask)
        names = pl_module.class_names
        for name, values in zip(batch["id"], outputs["probabilities"].tolist(), strict=True):
            row: dict[str, str | float] = {"id": name}
            if pl_module.mode == "multiclass":
                best = max(range(len(values)), key=values.__getitem__)
                row |= {"label": names[best], "probability": values[best]}
            if pl_module.mode == "multilabel" or self.probabilities:
                # A class may be called like a column.
                row |= {f"p({label})": value for label, value in zip(names, values, strict=True)}
            self._rows.setdefault(name, row)
        for kind in self.evidence:
            seen = seen_evidence(pl_module, kind, batch["image"], outputs["labels"])
            folder = Path(trainer.default_root_dir) / FOLDER / kind
            for name, image, evidence in zip(batch["id"], batch["image"].cpu(), seen, strict=True):
                self._draw(folder, name, image, evidence)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table."""
        folder = Path(trainer.default_root_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        rank = f"-rank{trainer.global_rank}" if trainer.global_rank else ""
        path = folder / f"predictions{rank}.csv"
        temporary = path.with_name(hidden_name(path.name))
        write_table(temporary, [self._rows[name] for name in sorted(self._rows)])
        publish(temporary, path)

    def _draw(self, folder: Path, name: str, image: Tensor, evidence: Tensor) -> None:
        from PIL import Image

        folder.mkdir(parents=True, exist_ok=True)
        # No separators, nor anything else that some file system refuses in a name.
        path = folder / (re.sub(r'[\x00-\x1f/\\:*?"<>|]+', "_", name) + ".png")
        other = self._written.setdefault(path, name)
        if other != name:
            raise ValueError(f"{path}: {other!r} and {name!r} would both be written here; rename one of the images")
        everywhere = torch.ones(image.shape[-2:], dtype=torch.bool)
        pixels = overlaid(stretched(image.float(), everywhere), evidence)
        temporary = path.with_name(hidden_name(path.name))
        Image.fromarray(pixels.numpy()).save(temporary, format="PNG")
        publish(temporary, path)
