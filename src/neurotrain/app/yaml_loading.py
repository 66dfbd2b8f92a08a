"""OmegaConf's reader of YAML, through which Hydra reads too, with the bounds of :mod:`neurotrain.documents`."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from typing import Any

from omegaconf import _utils

from neurotrain.documents import bounded

_THEIRS = _utils.get_yaml_loader  # of OmegaConf; asked for at each file, which leaves a way in, and there is no other


def bound_loaders() -> None:
    """Let OmegaConf and Hydra refuse documents that nest too deeply or whose aliases stand for too much.

    Both copy what an alias stands for at each of its places.
    """
    _utils.get_yaml_loader = _bounded


def _bounded() -> Any:  # noqa: ANN401 - as OmegaConf has it
    return bounded(_THEIRS())
