"""What of a tower learns: all of it, nothing, or a change of low rank.

Own code, not peft: the attention of open_clip's towers keeps its projections in one plain parameter, which a wrapper of
linear layers does not reach; torch's parametrizations reach every weight.
"""

from __future__ import annotations

import difflib
import math
import re
from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_ORIGINAL = re.compile(r"^(.*\.|)parametrizations\.([^.]+)\.original$")
_MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)
_NORMS = nn.modules.batchnorm._NormBase  # pyright: ignore[reportPrivateUsage]


class TowerTuning(ABC):
    """A choice of what learns; pretrained weights are loaded before it is applied.

    Args:
        trained: modules of the tower, by their names in it, that learn in full nonetheless: a new head.
    """

    def __init__(self, *, trained: tuple[str, ...] = ()) -> None:
        self.trained = tuple(trained)

    def apply(self, tower: nn.Module) -> None:
        """Switch off what does not learn, add what does.

        Raises:
            ValueError: if the tower has no module of a name in ``trained``.
        """
        names = [name for name, _ in tower.named_modules() if name]
        for name in self.trained:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
                raise ValueError(f"trained={name!r} is no module of {type(tower).__name__}; nearest: {', '.join(near)}")
        tower.requires_grad_(False)
        self._extend(tower)
        for name in self.trained:
            tower.get_submodule(name).requires_grad_(True)

    @abstractmethod
    def hold(self, tower: nn.Module) -> None:
        """Keep in evaluation what is not to change in training."""

    @abstractmethod
    def _extend(self, tower: nn.Module) -> None:
        """Add what learns."""

    def _is_trained(self, name: str) -> bool:
        return any(name == trained or name.startswith(f"{trained}.") for trained in self.trained)


@final
class Frozen(TowerTuning):
    """Nothing learns, and nothing else changes: dropout is off, running statistics stand still.

    Args:
        trained: see :class:`TowerTuning`.

    Reference:
        Zhai et al., 2022 (arXiv:2111.07991): a locked tower of images.

    Example:
        >>> tower = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> Frozen(trained=("1",)).apply(tower)
        >>> [parameter.requires_grad for parameter in tower.parameters()]
        [False, False, True, True]
    """

    def hold(self, tower: nn.Module) -> None:
        """Put the tower into evaluation, but for what is trained."""
        tower.eval()
        for name in self.trained:
            tower.get_submodule(name).train()

    def _extend(self, tower: nn.Module) -> None:
        del tower


@final
class LowRank(TowerTuning):
    r"""LoRA: each weight ``W`` becomes ``W + (alpha / rank) U D`` with ``U`` and ``D`` of ``rank`` columns and rows.

    Weights of linear layers, convolutions and of torch's attention are changed, biases and norms are not; statistics of
    batch norms stand still. ``U`` begins at 0, so the tower begins as it was. :func:`merged_state` gives plain weights.

    Args:
        rank: at least 1.
        alpha: above 0.
        only: pattern of module names (``re.search``) that are changed; None: all.
        trained: see :class:`TowerTuning`; such modules get no low rank.

    Raises:
        ValueError: if a number is out of range, ``only`` is no pattern, or nothing of the tower fits it.

    Reference:
        Hu et al., 2021 (arXiv:2106.09685), section 4.1; all linear layers as in Dettmers et al., 2023
        (arXiv:2305.14314), section 4.

    Example:
        >>> tower = nn.Sequential(nn.Linear(4, 3))
        >>> LowRank(rank=1).apply(tower)
        >>> [tuple(parameter.shape) for parameter in tower.parameters() if parameter.requires_grad]
        [(1, 4), (3, 1)]
    """

    def __init__(
        self, *, rank: int = 8, alpha: float = 16.0, only: str | None = None, trained: tuple[str, ...] = ()
    ) -> None:
        super().__init__(trained=trained)
        if rank < 1 or not 0 < alpha < math.inf:
            raise ValueError(f"rank={rank}, alpha={alpha}: need at least 1, and a positive number")
        try:
            self._only = None if only is None else re.compile(only)
        except re.error as error:
            raise ValueError(f"only={only!r} is no pattern: {error}") from error
        self._rank, self._alpha = rank, alpha

    def hold(self, tower: nn.Module) -> None:
        """Keep running statistics where they are."""
        for name, module in tower.named_modules():
            if isinstance(module, _NORMS) and not self._is_trained(name):
                module.eval()

    def _extend(self, tower: nn.Module) -> None:
        found = [
            (name, module)
            for name, module in tower.named_modules()
            if isinstance(module, _MAPS) and not self._is_trained(name) and self._fits(name)
        ]
        if not found:
            raise ValueError(
                f"only={None if self._only is None else self._only.pattern!r}: {type(tower).__name__} has no linear "
                "layer, convolution or attention of such a name"
            )
        for _, module in found:
            # Attention's output projection is a linear layer of its own in the list.
            for weight in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "weight"):
                held = module._parameters.get(weight)  # pyright: ignore[reportPrivateUsage]
                if held is not None:
                    change = _LowRankChange(held, self._rank, self._alpha / self._rank)
                    parametrize.register_parametrization(module, weight, change)

    def _fits(self, name: str) -> bool:
        return self._only is None or self._only.search(name) is not None


class _LowRankChange(nn.Module):
    """Adds ``factor * up @ down`` to a weight of any number of axes, the first one being its outputs."""

    factor: Tensor

    def __init__(self, weight: Tensor, rank: int, factor: float) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        self.register_buffer("factor", weight.new_tensor(factor))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        # As wide as the weight itself: what is merged later must be what was trained.
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (self.factor * (self.up @ self.down)).view_as(weight)


def merged_state(state: dict[str, Any]) -> dict[str, Any]:
    """Weights with their changes of low rank added: names and shapes as without them.

    Args:
        state: ``state_dict`` of a network, or part of a checkpoint; without such changes it comes back as it is.

    Returns:
        A new dictionary; what is no weight is kept.

    Example:
        >>> tower = nn.Sequential(nn.Linear(4, 3))
        >>> LowRank(rank=1).apply(tower)
        >>> sorted(merged_state(tower.state_dict()))
        ['0.bias', '0.weight']
    """
    merged: dict[str, Any] = {}
    for name, value in state.items():
        found = _ORIGINAL.match(name)
        if found is None:
            if ".parametrizations." not in f".{name}":
                merged[name] = value
            continue
        stem = name.removesuffix("original")
        up, down, factor = (state[f"{stem}0.{part}"] for part in ("up", "down", "factor"))
        merged[f"{found[1]}{found[2]}"] = value + (factor * (up @ down)).view_as(value)
    return merged
