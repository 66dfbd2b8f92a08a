"""How the blocks of our transformers are cut over several processes: first by columns, then by rows.

Of two linear layers in a row the first is cut by its outputs, the second by its inputs: each process computes some
heads of an attention, or some hidden values of a perceptron, for all places; one sum over the processes ends the block.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Placement, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module
from torch.distributed.tensor.placement_types import _StridedShard  # pyright: ignore[reportPrivateUsage]

from neurotrain.networks.blocks import Attention, FeedForward, PackedLayer

Cut = Callable[[nn.Module, DeviceMesh], dict[str, ParallelStyle]]
"""Tells how the linear layers of a block are cut, and the block itself that it has a part of its heads."""


def cut_blocks(network: nn.Module, mesh: DeviceMesh) -> list[str]:
    """Cut every attention and perceptron of a network that this module knows; the rest stays whole on each process.

    Args:
        network: with equal weights on all processes of the mesh; changed in place.
        mesh: of one dimension.

    Returns:
        Names of the blocks that were cut; empty where the network has none.

    Raises:
        ValueError: if heads or hidden values cannot be shared out evenly; names the block.
    """
    found = [(name, block) for name, block in network.named_modules() if type(block) in _PLANS]
    for name, block in found:
        _check(name, block, mesh.size())
    for _, block in found:
        parallelize_module(block, mesh, _PLANS[type(block)](block, mesh))
    return [name for name, _ in found]


class PackedColumns(ColwiseParallel):
    """Cuts a linear layer whose outputs are several projections one after the other, each of them by its columns.

    Args:
        projections: how many: 3 of queries, keys and values.
    """

    def __init__(self, *, projections: int) -> None:
        placement: Placement = _StridedShard(-1, split_factor=projections)
        super().__init__(output_layouts=placement)
        self._projections = projections

    def _partition_linear_fn(self, name: str, module: nn.Module, device_mesh: DeviceMesh) -> None:
        for key, parameter in list(module.named_parameters(recurse=False)):
            placement: Placement = _StridedShard(0, split_factor=self._projections)
            # All processes have the same weights: each takes its own rows.
            part = distribute_tensor(parameter.data, device_mesh, [placement], src_data_rank=None)
            module.register_parameter(key, nn.Parameter(part, requires_grad=parameter.requires_grad))


def _cut_attention(block: nn.Module, mesh: DeviceMesh) -> dict[str, ParallelStyle]:
    assert isinstance(block, Attention)
    block.heads, block.kv_heads = block.heads // mesh.size(), block.kv_heads // mesh.size()
    columns: dict[str, ParallelStyle] = {name: ColwiseParallel() for name in ("query", "key", "value")}
    return {**columns, "out": RowwiseParallel()}


def _cut_feed_forward(block: nn.Module, mesh: DeviceMesh) -> dict[str, ParallelStyle]:
    assert isinstance(block, FeedForward)
    columns: dict[str, ParallelStyle] = {"enter": ColwiseParallel()}
    if block.gate is not None:
        columns["gate"] = ColwiseParallel()
    return {**columns, "leave": RowwiseParallel()}


def _cut_packed_layer(block: nn.Module, mesh: DeviceMesh) -> dict[str, ParallelStyle]:
    assert isinstance(block, PackedLayer)
    block.heads //= mesh.size()
    return {
        "qkv": PackedColumns(projections=3),
        "out": RowwiseParallel(),
        "rise": ColwiseParallel(),
        "fall": RowwiseParallel(),
    }


_PLANS: dict[type[nn.Module], Cut] = {
    Attention: _cut_attention,
    FeedForward: _cut_feed_forward,
    PackedLayer: _cut_packed_layer,
}


def _check(name: str, block: nn.Module, size: int) -> None:
    if isinstance(block, Attention):
        counts = {"heads": block.heads, "kv_heads": block.kv_heads}
    elif isinstance(block, FeedForward):
        counts = {"hidden": block.enter.out_features}
    else:
        assert isinstance(block, PackedLayer)
        counts = {"heads": block.heads, "hidden": block.rise.out_features}
    for key, count in counts.items():
        if count % size:
            raise ValueError(f"{name or type(block).__name__}: {key}={count} cannot be cut into {size} equal parts")
