"""Weights and optimizer states under ZeRO, gathered from all ranks and shared out again.

DeepSpeed keeps the float32 weights of a rank, and what its optimizer knows of them, in a few flat tensors. Here they
become a checkpoint as every other strategy writes it: whole tensors of plain types by name and number, which load at
any world size, stage or strategy.

Written for DeepSpeed 0.19; the tests of this package would notice a change.
"""

# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    ZeroOptimizer = DeepSpeedZeroOptimizer | DeepSpeedZeroOptimizer_Stage3

ParameterGroups = Sequence[Sequence[nn.Parameter]]
"""Parameters of each group of an optimizer, as it was before DeepSpeed flattened them."""

_SCALED = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What a scaler of float16 gradients counts."""


@dataclass(frozen=True)
class Piece:
    """What this rank holds of one parameter.

    Attributes:
        flat: float32 weights of many parameters; the optimizer's state is kept under this tensor.
        place: where in ``flat`` the piece lies; empty where the rank holds nothing of the parameter.
        part: which elements of the flattened parameter it is.
        shape: of the whole parameter.
        group: ranks among which the parameter is divided.
    """

    flat: Tensor
    place: slice
    part: slice
    shape: torch.Size
    group: torch.distributed.ProcessGroup

    def gathered(self, values: Tensor, device: torch.device) -> Tensor:
        """Assemble a whole tensor from the ranks' pieces; all of them have to call it.

        Args:
            values: shaped as ``flat``: the weights, or a part of the optimizer's state.
            device: on which the ranks communicate.

        Returns:
            The whole on ``device``, float32.
        """
        whole = torch.zeros(self.shape.numel(), dtype=torch.float32, device=device)
        whole[self.part] = values.detach()[self.place].to(device)
        # Each element is on one rank, and a sum with zeros is exact.
        torch.distributed.all_reduce(whole, group=self.group)
        return whole.view(self.shape)

    def scatter(self, whole: Tensor, values: Tensor) -> None:
        """Write this rank's piece of ``whole`` into ``values``."""
        with torch.no_grad():
            values[self.place] = whole.detach().reshape(-1)[self.part].to(values.device, values.dtype)


def pieces(optimizer: ZeroOptimizer, groups: ParameterGroups) -> Iterator[Piece]:
    """Tell where the parameters lie, in the order of the optimizer.

    Args:
        optimizer: DeepSpeed's.
        groups: of the optimizer that it wraps.

    Yields:
        One piece a parameter.
    """
    for number, group in enumerate(groups):
        for parameter in group:
            yield _sharded(optimizer, parameter) if is_sharded(parameter) else _flattened(optimizer, number, parameter)


def is_sharded(parameter: Tensor) -> bool:
    """Whether ZeRO-3 has left of a parameter nothing but an empty tensor."""
    return "ds_id" in parameter.__dict__


def _flattened(optimizer: Any, number: int, parameter: Any) -> Piece:  # noqa: ANN401 - DeepSpeed has no types
    """A parameter under stage 1 or 2: any stretch of it may be on this rank."""
    flat: Tensor = optimizer.single_partition_of_fp32_groups[number]
    mapping = parameter._hp_mapping
    place = part = slice(0, 0)
    if mapping is not None:
        place = _slice(mapping.get_hp_fragment_address())
        part = _slice(mapping.lp_fragment_address)
    return Piece(flat, place, part, parameter.shape, parameter._dp_group)


def _sharded(optimizer: Any, parameter: Any) -> Piece:  # noqa: ANN401 - DeepSpeed has no types
    """A parameter under stage 3: each rank has an equal part, the last ones padded."""
    subgroup, start, length = optimizer.grad_position[optimizer.get_param_id(parameter)]
    group = parameter.ds_process_group
    first = min(length * torch.distributed.get_rank(group), parameter.ds_numel)
    filled = min(length, parameter.ds_numel - first)
    place, part = slice(start, start + filled), slice(first, first + filled)
    return Piece(optimizer.fp32_partitioned_groups_flat[subgroup], place, part, parameter.ds_shape, group)


def _slice(address: Any) -> slice:  # noqa: ANN401 - DeepSpeed has no types
    return slice(address.start, address.start + address.numel)


def gather_weights(
    module: nn.Module, optimizer: ZeroOptimizer | None, groups: ParameterGroups, *, device: torch.device, keep: bool
) -> dict[str, Tensor]:
    """Gather what ``module.state_dict()`` would be without ZeRO, in float32 where there are float32 weights.

    All ranks have to call it. One parameter at a time is whole on the device.

    Args:
        module: the task.
        optimizer: DeepSpeed's; None where nothing is trained.
        groups: of the optimizer that it wraps.
        device: on which the ranks communicate.
        keep: whether this rank wants the result.

    Returns:
        Tensors in main memory by name; empty where not kept.
    """
    trained = [parameter for group in groups for parameter in group]
    of = {} if optimizer is None else dict(zip(map(id, trained), pieces(optimizer, groups), strict=True))
    done: dict[int, Tensor] = {}  # tied parameters have several names
    found: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in done:
            piece = of.get(id(tensor))
            whole = _present(tensor) if piece is None else piece.gathered(piece.flat, device)
            done[id(tensor)] = whole.detach().to("cpu", copy=True) if keep else torch.empty(0)
        found[name] = done[id(tensor)]
    return found if keep else {}


