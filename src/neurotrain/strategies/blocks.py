"""The blocks of any network, and what is done to each of them: recomputed in the backward pass, or compiled.

Blocks are what repeats: layers of a transformer, stages and residual blocks of a convolutional network. No class of
networks has to name them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - what all of them derive from
from torch.utils.checkpoint import checkpoint

_CONTAINERS = (nn.ModuleList, nn.Sequential)


def blocks_of(network: nn.Module, *, min_parameters: int = 1) -> dict[str, nn.Module]:
    """Find the blocks of a network: members of its lists and sequences that are made of several layers.

    The outermost ones are taken; what lies inside a block is part of it. Lists within lists are looked into.

    Args:
        network: any module.
        min_parameters: a block has at least so many.

    Returns:
        Blocks by their name in the network, in its order; each module once, under its first name.

    Example:
        >>> layer = lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> list(blocks_of(nn.Sequential(nn.Linear(2, 2), nn.ModuleList([Block(), Block()]))))
        ['1.0', '1.1']
    """
    found: dict[str, nn.Module] = {}
    for name, block in _blocks(network, "", inside=isinstance(network, _CONTAINERS)):
        large = sum(parameter.numel() for parameter in block.parameters()) >= min_parameters
        if large and not any(block is other for other in found.values()):
            found[name] = block
    return found


def recompute_activations(network: nn.Module) -> list[str]:
    """Keep no activations within blocks: they are computed once more in the backward pass, and memory is spared.

    Random numbers are drawn as they were, and running statistics move once. Names of parameters stay. What was done
    to a block before is recomputed with it: compile first.

    Args:
        network: a task, or any module; its blocks are changed, or its largest part where it has none.

    Returns:
        Names of what was changed.

    Reference:
        Chen et al., 2016 (arXiv:1604.06174).
    """
    blocks = _blocks_or_largest(network)
    for block in blocks.values():
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=partial(_recomputing, block))
    return list(blocks)


def compile_blocks(network: nn.Module) -> list[str]:
    """Let ``torch.compile`` translate each block at its first call; what hooks do around it stays outside.

    Names of parameters stay.

    Args:
        network: a task, or any module; its blocks are changed, or its largest part where it has none.

    Returns:
        Names of what was changed.
    """
    blocks = _blocks_or_largest(network)
    for block in blocks.values():
        block.forward = torch.compile(block.forward)
    return list(blocks)


def _blocks_or_largest(module: nn.Module) -> dict[str, nn.Module]:
    """Blocks; of a task whose network has none, the network: its largest part."""
    parts = dict(module.named_children())
    blocks = blocks_of(module)
    if blocks or not parts:
        return blocks or {"": module}
    largest = max(parts, key=lambda name: sum(parameter.numel() for parameter in parts[name].parameters()))
    return {largest: parts[largest]}


def _recomputing(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the first and the second computation."""
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Generator[None]:
    """Let batch norms normalise as in training and leave their running statistics, which have seen this batch."""
    norms = [part for part in block.modules() if isinstance(part, _BatchNorm) and part.training]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)


def _blocks(module: nn.Module, name: str, *, inside: bool) -> Iterator[tuple[str, nn.Module]]:
    for own, child in module.named_children():
        path = f"{name}.{own}" if name else own
        container = isinstance(child, _CONTAINERS)
        if inside and not container and _layers(child) > 1:
            yield path, child
        else:
            yield from _blocks(child, path, inside=container)


def _layers(module: nn.Module) -> int:
    """Number of submodules that hold parameters of their own."""
    return sum(any(True for _ in part.parameters(recurse=False)) for part in module.modules())
