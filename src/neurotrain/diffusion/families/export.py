"""Roles written so that others can load them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from neurotrain.diffusion.roles import RoleHandle

__all__ = ["WEIGHTS", "Exporting", "save_weights"]

WEIGHTS = "model.safetensors"
"""Name of a file of weights for ``weights`` of a role."""


class Exporting(ABC):
    """A family that writes its roles."""

    @abstractmethod
    def export(self, handle: RoleHandle, folder: Path, *, merge: bool = True) -> None:
        """Write a role: what diffusers loads, or weights alone where the network is ours.

        Args:
            handle: of the role; its weights are written as they are, so put the averaged ones in before.
            folder: to write in; is made.
            merge: whether a low-rank addition is added to the weights; without, it is written apart, beside them.

        Raises:
            ValueError: if there is nothing that could be written apart.
        """


def save_weights(network: nn.Module, folder: Path) -> Path:
    """Write all weights and buffers of a network as safetensors.

    Args:
        network: whose state is written.
        folder: to write in; is made.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WEIGHTS
    save_file({name: tensor.detach().contiguous().cpu() for name, tensor in network.state_dict().items()}, path)
    return path
