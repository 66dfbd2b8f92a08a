"""Validate and test with averaged weights."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from neurotrain.ema import ExponentialMovingAverage


class WeightAveraging(Callback):
    """Keeps an exponential moving average of the weights, which every evaluation uses.

    Averaged are all parameters of the task and the buffers of its submodules; buffers of the task itself (a threshold,
    a counter) are its state, not weights. The average is updated after optimizer steps, so gradient accumulation is
    respected; it is in the checkpoints of the run, and ``trainer.test(ckpt_path=...)`` takes it from there.
    """

    def __init__(self, *, decay: float = 0.998, warmup: bool = True, every_n_steps: int = 1) -> None:
        """Set the average; see :class:`neurotrain.ema.ExponentialMovingAverage`.

        Args:
            decay: share of the old average that an update keeps, in ``[0, 1)``.
            warmup: whether the first updates forget faster.
            every_n_steps: optimizer steps between updates.

        Raises:
            ValueError: if ``decay`` or ``every_n_steps`` is out of range.
        """
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps}: expected 1 or more")
        self.every_n_steps = every_n_steps
        self.ema = ExponentialMovingAverage(decay=decay, warmup=warmup)
        self._loaded = False
        self._step = 0
        self._swap = ExitStack()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts from the present weights, or goes on with those of the checkpoint."""
        self._follow(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes where the run stands."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Updates the average if an optimizer stepped."""
        step = trainer.global_step
        if step // self.every_n_steps != self._step // self.every_n_steps:
            self.ema.update()
        self._step = step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the average in."""
        self._enter(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the weights back."""
        self._swap.close()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the average in."""
        self._enter(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the weights back."""
        self._swap.close()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the average in."""
        self._enter(pl_module)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the weights back."""
        self._swap.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Puts the weights back: whoever saves now must not save the average as weights."""
        self._swap.close()

    def state_dict(self) -> dict[str, Any]:
        """The average: numbers and tensors only; empty before there is one."""
        return dict(self.ema.state_dict()) if self.ema.module is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the average for the module that comes next."""
        self.ema = ExponentialMovingAverage(decay=self.ema.decay, warmup=self.ema.warmup)
        self.ema.load_state_dict({"updates": state_dict["updates"], "average": state_dict["average"]})
        self._loaded = True

    def _follow(self, pl_module: LightningModule) -> None:
        if self.ema.module is not pl_module:
            self.ema.attach(pl_module, skip=[name for name, _ in pl_module.named_buffers(recurse=False)])

    def _enter(self, pl_module: LightningModule) -> None:
        """Without a fit and without an average in the checkpoint, the weights are what there is to evaluate."""
        if self.ema.module is not pl_module and not self._loaded:
            return
        with torch.inference_mode(False):
            self._follow(pl_module)
        self._swap.enter_context(self.ema.swap())
