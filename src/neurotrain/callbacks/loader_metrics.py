"""Further values of a loader, for its telemetry; third parties add their own by an entry point."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from neurotrain.data import CountedLoader


class LoaderMetric(ABC):
    """One or several values of the training loader, asked for every so many steps on rank 0.

    A third party's is found by an entry point of the group ``neurotrain.telemetry``.
    """

    @abstractmethod
    def values(self, told: Mapping[str, Any], *, loader: CountedLoader) -> Mapping[str, float]:
        """Values by name; they are logged as ``data/<name of the metric>/<name>``.

        Args:
            told: what the loader's own ``telemetry`` has just said, which begins anew with each call.
            loader: that is trained from.
        """


class LoaderThroughput(LoaderMetric):
    """Samples and batches a second that this rank was given since the last time.

    Example:
        >>> from neurotrain.data import PlannedLoader
        >>> from neurotrain.data.plan import EpochPlan
        >>> class Squares:
        ...     def load(self, key):
        ...         return {"square": key.index**2}
        >>> loader = PlannedLoader(dataset=Squares(), plan=EpochPlan(count=4), batch_size=2)
        >>> metric = LoaderThroughput()
        >>> _ = list(loader)
        >>> sorted(metric.values(loader.telemetry(), loader=loader))
        ['batches_per_second', 'samples_per_second']
    """

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._read = 0

    def values(self, told: Mapping[str, Any], *, loader: CountedLoader) -> Mapping[str, float]:
        """Both rates."""
        counts = loader.statistics()
        handed_out = counts["read"] + counts["replaced"]
        now = time.perf_counter()
        passed, self._since = now - self._since, now
        samples, self._read = handed_out - self._read, handed_out
        return {"samples_per_second": samples / passed, "batches_per_second": told["batches"] / passed}
