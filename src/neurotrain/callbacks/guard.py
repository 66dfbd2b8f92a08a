"""Stop a run whose loss or weights are no longer numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class NonFiniteLossError(RuntimeError):
    """The loss, or a weight, became NaN or infinite."""


class NanGuard(Callback):
    """Stops the run at the first loss that is NaN or infinite, before it reaches gradients and weights.

    Nothing poisoned is ever saved: each checkpoint is refused, with the same error, if a loss since the last check or a
    weight is not finite. On an accelerator each check waits for the device; ``every_n_steps`` spares that, at the price
    that the error names a range of steps.
    """

    def __init__(self, *, every_n_steps: int = 1) -> None:
        """Set how often to look.

        Args:
            every_n_steps: batches between checks; each check covers all of them.

        Raises:
            ValueError: if it is below 1.
        """
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps}: expected 1 or more")
        self.every_n_steps = every_n_steps
        self._ids: list[str] = []
        self._unchecked = 0
        self._sum: Tensor | None = None

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Notes whose loss comes next."""
        self._ids = list(batch["id"]) if isinstance(batch, Mapping) and "id" in batch else []

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Looks at the loss.

        Raises:
            NonFiniteLossError: naming step, epoch and the samples of the batch.
        """
        if self.every_n_steps == 1:
            if not math.isfinite(value := loss.item()):
                raise NonFiniteLossError(self._message(trainer, value))
            return
        # NaN and infinity stay in a sum (+inf and -inf make NaN), so one look covers all.
        self._sum = loss.detach().float() if self._sum is None else self._sum + loss.detach()
        self._unchecked += 1
        if self._unchecked >= self.every_n_steps:
            self._check_sum(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuses to save what is not finite.

        Raises:
            NonFiniteLossError: naming the loss or the first such weight.
        """
        self._check_sum(trainer)
        for name, value in pl_module.named_parameters():
            if not torch.isfinite(value).all():
                raise NonFiniteLossError(f"{name} is not finite after {_where(trainer)}: not saved")

    def _check_sum(self, trainer: Trainer) -> None:
        total, self._sum, count, self._unchecked = self._sum, None, self._unchecked, 0
        if total is not None and not math.isfinite(value := total.item()):
            raise NonFiniteLossError(f"{self._message(trainer, value)}, or in the {count - 1} batches before it")

    def _message(self, trainer: Trainer, value: float) -> str:
        samples = f", samples {', '.join(self._ids)}" if self._ids else ""
        return f"loss is {value} at {_where(trainer)}{_part(trainer)}{samples}"


def _where(trainer: Trainer) -> str:
    return f"step {trainer.global_step} of epoch {trainer.current_epoch} (both from 0)"


def _part(trainer: Trainer) -> str:
    """Which part of the step it was, where several batches or ranks make one."""
    accumulated, batches = trainer.accumulate_grad_batches, trainer.fit_loop.epoch_loop.batch_progress.current
    part = "" if accumulated == 1 else f", batch {(batches.ready - 1) % accumulated + 1} of its {accumulated}"
    return part if trainer.world_size == 1 else f"{part}, rank {trainer.global_rank} of {trainer.world_size}"
