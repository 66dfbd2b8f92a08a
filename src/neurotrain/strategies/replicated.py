"""Data parallel training: every process holds the whole task."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import final

from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from neurotrain.strategies.one_file import share_buffers


@final
class ReplicatedStrategy(DDPStrategy):
    """Lightning's DDP with figures that are those of one process.

    Buffers are each process's own while it trains, and the first one's in every evaluation and in the checkpoint. DDP
    itself would send them before each batch: it would overwrite what a task counts (its sums of an epoch), and wait for
    ever in an evaluation where one process has a batch more than another. Gradients that are accumulated are reduced
    once, at the last batch.
    """

    def __init__(
        self, *, find_unused_parameters: bool = False, bucket_mib: int = 25, timeout_seconds: float = 1800.0
    ) -> None:
        """Set how gradients travel.

        Args:
            find_unused_parameters: look, in each step, for parameters that the loss does not reach; without it each
                one needs a gradient in every step.
            bucket_mib: gradients that are reduced together.
            timeout_seconds: a collective that takes longer ends the run.

        Raises:
            ValueError: if a number is out of range.
        """
        if bucket_mib < 1:
            raise ValueError(f"bucket_mib={bucket_mib}: expected 1 or more")
        if timeout_seconds <= 0 or not math.isfinite(timeout_seconds):
            raise ValueError(f"timeout_seconds={timeout_seconds}: expected a positive number")
        super().__init__(
            timeout=timedelta(seconds=timeout_seconds),
            find_unused_parameters=find_unused_parameters,
            bucket_cap_mb=bucket_mib,
        )

    def configure_ddp(self) -> None:
        """Wraps the task; its buffers start as the first process's and are then left alone."""
        super().configure_ddp()
        assert isinstance(self.model, DistributedDataParallel)
        self.model.broadcast_buffers = False

    def on_validation_start(self) -> None:
        """Evaluates with the running statistics of the first process."""
        self._begin_evaluation()

    def on_test_start(self) -> None:
        """Evaluates with the running statistics of the first process."""
        self._begin_evaluation()

    def on_predict_start(self) -> None:
        """Evaluates with the running statistics of the first process."""
        self._begin_evaluation()

    def _begin_evaluation(self) -> None:
        assert self.lightning_module is not None
        share_buffers(self.lightning_module)
