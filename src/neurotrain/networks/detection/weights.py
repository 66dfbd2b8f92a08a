"""Weights out of local safetensors files: everything fits, or is told."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import Tensor, nn

logger = logging.getLogger(__name__)

_LISTED = 3
_COUNTER = "num_batches_tracked"  # absent where statistics were frozen, and without effect there


def load_detector(network: nn.Module, path: Path, *, heads: tuple[str, ...]) -> None:
    """Load the weights of a whole detector.

    Args:
        network: of torchvision, or made of its parts.
        path: safetensors with torchvision's names, with or without our ``network.`` before them.
        heads: beginnings of the names of the layers whose size is the number of classes; those begin anew, which is
            logged, where the file's are of another size.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if anything else lacks, is there too much or has another shape.
    """
    state = {name.removeprefix("network."): value for name, value in _read(path, "weights").items()}
    own = network.state_dict()
    anew = [name for name in own if name.startswith(heads) and name in state and state[name].shape != own[name].shape]
    if anew:
        logger.warning("weights=%s: of another number of classes; begin anew: %s", path, ", ".join(anew))
    _load(network, {name: value for name, value in state.items() if name not in anew}, path, "weights", spared=anew)


def load_backbone(network: nn.Module, path: Path) -> None:
    """Load the weights of a classification network's body; its last layer is left alone.

    Args:
        network: the residual network.
        path: safetensors with torchvision's names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if anything but the last layer lacks, is there too much or has another shape.
    """
    state = {name: value for name, value in _read(path, "backbone_weights").items() if not name.startswith("fc.")}
    spared = [name for name in network.state_dict() if name.startswith("fc.")]
    _load(network, state, path, "backbone_weights", spared=spared)


def _read(path: Path, key: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{key}={str(path)!r}: no such file")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{key}={str(path)!r} is no file of safetensors: {error}") from error


def _load(network: nn.Module, state: dict[str, Tensor], path: Path, key: str, *, spared: list[str]) -> None:
    own = network.state_dict()
    needed = {name for name in own if name not in spared and not name.endswith(_COUNTER)}
    given = {name for name in state if not name.endswith(_COUNTER)}
    shapes = [name for name in sorted(needed & given) if own[name].shape != state[name].shape]
    told = {"lack": sorted(needed - given), "have too much:": sorted(given - needed), "have other shapes of": shapes}
    for what, names in told.items():
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            raise ValueError(f"{key}={str(path)!r} {what} {', '.join(names[:_LISTED])}{more}")
    network.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)
