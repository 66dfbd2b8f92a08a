"""The trained captioner as its library reads it."""

from __future__ import annotations

import shutil
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from neurotrain.networks.captioning import HuggingFaceCaptioner
from neurotrain.tasks import CaptioningTask

FOLDER = "export"
"""Where it lies in the run directory."""


class CaptionerExport(Callback):
    """Writes ``export/`` at the end of training: the model with its processor, or LoRA's adapter alone.

    For a :class:`neurotrain.networks.captioning.HuggingFaceCaptioner`: what is written is read by transformers (and is
    a ``path`` of that class again), or by peft. The folder is complete or not there.
    """

    def __init__(self, *, merged: bool = True) -> None:
        """Set what to write.

        Args:
            merged: the whole model with LoRA added to its weights; otherwise the adapter alone.
        """
        self.merged = merged

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the network before any time is spent on it.

        Raises:
            ValueError: if it is of another kind.
        """
        self._network(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes."""
        network = self._network(pl_module)
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / FOLDER
        temporary = folder.with_name(f".{FOLDER}.partial")
        shutil.rmtree(temporary, ignore_errors=True)
        network.export(temporary, merged=self.merged)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)

    def _network(self, task: LightningModule) -> HuggingFaceCaptioner:
        if not isinstance(task, CaptioningTask) or not isinstance(task.network, HuggingFaceCaptioner):
            kind = type(task.network).__name__ if isinstance(task, CaptioningTask) else type(task).__name__
            raise ValueError(f"CaptionerExport writes a HuggingFaceCaptioner, not {kind}")
        return task.network
