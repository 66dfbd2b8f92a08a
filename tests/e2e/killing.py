"""A callback that ends its own process without any warning, for tests of resuming."""

from __future__ import annotations

import os
import signal

from lightning import Callback, LightningModule, Trainer


class KillAt(Callback):
    """Sends SIGKILL to this process after a batch, or in the middle of its backward pass.

    Args:
        step: number of finished optimizer steps at which to kill.
        inside: kill between the backward pass and the optimizer's step that would follow.
    """

    def __init__(self, *, step: int, inside: bool = False) -> None:
        self.step = step
        self.inside = inside

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Kill after the optimizer's step."""
        if not self.inside and trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Kill before the optimizer's step."""
        if self.inside and trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)
