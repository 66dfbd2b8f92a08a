"""What does not go together with ZeRO, refused by name before anything is trained."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities.model_helpers import is_overridden

from neurotrain.callbacks import WeightAveraging


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
                "Use trainer=deepspeed_zero2, or leave it out (callbacks.ema=null)"
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
