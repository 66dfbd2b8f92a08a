"""Knowledge distillation for tasks with one network: a frozen teacher's logits as a second target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from neurotrain.losses.classification import distillation_loss
from neurotrain.storage.tensors import read_safetensors, read_state

_PREFIX = "network."
"""What a task's checkpoint puts before the names of its network."""


class Distillation(ABC):
    """A further loss of the student's logits, and its share of the whole.

    It is no module of the task: what a teacher holds is neither trained, nor averaged, nor in the run's checkpoints.

    Attributes:
        share: of this loss in [0, 1]; the rest is the task's own.
    """

    share: float

    @abstractmethod
    def prepare(self, device: torch.device) -> None:
        """Bring the teacher to where the training runs."""

    @abstractmethod
    def loss(self, logits: Tensor, image: Tensor) -> Tensor:
        """Scalar for the student's ``logits`` of ``image``; its gradient reaches the student only."""


class SoftTargets(Distillation):
    """The teacher's probabilities at a temperature, on the images that the student sees (mixed ones included).

    Args:
        teacher: maps the same images to logits of the same classes; frozen, in evaluation mode.
        weights: of the teacher: safetensors, or a checkpoint of a run of this project (the weights as trained, not
            their average). None: it has them already.
        temperature: above 0.
        share: of the distillation's loss, in [0, 1].

    Raises:
        ValueError: if a number is out of range, or the file does not fit the teacher.
        FileNotFoundError: if there is no such file.

    Reference:
        Hinton et al., 2015 (arXiv:1503.02531); Beyer et al., 2022 (arXiv:2106.05237) for equal views of both.
    """

    def __init__(
        self, *, teacher: nn.Module, weights: Path | None = None, temperature: float = 4.0, share: float = 0.5
    ) -> None:
        if not 0 < share <= 1 or temperature <= 0:
            raise ValueError(f"share={share}, temperature={temperature}: need (0, 1], and above 0")
        if weights is not None:
            _load(teacher, Path(weights))
        self._teacher = teacher.requires_grad_(False).eval()
        self._temperature = temperature
        self.share = share

    def prepare(self, device: torch.device) -> None:
        """Move the teacher."""
        self._teacher.to(device)

    def loss(self, logits: Tensor, image: Tensor) -> Tensor:
        """See :func:`neurotrain.losses.classification.distillation_loss`."""
        with torch.no_grad():
            taught = self._teacher(image)
        return distillation_loss(logits, taught, temperature=self._temperature)


def _load(teacher: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"weights={str(path)!r}: no such file")
    if path.suffix == ".safetensors":
        state = read_safetensors(path)
    else:
        found = read_state(path)
        state = {name.removeprefix(_PREFIX): value for name, value in found.items() if name.startswith(_PREFIX)}
    try:
        teacher.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"weights={str(path)!r} are not those of {type(teacher).__name__}: {error}") from error
