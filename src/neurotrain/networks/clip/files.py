"""Weights of networks of images and texts in files: plain names, nothing of low rank, the vocabulary beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from neurotrain.documents import parse_json
from neurotrain.networks.clip.tuning import merged_state
from neurotrain.storage.tensors import read_checkpoint, read_safetensors

_VOCABULARIES = "vocabularies"
_PREFIX = "network."
"""What a task's checkpoint puts before the names of its network."""


def export(network: nn.Module, path: Path) -> None:
    """Write a network's weights as safetensors, changes of low rank merged, the vocabulary in the header.

    Args:
        network: any of this package.
        path: of the file.

    Raises:
        ValueError: if ``path`` does not end in ``.safetensors``.
    """
    from safetensors.torch import save_file

    if path.suffix != ".safetensors":
        raise ValueError(f"path={str(path)!r}: the name must end in .safetensors")
    state = merged_state(network.state_dict())
    tensors = {name: value.detach().contiguous() for name, value in state.items() if isinstance(value, Tensor)}
    others = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    save_file(tensors, path, metadata={_VOCABULARIES: json.dumps(others, ensure_ascii=False)})


def load_weights(network: nn.Module, path: Path) -> None:
    """Load what :func:`export` wrote, or the network of a run's checkpoint (the weights as trained, not their average).

    Args:
        network: before its towers are adapted.
        path: safetensors, or a checkpoint, of which only tensors and plain values are read.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if names, shapes or vocabulary do not fit.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights={str(path)!r}: no such file")
    state = merged_state(_exported(path) if path.suffix == ".safetensors" else _of_checkpoint(path))
    try:
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"weights={str(path)!r} do not fit {type(network).__name__}: {error}") from error


def _exported(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    state: dict[str, Any] = read_safetensors(path)
    with safe_open(path, framework="pt") as file:
        others = parse_json((file.metadata() or {}).get(_VOCABULARIES, "{}"), where=path)
    return state | others


def _of_checkpoint(path: Path) -> dict[str, Any]:
    found = read_checkpoint(path)
    state = found.get("state_dict", found)
    if not isinstance(state, dict):
        raise ValueError(f"weights={str(path)!r}: holds no mapping of names to tensors")
    own = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
    return own or state
