"""The trained network of images and texts as files that others read."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from neurotrain.callbacks.ema import WeightAveraging
from neurotrain.networks.clip import OpenClip, export
from neurotrain.tasks import ClipTask

FOLDER = "export"
"""Where it lies in the run directory."""


class ClipExport(Callback):
    """Writes ``export/`` at the end of training: the averaged weights where there are some, as a test scores them.

    Changes of low rank are merged. Of a network of open_clip it is a folder that open_clip reads
    (``local-dir:FOLDER``), of others ``network.safetensors``, for their ``weights``. The folder is complete or not
    there.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the task before any time is spent on it.

        Raises:
            ValueError: if it is of another kind.
        """
        if not isinstance(pl_module, ClipTask):
            raise ValueError(f"ClipExport writes the network of a ClipTask, not of a {type(pl_module).__name__}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, ClipTask)
        folder = Path(trainer.default_root_dir) / FOLDER
        temporary = folder.with_name(f".{FOLDER}.partial")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        averages = [callback.ema for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # pyright: ignore[reportAttributeAccessIssue]
        with averages[0].swap() if averages else nullcontext():
            network = pl_module.network
            if isinstance(network, OpenClip):
                network.write(temporary)
            else:
                export(network, temporary / "network.safetensors")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
