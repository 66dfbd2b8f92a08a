"""A task of ZeRO-3 made whole again: for an evaluation, and for good."""

# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from neurotrain.strategies.zero_state import gathered, is_sharded

if TYPE_CHECKING:
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3


@contextmanager
def evaluated_whole(module: nn.Module, optimizer: DeepSpeedZeroOptimizer_Stage3) -> Generator[None]:
    """Give each process all parameters, and none of DeepSpeed's hooks, within a ``with`` block.

    Processes may have different numbers of batches in an evaluation, and only one of them draws figures: none may wait
    for another there, as ZeRO-3 does in every layer.

    Args:
        module: the task; all processes have to enter together.
        optimizer: that shared its parameters out.
    """
    offload = optimizer.parameter_offload
    hooks = {handle.id for handle in (*offload.forward_hooks, *offload.backward_hooks, offload.fwd_pre_hook)}
    whole = _whole_parameters(module)
    kept = [(part, part._parameters, part._forward_hooks, part._forward_pre_hooks) for part in module.modules()]
    for part, parameters in whole.items():
        part._parameters = parameters
        part._forward_hooks = _without(part._forward_hooks, hooks)
        part._forward_pre_hooks = _without(part._forward_pre_hooks, hooks)
    try:
        yield
    finally:
        for part, parameters, after, before in kept:
            part._parameters, part._forward_hooks, part._forward_pre_hooks = parameters, after, before


def make_whole(module: nn.Module) -> None:
    """Put plain parameters in the place of those that ZeRO-3 shared out; all processes have to call it.

    Args:
        module: changed in place.
    """
    for part, parameters in _whole_parameters(module).items():
        part._parameters = parameters


def _whole_parameters(module: nn.Module) -> dict[nn.Module, dict[str, nn.Parameter | None]]:
    """Plain parameters by their module and name; tied ones stay tied."""
    done: dict[int, nn.Parameter] = {}
    found: dict[nn.Module, dict[str, nn.Parameter | None]] = {}
    for part in module.modules():
        own = dict(part._parameters.items())
        new = [p for p in own.values() if p is not None and id(p) not in done]
        with gathered(new):
            done |= {id(p): _plain(p) if is_sharded(p) else p for p in new}
        found[part] = {name: None if p is None else done[id(p)] for name, p in own.items()}
    return found


def _plain(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)


def _without(hooks: dict[int, Callable[..., Any]], those: set[int]) -> OrderedDict[int, Callable[..., Any]]:
    return OrderedDict((number, hook) for number, hook in hooks.items() if number not in those)
