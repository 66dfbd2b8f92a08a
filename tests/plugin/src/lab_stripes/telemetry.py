"""A value of the loader of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neurotrain.callbacks import LoaderMetric
from neurotrain.data import PlannedLoader


class LargestShare(LoaderMetric):
    """The share of the source that has most.

    Args:
        scale: multiplies it, 100 for per cent.
    """

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = scale

    def values(self, told: Mapping[str, Any], *, loader: PlannedLoader) -> Mapping[str, float]:
        """One value."""
        return {"share": self.scale * max(told["share"].values())}
