"""Several sources by weight under Lightning: one stateful child that owns plan, workers and position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from lightning.pytorch.utilities import CombinedLoader

from neurotrain.data.loader import PlannedLoader

__all__ = ["WeightedCombinedLoader"]


class WeightedCombinedLoader(CombinedLoader):
    """Lightning's CombinedLoader with the mode that it lacks: weighted.

    Several sources are drawn from by weight, exactly: the plan of its one child decides, and the child owns workers,
    position and counts. So Lightning, which saves the states of a CombinedLoader's children and asks nobody else, saves
    and restores all there is. The length is the whole epoch's, also while resuming.

    Batches are mappings whose field ``source`` names each sample's source. Alone, it yields what every CombinedLoader
    does: batch, number of the batch in its epoch, 0.

    Args:
        loader: over a plan of several sources.

    Example:
        >>> from neurotrain.data.plan import EpochPlan, SampleKey
        >>> class Letters:
        ...     def load(self, key: SampleKey) -> dict[str, str]:
        ...         return {"source": "ab"[key.index % 2]}
        >>> child = PlannedLoader(dataset=Letters(), plan=EpochPlan(count=4, shuffle=False), batch_size=2)
        >>> combined = WeightedCombinedLoader(loader=child)
        >>> len(combined), next(iter(combined))
        (2, ({'source': ['a', 'b']}, 0, 0))
    """

    def __init__(self, *, loader: PlannedLoader) -> None:
        super().__init__(loader, "max_size_cycle")
        self._mode: Any = "weighted"
        self._pass: Iterator[Any] | None = None
        self._behind = 0  # batches of the epoch that this pass has handed out or begun behind

    @property
    def loader(self) -> PlannedLoader:
        """The child."""
        (child,) = self.flattened
        assert isinstance(child, PlannedLoader), f"the one child is a {type(child).__name__}"
        return child

    def __iter__(self) -> Self:
        """One pass over the rest of the epoch."""
        self._pass = iter(self.loader)
        self._behind = 0
        return self

    def __next__(self) -> tuple[Any, int, int]:
        """The next batch, its number in the epoch, and 0."""
        assert self._pass is not None, "call iter() first"
        if max(self._behind, self.loader.batch_sampler.start) >= len(self):
            raise StopIteration
        batch = next(self._pass)
        if not isinstance(batch, Mapping) or "source" not in batch:
            raise ValueError("batches of several sources are mappings with a field 'source' that names each sample's")
        self._behind = self.loader.consumed
        return batch, self._behind - 1, 0

    def __len__(self) -> int:
        """Batches of the whole epoch, or Lightning's limit if that is less."""
        return len(self.loader) if self.limits is None else int(min(len(self.loader), *self.limits))

    def reset(self) -> None:
        """End the pass and the workers."""
        self._pass = None
        self.loader.close()

    def _dataset_length(self) -> int:
        return len(self.loader) * self.loader.batch_sampler.batch_size
