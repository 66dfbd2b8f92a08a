"""What the engine asks of a source of samples: one method, and further ones for those who want more of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

KeyT_contra = TypeVar("KeyT_contra", contravariant=True)

MakeKey = Callable[[int, int, int, int], Any]
"""Makes a key of (index, epoch, position, source)."""


class SampleSource(Protocol[KeyT_contra]):
    """Samples by key. Called in worker processes: it keeps no open connection or generator across ``fork``.

    A sample should be a function of its key alone, random numbers included, so that neither workers nor what was read
    before make a difference.
    """

    def load(self, key: KeyT_contra) -> Any:  # noqa: ANN401 - whatever ``collate`` takes; without it, a mapping
        """Read, decode and transform one sample."""
        ...


@runtime_checkable
class DirectSource(SampleSource[KeyT_contra], Protocol[KeyT_contra]):
    """A source that can write arrays straight into the batch, which saves one copy."""

    def load_into(self, key: KeyT_contra, out: Mapping[str, NDArray[Any]]) -> Mapping[str, Any]:
        """Load one sample, using the arrays of ``out`` where they fit.

        Args:
            key: of the sample.
            out: the sample's row of the batch by field, shaped as in the batch before; empty where nothing is known.

        Returns:
            The sample. A field that is the very array of ``out`` counts as written; any other one is copied.
        """
        ...


@runtime_checkable
class BatchSource(Protocol):
    """A source that makes a whole batch at once, as data that lies in memory can."""

    def load_batch(self, request: BatchRequest) -> Any:  # noqa: ANN401 - the batch, as the task wants it
        """Make one batch."""
        ...


class SampleName(NamedTuple):
    """How people call a sample.

    Attributes:
        id: unique within its source.
        uri: where its bytes are, without secrets.
        source: name of the source.
    """

    id: str
    uri: str
    source: str


@runtime_checkable
class NamedSource(SampleSource[KeyT_contra], Protocol[KeyT_contra]):
    """A source whose bad samples can be named and replaced."""

    def identify(self, key: KeyT_contra) -> SampleName:
        """Name a sample without reading it."""
        ...

    def count(self, source: int) -> int:
        """Number of entries of one source, as the plan counts sources."""
        ...


@runtime_checkable
class CountingSource(Protocol):
    """A source that counts what it does, such as hits of a cache."""

    def counters(self) -> Mapping[str, int]:
        """Totals of this process since its start, by name."""
        ...


@dataclass(slots=True, eq=False)  # not frozen: that triples what making one costs
class BatchRequest:
    """One rank's share of one global batch.

    Attributes:
        epoch: pass over the data.
        batch: number within the epoch.
        first: position of the first sample.
        stride: from each sample's position to the next one's.
        index: int64 ``(B,)``: which entry of its source.
        source: int32 ``(B,)``: which source.
        shares: int64 ``(batches, sources)``: samples of each source in some consecutive global batches.
        row: which of those this one is.
    """

    epoch: int
    batch: int
    first: int
    stride: int
    index: NDArray[np.int64]
    source: NDArray[np.int32]
    shares: NDArray[np.int64]
    row: int

    def __len__(self) -> int:
        """Samples."""
        return len(self.index)

    def position(self, row: int) -> int:
        """Place of a row's sample within the epoch."""
        return self.first + row * self.stride

    def key(self, row: int, make_key: MakeKey) -> Any:  # noqa: ANN401 - what ``make_key`` makes
        """Key of one row."""
        return make_key(int(self.index[row]), self.epoch, self.position(row), int(self.source[row]))

    def keys(self, make_key: MakeKey) -> Iterator[Any]:
        """Keys of all rows."""
        position, epoch, stride = self.first, self.epoch, self.stride
        for index, source in zip(self.index.tolist(), self.source.tolist(), strict=True):
            yield make_key(index, epoch, position, source)
            position += stride
