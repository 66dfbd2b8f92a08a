"""What an encoder gets of a raw sample; how it is made is part of the key."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from neurotrain.data.cache.keys import Settings
from neurotrain.data.sources.base import RawSample


class Preparation(Protocol):
    """Raw sample to picture: deterministic, or the same key would stand for several values. Picklable.

    :class:`~neurotrain.data.cached.CroppedPicture` is the one that shows what a loader would.
    """

    def settings(self) -> Settings:
        """Everything that decides the picture besides the sample; a change of it is a miss."""
        ...

    def __call__(self, sample: RawSample) -> Tensor:
        """Decode and resize.

        Returns:
            float32 ``(C, H, W)`` on the CPU.

        Raises:
            SampleFormatError: if the sample cannot be decoded.
        """
        ...