def _present(tensor: Tensor) -> Tensor:
    """A buffer or a frozen parameter."""
    with gathered([tensor]):
        return tensor.detach().clone()


def gathered(tensors: Sequence[Tensor]) -> Any:  # noqa: ANN401 - DeepSpeed has no types
    """Make parameters of ZeRO-3 whole within a ``with`` block; all ranks have to enter it.

    Args:
        tensors: of any kind; those that are not sharded are left alone.

    Returns:
        A context.
    """
    sharded = [tensor for tensor in tensors if is_sharded(tensor)]
    if not sharded:
        return nullcontext()
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters

    return GatheredParameters(sharded, modifier_rank=None)


def gather_optimizer(
    optimizer: ZeroOptimizer, groups: ParameterGroups, *, device: torch.device, keep: bool
) -> dict[str, Any]:
    """Gather what the state of the wrapped optimizer would be without ZeRO; all ranks have to call it.

    Args:
        optimizer: DeepSpeed's.
        groups: of the optimizer that it wraps.
        device: on which the ranks communicate.
        keep: whether this rank wants the result.

    Returns:
        As ``torch.optim.Optimizer.state_dict``, in main memory, and the scale of float16 gradients as ``loss_scale``.
    """
    base = _wrapped(optimizer)
    state: dict[int, dict[str, Any]] = {}
    for index, piece in enumerate(pieces(optimizer, groups)):
        known: dict[str, Any] = {}
        for key, value in base.state.get(piece.flat, {}).items():
            if isinstance(value, Tensor) and value.shape == piece.flat.shape:
                whole = piece.gathered(value, device)
                known[key] = whole.to("cpu", copy=True) if keep else None
            else:
                known[key] = value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
        if known and keep:
            state[index] = known
    if not keep:
        return {}
    return {"state": state, "param_groups": _told(base, groups), "loss_scale": _loss_scale(optimizer)}


def _told(base: torch.optim.Optimizer, groups: ParameterGroups) -> list[dict[str, Any]]:
    """The optimizer's groups with its settings and the numbers of their parameters."""
    told: list[dict[str, Any]] = []
    count = 0
    for own, group in zip(base.param_groups, groups, strict=True):
        numbers = list(range(count, count + len(group)))
        told.append({**{key: value for key, value in own.items() if key != "params"}, "params": numbers})
        count += len(group)
    return told


def share_out(
    optimizer: ZeroOptimizer,
    groups: ParameterGroups,
    *,
    weights: Sequence[Tensor],
    state: dict[str, Any],
) -> None:
    """Give each rank its pieces of whole weights and of a whole optimizer's state; the reverse of gathering.

    Args:
        optimizer: DeepSpeed's, new.
        groups: of the optimizer that it wraps.
        weights: float32, in the order of the optimizer's parameters.
        state: as of ``torch.optim.Optimizer.state_dict``.

    Raises:
        ValueError: if the state is that of other groups of parameters.
    """
    base = _wrapped(optimizer)
    sizes = [len(group["params"]) for group in state["param_groups"]]
    if sizes != [len(group) for group in groups]:
        raise ValueError(
            f"the checkpoint's optimizer has groups of {sizes} parameters, this one {[len(group) for group in groups]}"
        )
    for own, saved in zip(base.param_groups, state["param_groups"], strict=True):
        own.update({key: value for key, value in saved.items() if key != "params"})
    for index, (piece, whole) in enumerate(zip(pieces(optimizer, groups), weights, strict=True)):
        piece.scatter(whole, piece.flat)
        _share_state(base, piece, state["state"].get(index, {}))
    if state.get("loss_scale"):
        vars(cast(Any, optimizer).loss_scaler).update(state["loss_scale"])


def _share_state(base: torch.optim.Optimizer, piece: Piece, saved: dict[str, Any]) -> None:
    known = base.state[piece.flat]
    for key, value in saved.items():
        # A count of steps may look like the state of a parameter without dimensions.
        if not isinstance(value, Tensor) or key == "step" or value.shape != piece.shape:
            known[key] = value.clone() if isinstance(value, Tensor) else value
            continue
        if key not in known:
            known[key] = torch.zeros_like(piece.flat, requires_grad=False)
        piece.scatter(value, known[key])


def _wrapped(optimizer: ZeroOptimizer) -> torch.optim.Optimizer:
    return cast(torch.optim.Optimizer, cast(Any, optimizer).optimizer)


def _loss_scale(optimizer: ZeroOptimizer) -> dict[str, float | int]:
    known = vars(cast(Any, optimizer).loss_scaler)
    return {key: known[key] for key in _SCALED if key in known}
