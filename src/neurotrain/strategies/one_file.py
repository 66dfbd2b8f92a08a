"""Strategies whose parameters are divided among processes and whose checkpoints are as those of one process."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from neurotrain.shards import global_norm, local, part_of, whole


class OneFileStrategy(ModelParallelStrategy, ABC):
    """Lightning's ModelParallelStrategy for tasks that know nothing of it, with plain checkpoints.

    Lightning asks each task to shard itself in ``configure_model``; here the strategy divides the finished task, before
    its optimizer is built. A checkpoint is one file of whole tensors in the optimizer's own order, written by rank 0:
    it is read under any strategy and any number of processes, and a run that is resumed elsewhere goes on. Reading it,
    each process takes its own part. Gradients are clipped by the norm over all parts.

    Each process builds the whole task first and holds it until it is divided.
    """

    def __init__(self, *, timeout_seconds: float) -> None:
        """Set how long a collective may take before all processes give up.

        Raises:
            ValueError: if it is not positive.
        """
        if timeout_seconds <= 0 or not math.isfinite(timeout_seconds):
            raise ValueError(f"timeout_seconds={timeout_seconds}: expected a positive number")
        super().__init__(save_distributed_checkpoint=False, timeout=timedelta(seconds=timeout_seconds))
        self._divided: tuple[LightningModule, nn.Module] | None = None

    @abstractmethod
    def check(self, task: LightningModule) -> None:
        """Refuse a task that this strategy would not train rightly, before anything is changed.

        Raises:
            ValueError: names what is wrong.
        """

    @abstractmethod
    def divide(self, task: LightningModule) -> nn.Module:
        """Divide the parameters of a task, which every process holds whole, in place.

        Returns:
            What a step is called through: the task, or a module around it.
        """

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Whether weights are read into divided parameters; before, so that callbacks see the order of one process."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether the trainer hands over the optimizers' states."""
        return True

    def setup(self, trainer: Trainer) -> None:
        """Divides the task, then builds its optimizers.

        Raises:
            ValueError: from :meth:`check`.
        """
        task = self.lightning_module
        assert task is not None
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        if self._divided is None or self._divided[0] is not task:
            self.check(task)
            if trainer.state.fn == TrainerFn.FITTING and self._layer_sync is not None:
                self._layer_sync.apply(task)
            task = self.precision_plugin.convert_module(task)
            assert isinstance(task, LightningModule)
            task.to(self.root_device)
            _take_over_first(task)
            self._divided = (task, self.divide(task))
        self.model = self._divided[1]
        self.model_to_device()
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        # torch's own cannot add norms over different meshes, nor of parts beside whole tensors.
        self.precision_plugin.clip_grad_by_norm = self._clip_by_norm

    def on_validation_start(self) -> None:
        """Evaluates with the running statistics of the first process, which are those of the checkpoint."""
        self._begin_evaluation()

    def on_test_start(self) -> None:
        """Evaluates with the running statistics of the first process, which are those of the checkpoint."""
        self._begin_evaluation()

    def on_predict_start(self) -> None:
        """Evaluates with the running statistics of the first process, which are those of the checkpoint."""
        self._begin_evaluation()

    def _begin_evaluation(self) -> None:
        assert self.lightning_module is not None
        share_buffers(self.lightning_module)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights on rank 0, nothing on the others; all ranks have to call it."""
        assert self.lightning_module is not None
        return self._gathered(self.lightning_module.state_dict())

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Takes this process's part of the weights."""
        task = self.lightning_module
        assert task is not None
        own = task.state_dict()
        given = {
            name: part_of(value, own[name]) if isinstance(value, Tensor) and name in own else value
            for name, value in checkpoint["state_dict"].items()
        }
        task.load_state_dict(given, strict=strict)

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Builds the optimizers; see :func:`step_one_by_one`."""
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            step_one_by_one(optimizer)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole states on rank 0, as one process would save them; all ranks have to call it."""
        state = _plain(optimizer).state_dict()
        groups = [{**group, "foreach": None} if "foreach" in group else group for group in state["param_groups"]]
        return self._gathered({**state, "param_groups": groups})

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Takes this process's part of the optimizers' states."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            load_parts(_plain(optimizer), state)
            step_one_by_one(optimizer)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:  # noqa: ANN401
        """Writes one file, on rank 0."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ANN401
        """Reads one file, on each rank."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def _gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """Gather tensor by tensor, so that no process but the first ever holds more than one whole tensor."""
        first = self.global_rank == 0
        found = tree_map_only(Tensor, lambda tensor: whole(tensor.detach()).cpu() if first else whole(tensor), state)
        return found if first else {}

    def _clip_by_norm(self, optimizer: Optimizer, clip_val: float) -> None:
        parameters = self.precision_plugin.main_params(optimizer)
        clip_by_norm([parameter.grad for parameter in parameters if parameter.grad is not None], float(clip_val))


def clip_by_norm(gradients: list[Tensor], limit: float) -> Tensor:
    """Scale gradients, plain or sharded, so that the norm over all of them is at most ``limit``.

    Args:
        gradients: changed in place; in the same order on all ranks, which all have to call it.
        limit: the norm at most.

    Returns:
        The norm before.
    """
    norm = global_norm(gradients)
    factor = torch.clamp(limit / (norm + 1e-6), max=1.0)  # as torch.nn.utils.clip_grad_norm_
    for gradient in gradients:
        part = local(gradient)
        part.mul_(factor.to(part.device))
    return norm


def load_parts(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimizer's whole state, of which this process takes its part.

    Args:
        optimizer: over plain or sharded parameters.
        state: ``state_dict`` of the same optimizer over plain ones.

    Raises:
        ValueError: if the state has other groups of parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    divided = {
        number: {
            name: part_of(value, parameters[number])
            if isinstance(value, Tensor) and number < len(parameters) and value.shape == parameters[number].shape
            else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": divided})


def step_one_by_one(optimizer: Optimizer) -> None:
    """Let groups of divided and whole parameters step one by one: torch's joint step takes either kind alone."""
    for group in optimizer.param_groups:
        divided = [isinstance(parameter, DTensor) for parameter in group["params"]]
        if "foreach" in group and any(divided) and not all(divided):
            group["foreach"] = False


def share_buffers(task: LightningModule) -> None:
    """Let all processes have the first one's buffers, such as running statistics; a collective.

    Buffers of the task itself (sums of an epoch) are each process's own.
    """
    for module in task.children():
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _take_over_first(task: LightningModule) -> None:
    """Start from the first process's weights, whatever the others have drawn."""
    with torch.no_grad():
        for parameter in task.parameters():
            torch.distributed.broadcast(parameter.data, src=0)
    share_buffers(task)


def _plain(optimizer: Optimizer | LightningOptimizer) -> Optimizer:
    return optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
