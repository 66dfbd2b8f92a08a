"""Predicted classes as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from neurotrain.batch import ClassificationBatch
from neurotrain.callbacks.checkpoint_files import hidden_name, publish
from neurotrain.callbacks.predictions import FOLDER
from neurotrain.callbacks.tables import write_table
from neurotrain.tasks import ClassificationTask


class ClassificationPredictions(Callback):
    """Writes ``predictions/predictions.csv`` for ``stage=predict``: ``id``, ``label``, ``probability``, by id.

    For multilabel: ``id`` and the probability of each label. Of several processes each writes its own images, the first
    one into that file, the others into ``predictions-rank<n>.csv``. The file is complete or not there.

    It reads what :class:`neurotrain.tasks.ClassificationTask` returns from its prediction step.
    """

    def __init__(self, *, probabilities: bool = False) -> None:
        """Set what to write.

        Args:
            probabilities: whether to write the probability of every class as well, in a column of its name.
        """
        self.probabilities = probabilities
        self._rows: dict[str, dict[str, str | float]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        assert isinstance(pl_module, ClassificationTask), (
            "ClassificationPredictions writes what a ClassificationTask predicts"
        )
        self._rows = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: ClassificationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the batch's rows."""
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

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table."""
        folder = Path(trainer.default_root_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        rank = f"-rank{trainer.global_rank}" if trainer.global_rank else ""
        path = folder / f"predictions{rank}.csv"
        temporary = path.with_name(hidden_name(path.name))
        write_table(temporary, [self._rows[name] for name in sorted(self._rows)])
        publish(temporary, path)
