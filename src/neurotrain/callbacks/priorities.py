"""The losses of training samples, told to the loader that draws by them."""

from __future__ import annotations

import logging
import math
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import distributed

from neurotrain.callbacks.telemetry import training_loaders
from neurotrain.data import PlannedLoader
from neurotrain.tasks import TellsSampleLosses

logger = logging.getLogger(__name__)


class LossPriorities(Callback):
    """Tells each sample's loss to the training loader, where sources are drawn by it (``order: ByLoss``).

    Losses of all ranks reach all ranks, so that they draw by the same. Does nothing where no source is drawn by losses;
    otherwise says at the start which are, for their order is exempt from the promise that it does not depend on world
    size, workers and interruptions. A loss that is not finite, or negative, changes no priority.

    Raises:
        TypeError: at the start, if the task does not tell the losses of samples.
    """

    def __init__(self) -> None:
        """Find the loaders when training starts."""
        self._loaders: list[PlannedLoader] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find them, say so, and ask the task for losses."""
        self._loaders = [
            loader for loader in training_loaders(trainer) if isinstance(loader, PlannedLoader) and loader.exempt
        ]
        names = [name for loader in self._loaders for name in loader.exempt]
        if not names:
            return
        if not isinstance(pl_module, TellsSampleLosses):
            raise TypeError(f"sources {names} are drawn by losses, which {type(pl_module).__name__} does not tell")
        pl_module.tells_sample_losses = True
        logger.info(
            "drawn by their losses, and so exempt from an order that depends on the seed alone: %s", ", ".join(names)
        )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Tell the losses of one batch."""
        if not self._loaders:
            return
        told = list(zip(batch["source"], batch["id"], outputs["sample_loss"].double().tolist(), strict=True))
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            distributed.all_gather_object(gathered, told)
            told = [row for rows in gathered for row in rows]
        usable = [row for row in told if row[2] >= 0 and math.isfinite(row[2])]
        for loader in self._loaders:
            loader.learn(
                sources=[row[0] for row in usable], ids=[row[1] for row in usable], losses=[row[2] for row in usable]
            )
