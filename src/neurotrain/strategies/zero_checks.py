"""What does not go together with ZeRO, refused by name before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from neurotrain.callbacks import NanGuard, NonFiniteLossError, WeightAveraging


def check_run(trainer: Trainer, task: LightningModule, *, stage: int) -> None:
    """Refuse a task, a callback or a setting that ZeRO would leave without effect or get wrong.

    Args:
        trainer: with its callbacks.
        task: to be trained.
        stage: of ZeRO.

    Raises:
        ValueError: naming what does not go together, and what to do.
    """
    name = type(task).__name__
    if not task.automatic_optimization:
        raise ValueError(
            f"{name} steps its optimizers itself, maybe several of them; ZeRO takes one optimizer: use trainer=ddp"
        )
    for hook in ("configure_gradient_clipping", "backward", "optimizer_step"):
        if is_overridden(hook, task):
            raise ValueError(f"{name}.{hook} would have no effect under ZeRO, which does that itself: use trainer=ddp")
    if trainer.gradient_clip_algorithm == "value":
        raise ValueError("gradient_clip_algorithm=value: ZeRO clips by 'norm' only")
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if stage == 3 and isinstance(callback, WeightAveraging):
            raise ValueError(
                "WeightAveraging would average nothing: under ZeRO-3 no process has the weights. "
                "Use trainer=deepspeed_zero2, or leave it out (callbacks.average=null)"
            )
        if isinstance(callback, GradientAccumulationScheduler):
            raise ValueError(
                "GradientAccumulationScheduler: ZeRO accumulates the same number of batches throughout; "
                "use trainer.accumulate_grad_batches"
            )


def check_schedules(task: LightningModule, count: int) -> None:
    """Refuse several learning-rate schedules, of which DeepSpeed would follow one.

    Args:
        task: whose schedules they are.
        count: how many it configured.

    Raises:
        ValueError: naming the task.
    """
    if count > 1:
        raise ValueError(f"{type(task).__name__} has {count} learning-rate schedules, ZeRO takes one: use trainer=ddp")


def check_finite(trainer: Trainer, weights: Mapping[str, Tensor]) -> None:
    """Do for gathered weights what :class:`NanGuard`, where it is used, cannot: under ZeRO-3 it sees empty tensors.

    Args:
        trainer: with its callbacks.
        weights: those that are to be saved, on the first process; all of them have to call it.

    Raises:
        NonFiniteLossError: on all processes, naming the first such weight.
    """
    if not any(isinstance(callback, NanGuard) for callback in trainer.callbacks):  # pyright: ignore[reportAttributeAccessIssue]
        return
    wrong = next((name for name, value in weights.items() if not torch.isfinite(value).all()), None)
    wrong = trainer.strategy.broadcast(wrong)
    if wrong is not None:
        raise NonFiniteLossError(f"{wrong} is not finite after step {trainer.global_step}: not saved")
