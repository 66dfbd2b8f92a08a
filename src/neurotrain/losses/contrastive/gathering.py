"""Rows of all processes as one tensor, through which gradients flow back to the process that made them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


class Gathered(NamedTuple):
    """Rows of all processes.

    Attributes:
        rows: ``(N, ...)``, rank 0's first.
        first: where this process's rows begin.
    """

    rows: Tensor
    first: int


def gathered(rows: Tensor) -> Gathered:
    """Put the rows of all processes together; without processes, the rows themselves.

    The gradient of a row is the sum of what every process's loss says about it. DistributedDataParallel then takes the
    mean over processes, so a loss that is the mean over a process's own rows has the gradient of the mean over all.

    Args:
        rows: ``(B, ...)``, of one shape on every process.

    Returns:
        ``(world_size * B, ...)`` and where this process's rows begin.

    Raises:
        ValueError: if processes have different numbers of rows.

    Example:
        >>> gathered(torch.ones(2, 3)).first
        0
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Gathered(rows, 0)
    counts = rows.new_tensor([len(rows), -len(rows)], dtype=torch.int64)
    dist.all_reduce(counts, op=dist.ReduceOp.MAX)
    most, least = int(counts[0]), -int(counts[1])
    if most != least:
        raise ValueError(f"processes have {least} to {most} rows: all need as many to see each other's")
    return Gathered(_Gather.apply(rows), dist.get_rank() * len(rows))  # pyright: ignore[reportArgumentType]


class _Gather(torch.autograd.Function):
    """All-gather whose transpose is reduce-scatter."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ANN401 - torch's signature
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator's result has no names
        ctx: Any,  # noqa: ANN401 - torch's signature
        *grads: Tensor,
    ) -> Tensor:
        # Not reduce_scatter: gloo, with which distributed runs are tried on CPUs, has it in new versions only.
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]
