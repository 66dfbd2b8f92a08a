"""A strategy of mixing of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.mixture import Weights
from neurotrain.data.mixture.weights import Sizes


@dataclass(frozen=True, kw_only=True)
class Harmonic(Weights):
    """The first source counts 1, the second ``1 / 2 ** power``, the third ``1 / 3 ** power``, and so on.

    Args:
        power: how steeply.
    """

    power: float = 1.0

    def shares(self, of: Sizes, *, step: float) -> NDArray[np.float64]:
        """By place."""
        del step
        counts = 1 / np.arange(1, len(of.names) + 1, dtype=np.float64) ** self.power
        return counts / counts.sum()

    def told(self) -> str:
        """Name and power."""
        return f"harmonic {self.power!r}"
