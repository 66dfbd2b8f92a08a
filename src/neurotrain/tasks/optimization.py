"""From a network, an optimizer factory and a schedule to what Lightning's ``configure_optimizers`` returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
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


def layer_groups(network: nn.Module, depths: Mapping[str, int], *, decay: float) -> list[dict[str, Any]]:
    """Split trainable parameters by the layer that they belong to, for rates that fall towards the image.

    A layer ``d`` below the head learns at ``decay ** d`` times the rate; vectors and scalars do not decay, see
    :func:`parameter_groups`.

    Args:
        network: module whose trainable parameters are wanted.
        depths: number of each parameter's layer by its name, 0 at the image.
        decay: factor from a layer to the one before it, in (0, 1].

    Returns:
        Groups with ``lr_scale``, those of the head first, some with ``weight_decay=0``.

    Raises:
        ValueError: if ``decay`` is out of range, or nothing is trainable.

    Reference:
        Clark et al., 2020 (arXiv:2003.10555), section 3.1; Bao et al., 2022 (arXiv:2106.08254), as in timm.
    """
    if not 0.0 < decay <= 1.0:
        raise ValueError(f"layer_decay={decay} must be in (0, 1]")
    head = max(depths.values())
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            below, flat = head - depths[name], parameter.ndim <= 1
            settings = {"params": [], "lr_scale": decay**below} | ({"weight_decay": 0.0} if flat else {})
            groups.setdefault((below, flat), settings)["params"].append(parameter)
    if not groups:
        raise ValueError("the network has no trainable parameter: nothing to optimize")
    return [groups[key] for key in sorted(groups)]


def optimizer_and_schedule(
    network: nn.Module,
    *,
    optimizer: OptimizerFactory,
    schedule: Schedule,
    total_steps: float,
    groups: list[dict[str, Any]] | None = None,
) -> OptimizerLRSchedulerConfig:
    """Build the optimizer over ``network`` and a scheduler that moves with each optimizer step.

    Args:
        network: module to train.
        optimizer: factory over parameter groups.
        schedule: factor of the base learning rate at each step.
        total_steps: optimizer steps of the whole run.
        groups: of parameters, each with an optional ``lr_scale`` of its rate; None: :func:`parameter_groups`.

    Returns:
        The dictionary that ``LightningModule.configure_optimizers`` returns.

    Raises:
        ValueError: if the run has no end, so that no horizon can be derived.
    """
    if not math.isfinite(total_steps):
        raise ValueError("a schedule needs an end: set trainer.max_epochs or trainer.max_steps")
    built = optimizer(parameter_groups(network) if groups is None else groups)
    for group in built.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)  # the schedule takes it for the base rate
    horizon = int(total_steps)
    scheduler = LambdaLR(built, lambda step: schedule(step, horizon))
    return {"optimizer": built, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}
