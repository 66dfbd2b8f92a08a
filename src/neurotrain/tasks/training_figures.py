"""What every task logs of its training: loss and rate of some steps, and totals of an epoch over all ranks."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch import LightningModule
from torch import Tensor


def log_step(
    task: LightningModule, loss: Tensor, *, batch_size: int, further: Mapping[str, Tensor] | None = None
) -> None:
    """Log loss and learning rate of a step after which the trainer writes its log; of others nothing, which is free.

    Args:
        task: in its ``training_step``.
        loss: a scalar; its graph is not kept.
        batch_size: images of the batch.
        further: figures beside them.
    """
    if (task.trainer.global_step + 1) % task.trainer.log_every_n_steps:  # pyright: ignore[reportAttributeAccessIssue]
        return
    rate = max(group["lr"] for group in task.trainer.optimizers[0].param_groups)
    told = {name: value.detach() for name, value in (further or {}).items()}
    task.log_dict({"train/loss_step": loss.detach(), "train/lr": rate, **told}, batch_size=batch_size)


def over_ranks(task: LightningModule, total: Tensor) -> Tensor:
    """The sum of every rank's totals, or the totals themselves where there is one rank.

    Args:
        task: attached to its trainer.
        total: of this rank, which keeps its values.
    """
    if task.trainer.world_size == 1:
        return total
    summed = task.trainer.strategy.reduce(total.clone(), reduce_op="sum")
    assert isinstance(summed, Tensor)
    return summed
