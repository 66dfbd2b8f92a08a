"""Samples a second, and how much of the time was spent waiting for them."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from neurotrain.callbacks.pace import batch_size


class Throughput(Callback):
    """Logs ``throughput/samples_per_second`` and ``throughput/waiting_share`` to the loggers.

    Waiting is the time between the end of a batch and the start of the next: fetching it, moving it to the device and
    Lightning's own bookkeeping (about 0.3 ms). Near 0 the data keep up, near 1 more workers or a cache would help.
    Evaluations and checkpoints do not count, neither does the first batch of an epoch.
    """

    def __init__(self, *, every_n_steps: int = 50) -> None:
        """Set how often to log.

        Args:
            every_n_steps: batches between values, each the mean over those batches.

        Raises:
            ValueError: if it is below 1.
        """
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps}: expected 1 or more")
        self.every_n_steps = every_n_steps
        self._reset()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Does not count what lies between epochs."""
        self._ended = None

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Reads the clock."""
        self._begun = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Adds one batch, and logs every ``every_n_steps``."""
        now = time.perf_counter()
        if self._ended is not None:
            self._batches += 1
            self._samples += batch_size(batch)
            self._seconds += now - self._ended
            self._waited += self._begun - self._ended
        if self._batches >= self.every_n_steps:
            self._log(trainer)
            now = time.perf_counter()
        self._ended = now

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Does not count the validation."""
        self._ended = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Does not count the saving."""
        self._ended = None

    def _log(self, trainer: Trainer) -> None:
        values = {
            "throughput/samples_per_second": self._samples * trainer.world_size / self._seconds,
            "throughput/waiting_share": self._waited / self._seconds,
            "epoch": trainer.current_epoch,
        }
        step = trainer.fit_loop.epoch_loop._batches_that_stepped  # pyright: ignore[reportPrivateUsage]
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)
        self._reset()

    def _reset(self) -> None:
        self._batches, self._samples, self._seconds, self._waited = 0, 0, 0.0, 0.0
        self._begun = 0.0
        self._ended: float | None = None
