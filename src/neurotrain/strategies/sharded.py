"""Fully sharded data parallel training of any task."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from neurotrain.strategies.blocks import blocks_of
from neurotrain.strategies.one_file import OneFileStrategy


@final
class ShardedStrategy(OneFileStrategy):
    """Divides parameters, gradients and optimizer states among all processes: FSDP2, on CPUs too.

    Each block of the task (see :func:`~neurotrain.strategies.blocks.blocks_of`) is gathered when it computes and let go
    after it; what belongs to no block is gathered for the length of a step. Steps are those of DDP: the mean of the
    processes' gradients. Gradients that are accumulated are reduced once, at the last batch.

    An evaluation gathers the whole task on each device once: processes may have different numbers of batches there,
    so none may wait for another.

    Reference:
        Rajbhandari et al., 2020 (arXiv:1910.02054); Zhao et al., 2023 (arXiv:2304.11277).
    """

    def __init__(self, *, min_parameters: int = 1, timeout_seconds: float = 1800.0) -> None:
        """Set what is gathered together.

        Args:
            min_parameters: a block with fewer parameters is gathered with what belongs to no block: one larger
                transfer in place of many small ones.
            timeout_seconds: a collective that takes longer ends the run.

        Raises:
            ValueError: if a number is out of range.
        """
        super().__init__(timeout_seconds=timeout_seconds)
        if min_parameters < 1:
            raise ValueError(f"min_parameters={min_parameters}: expected 1 or more")
        self.min_parameters = min_parameters
        self._scalars: list[nn.Parameter] = []
        self._accumulates = False

    def setup_environment(self) -> None:
        """Starts the processes; all of them share the data."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def check(self, task: LightningModule) -> None:
        """Refuse tasks that go backward within their step.

        Raises:
            ValueError: if the task optimizes manually.
        """
        if not task.automatic_optimization:
            raise ValueError(
                f"trainer.strategy: {type(task).__name__} goes backward within its step (manual optimization), "
                "ShardedStrategy needs the loss returned: use trainer=ddp"
            )

    def divide(self, task: LightningModule) -> nn.Module:
        """Shard each block, then what is left."""
        mesh = self.device_mesh["data_parallel"]
        # Rows of weights in channels-last format are not one piece of memory; convolutions follow their input's format.
        for parameter in task.parameters():
            parameter.data = parameter.data.contiguous()
        # A scalar (a temperature, a gate) has no rows to divide: each process keeps it whole.
        scalars = {parameter for parameter in task.parameters() if parameter.ndim == 0}
        self._scalars = [scalar for scalar in task.parameters() if scalar in scalars]
        for block in blocks_of(task, min_parameters=self.min_parameters).values():
            fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=scalars)
        root = _Step(task)
        # Also what is left is let go after each step, so that whoever looks between steps finds parts, always.
        fully_shard(root, mesh=mesh, reshard_after_forward=True, ignored_params=scalars)
        return root

    @contextmanager
    def block_backward_sync(self) -> Generator[None]:
        """Keeps gradients where they are while batches are accumulated."""
        parts = list(self._parts())
        for part in parts:
            part.set_requires_gradient_sync(False, recurse=False)
        self._accumulates = True
        try:
            yield
        finally:
            self._accumulates = False
            for part in parts:
                part.set_requires_gradient_sync(True, recurse=False)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Reduces the gradients of what is not divided."""
        super().post_backward(closure_loss)
        gradients = [scalar.grad for scalar in self._scalars if scalar.grad is not None]
        if gradients and not self._accumulates:
            mean = torch.stack([gradient.float() for gradient in gradients])
            torch.distributed.all_reduce(mean)
            for gradient, value in zip(gradients, mean / self.world_size, strict=True):
                gradient.copy_(value)

    def on_validation_end(self) -> None:
        """Lets go of what the evaluation gathered."""
        self._end_evaluation()

    def on_test_end(self) -> None:
        """Lets go of what the evaluation gathered."""
        self._end_evaluation()

    def on_predict_end(self) -> None:
        """Lets go of what the evaluation gathered."""
        self._end_evaluation()

    def _begin_evaluation(self) -> None:
        super()._begin_evaluation()
        with torch.inference_mode(False), torch.no_grad():  # training goes on with the memory that is taken here
            for part in self._parts():
                part.set_reshard_after_forward(False, recurse=False)
                part.unshard()

    def _end_evaluation(self) -> None:
        for part in self._parts():
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()

    def _parts(self) -> Iterator[FSDPModule]:
        assert self.model is not None
        return (part for part in self.model.modules() if isinstance(part, FSDPModule))


class _Step(nn.Module):
    """Around a task: its call is a whole step, which finds all that belongs to no block."""

    def __init__(self, task: LightningModule) -> None:
        super().__init__()
        self.task = task

    def forward(self, *inputs: Any) -> Any:  # noqa: ANN401 - a batch and what a step returns
        return self.task(*inputs)
