"""From a network, an optimizer factory and a schedule to what Lightning's ``configure_optimizers`` returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from neurotrain.tasks.schedules import Schedule

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""Takes parameter groups, returns an optimizer: ``functools.partial(torch.optim.AdamW, lr=1e-3)``."""


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Split trainable parameters into those that decay and those that do not.

    Vectors and scalars (norms, biases) carry scale, not capacity: weight decay on them only fights the norm that
    follows (He et al., arXiv:1812.01187, section 3.1).

    Args:
        network: module whose trainable parameters are wanted.

    Returns:
        Two groups, the second with ``weight_decay=0``; a group without parameters is left out.

    Raises:
        ValueError: if nothing in ``network`` is trainable.
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("the network has no trainable parameter: nothing to optimize")
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1]},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def optimizer_and_schedule(
    network: nn.Module, *, optimizer: OptimizerFactory, schedule: Schedule, total_steps: float
) -> OptimizerLRSchedulerConfig:
    """Build the optimizer over ``network`` and a scheduler that moves with each optimizer step.

    Args:
        network: module to train.
        optimizer: factory over parameter groups.
        schedule: factor of the base learning rate at each step.
        total_steps: optimizer steps of the whole run.

    Returns:
        The dictionary that ``LightningModule.configure_optimizers`` returns.

    Raises:
        ValueError: if the run has no end, so that no horizon can be derived.
    """
    if not math.isfinite(total_steps):
        raise ValueError("a schedule needs an end: set trainer.max_epochs or trainer.max_steps")
    built = optimizer(parameter_groups(network))
    horizon = int(total_steps)
    scheduler = LambdaLR(built, lambda step: schedule(step, horizon))
    return {"optimizer": built, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}
