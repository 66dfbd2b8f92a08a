"""How processes begin with ZeRO: on a CPU too, and from the weights of the first of them."""

# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def use_cpu() -> None:
    """Let DeepSpeed compute on the CPU and communicate by gloo, also where there is a GPU."""
    import deepspeed
    from deepspeed.accelerator import set_accelerator
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    set_accelerator(CPU_Accelerator())
    # Else it compiles collectives of its own, which takes a minute, and uses them instead of gloo's.
    deepspeed.ops.__compatible_ops__ = {}


def take_over_first(module: nn.Module, device: torch.device) -> None:
    """Start from the first process's weights and buffers, whatever the others have drawn.

    Args:
        module: the task; changed in place, wherever it is.
        device: on which the processes communicate.
    """
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            sent = tensor.detach().to(device, copy=True, memory_format=torch.contiguous_format)
            torch.distributed.broadcast(sent, src=0)
            tensor.copy_(sent)


@contextmanager
def no_broadcast() -> Generator[None]:
    """Keep DeepSpeed from sending weights at its start, which :func:`take_over_first` did.

    DeepSpeed 0.19 sends them as bytes, and fails at parameters without dimensions, such as a temperature, and at those
    whose last dimension is not the innermost in memory.
    """
    from deepspeed.runtime.engine import DeepSpeedEngine
    from deepspeed.runtime.zero.partition_parameters import Init

    sends, sends_and_shares = DeepSpeedEngine._broadcast_model, Init._zero_init_param
    DeepSpeedEngine._broadcast_model, Init._zero_init_param = _send_nothing, _share_only
    try:
        yield
    finally:
        DeepSpeedEngine._broadcast_model, Init._zero_init_param = sends, sends_and_shares


def _send_nothing(engine: object) -> None:
    """Stands for the broadcast of stages 1 and 2."""


def _share_only(init: Any, parameter: Any) -> None:  # noqa: ANN401 - DeepSpeed has no types
    """Does what stage 3 does with a parameter, but for its broadcast."""
    init._convert_to_deepspeed_param(parameter)
    parameter.partition()
