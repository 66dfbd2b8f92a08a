"""Tensors of which each process holds a part: the part, the whole, and back.

A network that is sharded has ``DTensor`` parameters. Who copies, averages or saves them works on the local part or on
the whole; a plain tensor is both. :func:`whole` is a collective: every rank of the tensor's mesh has to call it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def local(tensor: Tensor) -> Tensor:
    """The part that this process holds, sharing its memory; a plain tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, gathered from all ranks; a plain tensor itself."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(whole_tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a tensor that every process has whole, on the device of ``like``.

    Args:
        whole_tensor: of the shape of ``like``; values that are equal on all ranks.
        like: how to divide it; a plain tensor divides nothing.

    Returns:
        A ``DTensor`` laid out as ``like``, or ``whole_tensor`` where that is plain.

    Example:
        >>> part_of(torch.ones(2), torch.zeros(2))
        tensor([1., 1.])
    """
    if not isinstance(like, DTensor):
        return whole_tensor
    # No rank has to tell the others what they have.
    return distribute_tensor(whole_tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def with_local(values: Tensor, like: Tensor) -> Tensor:
    """A tensor laid out as ``like`` whose local part is ``values``; ``values`` itself where ``like`` is plain."""
    if not isinstance(like, DTensor):
        return values
    return DTensor.from_local(
        values, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def global_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Euclidean norm over all elements of all tensors, each counted once, wherever it lies.

    Tensors that are sharded over the same processes share one reduction. Every rank has to call it, with the tensors in
    the same order.

    Args:
        tensors: gradients or weights, plain or sharded.

    Returns:
        A scalar, equal on all ranks; 0 of no tensors.

    Example:
        >>> global_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
        tensor(5.)
    """
    parts: dict[tuple[dist.ProcessGroup, ...], list[Tensor]] = {}
    for tensor in tensors:
        parts.setdefault(_sharers(tensor), []).append(local(tensor))
    squares: list[Tensor] = []
    for groups, members in parts.items():
        square = torch.nn.utils.get_total_norm(members).square()
        for group in groups:
            dist.all_reduce(square, group=group)
        squares.append(square)
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())


def _sharers(tensor: Tensor) -> tuple[dist.ProcessGroup, ...]:
    """Groups of processes over whose parts a sum has to go."""
    if not isinstance(tensor, DTensor):
        return ()
    mesh, placements = tensor.device_mesh, tensor.placements
    assert not any(placement.is_partial() for placement in placements), "a norm of summands is not one of the sum"
    return tuple(mesh.get_group(axis) for axis, kind in enumerate(placements) if not kind.is_replicate())
