"""A source's place in a mixture: how often it counts, when it takes part, in which order its samples come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neurotrain.data.mixture import (
    Buckets,
    ClassBalanced,
    PrioritySampler,
    Sampler,
    Sequential,
    Shuffled,
    SourcePlan,
    Weighted,
)
from neurotrain.data.parts import Part

Exhaustion = Literal["cycle", "drop", "stop", "repeat"]
"""What happens when all entries have come: see :class:`neurotrain.data.mixture.SourcePlan`."""


class Order(ABC):
    """In which order a source's samples come, as far as that can be said before its table is known."""

    @abstractmethod
    def sampler(self, table: pa.Table) -> Sampler:
        """Make the sampler for a source.

        Args:
            table: of the part, one row a sample.

        Raises:
            ValueError: if the table lacks a column that is needed.
        """


class InRandomOrder(Order):
    """Each pass is a permutation of its own."""

    def sampler(self, table: pa.Table) -> Sampler:
        """Needs no column."""
        return Shuffled()


class InTableOrder(Order):
    """Each pass is the table's own order."""

    def sampler(self, table: pa.Table) -> Sampler:
        """Needs no column."""
        return Sequential()


class BalancedBy(Order):
    """Every value of a column equally often, however many samples have it.

    Args:
        column: of the source's table, of any type that can be compared.

    Example:
        >>> table = pa.table({"id": ["a", "b", "c"], "label": ["cat", "dog", "cat"]})
        >>> np.asarray(BalancedBy().sampler(table).labels).tolist()
        [0, 1, 0]
    """

    def __init__(self, *, column: str = "label") -> None:
        self.column = column

    def sampler(self, table: pa.Table) -> ClassBalanced:
        """Number the values of the column."""
        encoded = column_of(table, self.column).combine_chunks().dictionary_encode()
        indices = encoded.indices if isinstance(encoded, pa.DictionaryArray) else encoded.chunk(0).indices
        return ClassBalanced(labels=indices.to_numpy(zero_copy_only=False))


class WeightedBy(Order):
    """Samples in proportion to a column of numbers.

    Args:
        column: of the source's table.
    """

    def __init__(self, *, column: str) -> None:
        self.column = column

    def sampler(self, table: pa.Table) -> Weighted:
        """Take the column."""
        return Weighted(column=column_of(table, self.column).to_numpy())


class ByLoss(Order):
    """Samples in proportion to ``(loss + floor) ** exponent``, as of the last loss that the training had of each.

    Such a source is exempt from the order's independence of world size, workers and interruptions; the callback
    ``LossPriorities`` says so at the start, reports the losses, and the loader's state carries them.

    Args:
        exponent: 0 draws uniformly, 1 in proportion to the loss.
        floor: added to each loss, so that no sample is lost for ever.
        initial_loss: of samples that have not come yet; large, so that they come soon.

    Reference:
        Schaul et al., 2016 (arXiv:1511.05952), section 3.3, proportional variant.
    """

    def __init__(self, *, exponent: float = 0.6, floor: float = 1e-3, initial_loss: float = 10.0) -> None:
        self.exponent, self.floor, self.initial_loss = exponent, floor, initial_loss

    def sampler(self, table: pa.Table) -> PrioritySampler:
        """Needs no column."""
        return PrioritySampler(
            length=table.num_rows, exponent=self.exponent, floor=self.floor, initial_loss=self.initial_loss
        )


class Membership:
    """How a source takes part in a mixture.

    Args:
        repeats: how often a sample counts: in the source's size, where weights go by size, and until it is exhausted.
        exhaustion: what happens when all samples have come ``repeats`` times: ``cycle``: they come again; ``drop``: the
            other sources go on alone; ``stop``: the epoch ends; ``repeat``: dropped after ``passes`` times as many.
        passes: of ``repeat``.
        order: of its samples; None: random.
        start_epoch: first epoch in which it takes part.
        stop_epoch: first epoch in which it no longer does; None: it stays.
        start_step: first optimizer step in which it takes part.
        stop_step: first optimizer step in which it no longer does; None: it stays.
        leftover: of an exhausted source, what happens to samples that do not fill a batch of one shape: ``pad`` from
            another pass, or ``report`` them as left out. None: ``pad``.
    """

    def __init__(
        self,
        *,
        repeats: int = 1,
        exhaustion: Exhaustion = "cycle",
        passes: int = 1,
        order: Order | None = None,
        start_epoch: int = 0,
        stop_epoch: int | None = None,
        start_step: int = 0,
        stop_step: int | None = None,
        leftover: Literal["pad", "report"] | None = None,
    ) -> None:
        self._order = order or InRandomOrder()
        self._settings: dict[str, Any] = {
            "repeats": repeats,
            "exhaustion": exhaustion,
            "passes": passes,
            "start_epoch": start_epoch,
            "stop_epoch": stop_epoch,
            "start_step": start_step,
            "stop_step": stop_step,
            "leftover": leftover,
        }

    def plan(self, part: Part[Any], *, buckets: Buckets | None) -> SourcePlan:
        """Say to a mixture what it has to know.

        Args:
            part: what is trained on.
            buckets: shape of each sample; None: all have the same.

        Raises:
            ValueError: if the settings contradict each other, or the part's table lacks a column.
        """
        return SourcePlan(
            name=part.name,
            length=len(part),
            sampler=self._order.sampler(part.table()),
            buckets=buckets,
            identity=part.digest(),
            **self._settings,
        )


def shape_buckets(table: pa.Table, target: Callable[[int, int], tuple[int, int]], *, name: str) -> Buckets:
    """Group samples by the shape that they are brought to.

    Args:
        table: with ``width`` and ``height``.
        target: from width and height of an image to those of its target; asked once for each size that occurs.
        name: of the source, for messages.

    Returns:
        Shapes ``(height, width)``, in ascending order.

    Raises:
        ValueError: if the table has no sizes.
    """
    missing = [column for column in ("width", "height") if column not in table.column_names]
    if missing:
        raise ValueError(f"source {name!r}: batches of one shape need the columns {missing}: set dimensions=True")
    sizes = list(zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True))
    shapes = {size: target(*size)[::-1] for size in set(sizes)}
    known = sorted(set(shapes.values()))
    numbers = {shape: number for number, shape in enumerate(known)}
    ids: NDArray[np.int64] = np.array([numbers[shapes[size]] for size in sizes], np.int64)
    return Buckets(ids=ids, shapes=tuple(known))


def column_of(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of a table.

    Raises:
        ValueError: if there is none of this name; lists those that are there.
    """
    if name not in table.column_names:
        raise ValueError(f"column={name!r}: the source's table has {', '.join(map(repr, table.column_names))}")
    return table.column(name)
