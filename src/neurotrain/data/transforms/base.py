"""What a transform of a sample is, whatever the sample holds, and how several are one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch

SampleT = TypeVar("SampleT", bound=Mapping[str, Any])
"""What a transform maps; joint transforms of image, labels and validity mask are the rule."""


class Transform(ABC, Generic[SampleT]):
    """Maps a sample to a sample; never changes the one it is given.

    Every random number comes from the generator of the call. Labels and validity are never interpolated. What lies
    outside the image is invalid, of label 0 and of intensity 0 (the mean, after normalisation).
    """

    @property
    def deterministic(self) -> bool:
        """True where the result depends on the sample alone, so that it may be computed once and kept."""
        return False

    @abstractmethod
    def __call__(self, sample: SampleT, generator: torch.Generator) -> SampleT:
        """Transform one sample.

        Args:
            sample: see :mod:`neurotrain.batch`.
            generator: source of every random number.

        Returns:
            A new sample; its tensors may share memory with the given one where nothing changed.
        """


class Identity(Transform[SampleT], Generic[SampleT]):
    """Leaves the sample as it is.

    Example:
        >>> Identity().deterministic
        True
    """

    @property
    def deterministic(self) -> bool:
        """True."""
        return True

    def __call__(self, sample: SampleT, generator: torch.Generator) -> SampleT:
        """Return ``sample``."""
        return sample


class Compose(Transform[SampleT], Generic[SampleT]):
    """Applies transforms one after the other.

    Args:
        steps: applied in the mapping's order; the names let a configuration change one of them.

    Raises:
        ValueError: if there is no step (:class:`Identity` says that on purpose).

    Example:
        >>> Compose(steps={"nothing": Identity()}).deterministic
        True
    """

    # Not Transform[SampleT]: LightningCLI's parser finds no arguments of what stands for a subscripted class.
    def __init__(self, *, steps: Mapping[str, Transform]) -> None:
        if not steps:
            raise ValueError("steps={}: needs at least one transform; Identity changes nothing")
        self.steps = dict(steps)

    @property
    def deterministic(self) -> bool:
        """True where all steps are."""
        return all(step.deterministic for step in self.steps.values())

    def __call__(self, sample: SampleT, generator: torch.Generator) -> SampleT:
        """Apply every step."""
        for step in self.steps.values():
            sample = step(sample, generator)
        return sample
