"""Parts of data: entries of one source, decoded and prepared, which a data module trains on alone or in a mixture."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurotrain.batch import SegmentationSample
from neurotrain.data.datasets.base import Record, SegmentationDataset
from neurotrain.data.datasets.splits import hold_out, k_fold
from neurotrain.data.decoders import Decoder
from neurotrain.data.decoders.image import PictureDecoder
from neurotrain.data.engine import SampleName, worker_number
from neurotrain.data.plan import SampleKey, mix_seed
from neurotrain.data.sources import Source
from neurotrain.data.transforms import Transform

SampleT = TypeVar("SampleT", bound=Mapping[str, Any])


class Step(Protocol[SampleT]):
    """A transform: see :class:`neurotrain.data.transforms.Transform`."""

    @property
    def deterministic(self) -> bool:
        """Whether the result depends on the sample alone."""
        ...

    def __call__(self, sample: SampleT, generator: torch.Generator) -> SampleT:
        """Transform one sample."""
        ...


class SampleError(RuntimeError):
    """One sample could not be read or transformed; the message names it, the cause is attached."""


class Part(ABC, Generic[SampleT]):
    """Prepared samples of one source by their number. Safe to read from forked and spawned workers.

    What fits is kept in memory, decoded and prepared; what does not is made anew at each visit. That memory grows in
    the process that owns it only: workers that are forked afterwards share it and add nothing, or each would end up
    with a copy of its own.

    Args:
        name: of the source.
        prepare: deterministic first transform, applied before a sample is kept; None: nothing.
        limit: bytes of tensors that may be kept; 0 keeps nothing.

    Raises:
        ValueError: if ``prepare`` draws random numbers, or ``limit`` is negative.
    """

    def __init__(self, *, name: str, prepare: Step[SampleT] | None, limit: int) -> None:
        check_kept(prepare, limit)
        self.name = name
        self._prepare = prepare
        self._limit = limit
        self._kept: dict[int, SampleT] = {}
        self.used = 0  # bytes kept

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def identify(self, index: int) -> SampleName:
        """Name one sample without reading it."""

    @abstractmethod
    def table(self) -> pa.Table:
        """What is known of the samples without decoding them, ``id`` first, one row a sample."""

    @abstractmethod
    def _decode(self, index: int, generator: torch.Generator) -> SampleT:
        """Read and decode one sample."""

    @property
    def kept(self) -> int:
        """Samples in memory."""
        return len(self._kept)

    def read(self, index: int, generator: torch.Generator | None = None) -> SampleT:
        """The prepared sample, out of memory if it is there; it is kept if there is room.

        Args:
            index: of the sample.
            generator: for a decoder that draws; None: seeded with 0.
        """
        if index in self._kept:
            return self._kept[index]
        generator = generator or torch.Generator().manual_seed(0)
        sample = self._decode(index, generator)
        if self._prepare is not None:
            sample = self._prepare(sample, generator)
        if self._limit and worker_number() is None:
            size = nbytes(sample)
            if self.used + size <= self._limit:
                sample = self._kept[index] = owned(sample)
                self.used += size
        return sample

    def read_into(self, index: int, generator: torch.Generator, out: Mapping[str, NDArray[Any]]) -> Mapping[str, Any]:
        """The prepared sample, decoded into the batch where that is possible.

        Args:
            index: of the sample.
            generator: for a decoder that draws.
            out: the sample's row of the batch by field; a field that is written there is returned as the very array.
        """
        return self.read(index, generator)

    def check(self, index: int, generator: torch.Generator) -> None:
        """Read one sample to see whether anything is wrong with it; a part may look closer than for training.

        Args:
            index: of the sample.
            generator: for a decoder that draws.
        """
        self.read(index, generator)

    def fill(self, *, strict: bool = True) -> None:
        """Read ahead until one does not fit, so that workers find what there is room for.

        Args:
            strict: whether one that cannot be read is an error now; otherwise it is left for its visit.

        Raises:
            SampleError: if one cannot be read.
        """
        for index in range(len(self)) if self._limit else ():
            try:
                with naming(self, index):
                    self.read(index)
            except SampleError:
                if strict:
                    raise
                continue
            if index not in self._kept:
                return

    def counters(self) -> Mapping[str, int]:
        """Samples and bytes in memory, by the source's name."""
        return {f"{self.name}/kept": self.kept, f"{self.name}/kept_bytes": self.used}

    def digest(self) -> str:
        """Identity of the samples and their order: 16 hexadecimal digits."""
        names = self.table().column("id").to_pylist()
        return hashlib.blake2b("\n".join(names).encode(), digest_size=8).hexdigest()

    def fingerprint(self) -> str:
        """Identity of the samples as far as their source can tell without reading them."""
        return self.digest()


class DatasetPart(Part[SegmentationSample]):
    """Records of a named dataset in its official layout.

    Args:
        dataset: decodes a record.
        records: which, in this order.
        prepare: deterministic first transform; None: nothing.
        cache_bytes: memory for prepared samples.
        labelled: whether labels are read; without them the mask is all zeros.

    Raises:
        ValueError: see :class:`Part`.
    """

    def __init__(
        self,
        *,
        dataset: SegmentationDataset,
        records: Sequence[Record],
        prepare: Transform | None = None,
        cache_bytes: int = 0,
        labelled: bool = True,
    ) -> None:
        super().__init__(name=dataset.name, prepare=prepare, limit=cache_bytes)
        self._dataset = dataset
        self._records = tuple(records)
        self._labelled = labelled

    def __len__(self) -> int:
        """Number of records."""
        return len(self._records)

    def identify(self, index: int) -> SampleName:
        """Id and image file of a record."""
        record = self._records[index]
        return SampleName(id=record.id, uri=str(record.image), source=self.name)

    def table(self) -> pa.Table:
        """``id``, ``uri`` and ``group``."""
        rows = {
            "id": [record.id for record in self._records],
            "uri": [str(record.image) for record in self._records],
            "group": [record.group for record in self._records],
        }
        return pa.table(rows, schema=pa.schema([(name, pa.string()) for name in rows]))

    def _decode(self, index: int, generator: torch.Generator) -> SegmentationSample:
        record = self._records[index]
        return self._dataset.read(record) if self._labelled else self._dataset.read_unlabelled(record)


class Entry(NamedTuple):
    """One row of a source's table, as far as splitting needs it."""

    id: str
    group: str | None
    row: int


class SourcePart(Part[SampleT]):
    """Entries of a source through its decoder.

    Args:
        source: set up.
        decoder: makes a typed sample of an entry; what one makes that draws random numbers is never kept.
        prepare: deterministic first transform; None: nothing.
        rows: which entries, in this order; None: all.
        cache_bytes: memory for prepared samples.

    Raises:
        ValueError: see :class:`Part`.
    """

    def __init__(
        self,
        *,
        source: Source,
        decoder: Decoder[SampleT],
        prepare: Step[SampleT] | None = None,
        rows: NDArray[np.int64] | None = None,
        cache_bytes: int = 0,
    ) -> None:
        super().__init__(name=source.name, prepare=prepare, limit=cache_bytes)
        if not decoder.deterministic:
            self._limit = 0
        self.source = source
        self._decoder = decoder
        self._rows = rows

    def __len__(self) -> int:
        """Number of entries."""
        return len(self.source) if self._rows is None else len(self._rows)

    def identify(self, index: int) -> SampleName:
        """Id and URI out of the source's table."""
        table, row = self.source.table(), self._row(index)
        uri = table.column("uri")[row].as_py() if "uri" in table.column_names else ""
        return SampleName(id=table.column("id")[row].as_py(), uri=uri, source=self.name)

    def table(self) -> pa.Table:
        """The rows of the source's table."""
        table = self.source.table()
        return table if self._rows is None else table.take(pa.array(self._rows))

    def fingerprint(self) -> str:
        """Of the whole source: entries, their sizes and etags."""
        return self.source.fingerprint()

    def _decode(self, index: int, generator: torch.Generator) -> SampleT:
        return self._decoder(self.source.read(self._row(index)), generator)

    def read_into(self, index: int, generator: torch.Generator, out: Mapping[str, NDArray[Any]]) -> Mapping[str, Any]:
        """Decode straight into the batch what is neither kept nor prepared further."""
        if self._limit or self._prepare is not None or not isinstance(self._decoder, PictureDecoder):
            return self.read(index, generator)
        return self._decoder.decode_into(self.source.read(self._row(index)), generator, out)

    def _row(self, index: int) -> int:
        return index if self._rows is None else int(self._rows[index])


def split_rows(
    source: Source, *, validation: int, folds: int | None, fold: int, seed: int
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
    """Rows to train on and rows to hold out; a column ``group`` names subjects that stay together.

    Args:
        source: set up.
        validation: entries to hold out; 0 with no ``folds``: none.
        folds: number of cross-validation folds, instead.
        fold: which of them is held out.
        seed: of the draw by ``validation``.

    Returns:
        Training rows in the source's order (None: all of them), and held-out rows.

    Raises:
        ValueError: if the numbers do not fit the source.
    """
    if not validation and folds is None:
        return None, np.zeros(0, np.int64)
    table = source.table()
    names = table.column("id").to_pylist()
    groups = table.column("group").to_pylist() if "group" in table.column_names else [None] * len(names)
    entries = [Entry(name, group, row) for row, (name, group) in enumerate(zip(names, groups, strict=True))]
    if folds is not None:
        split = k_fold(entries, folds=folds, fold=fold)
    else:
        split = hold_out(entries, count=validation, seed=seed)
    train, held = ({entry.row for entry in part} for part in (split.train, split.held_out))
    return np.array(sorted(train), np.int64), np.array(sorted(held), np.int64)


class PartSamples(Generic[SampleT]):
    """What a loader asks for samples: parts by the numbers that a plan gives them, each through its transform.

    Args:
        parts: as the plan counts sources.
        transforms: of each part, applied at each visit with random numbers of the key's own; None: nothing.
        seed: of those numbers.
    """

    def __init__(
        self, *, parts: Sequence[Part[SampleT]], transforms: Sequence[Step[SampleT] | None], seed: int
    ) -> None:
        assert len(parts) == len(transforms), "one transform for each part"
        self._parts = tuple(parts)
        self._transforms = tuple(transforms)
        self._seed = seed
        self._numbers: dict[int, dict[str, int]] = {}

    def load(self, key: SampleKey) -> SampleT:
        """Read and transform one sample; its random numbers depend on seed, epoch and position alone.

        Raises:
            SampleError: names the sample; whatever went wrong is its cause.
        """
        part, transform = self._parts[key.source], self._transforms[key.source]
        generator = self._generator(key)
        with naming(part, key.index):
            sample = part.read(key.index, generator)
            return sample if transform is None else transform(sample, generator)

    def load_into(self, key: SampleKey, out: Mapping[str, NDArray[Any]]) -> Mapping[str, Any]:
        """Likewise, decoded into the batch where nothing comes after decoding."""
        if self._transforms[key.source] is not None or not out:
            return self.load(key)
        part = self._parts[key.source]
        with naming(part, key.index):
            return part.read_into(key.index, self._generator(key), out)

    def identify(self, key: SampleKey) -> SampleName:
        """Name a sample without reading it."""
        return self._parts[key.source].identify(key.index)

    def entries(self, source: int, ids: Sequence[str]) -> NDArray[np.int64]:
        """Numbers of some samples of a part; its ids are read at the first call, and kept.

        Raises:
            KeyError: if the part has no such id.
        """
        if source not in self._numbers:
            names = self._parts[source].table()["id"].to_pylist()
            self._numbers[source] = {name: number for number, name in enumerate(names)}
        return np.array([self._numbers[source][name] for name in ids], np.int64)

    def count(self, source: int) -> int:
        """Samples of one part."""
        return len(self._parts[source])

    def counters(self) -> Mapping[str, int]:
        """Totals of all parts."""
        return {name: value for part in self._parts for name, value in part.counters().items()}

    def _generator(self, key: SampleKey) -> torch.Generator:
        return torch.Generator().manual_seed(mix_seed(self._seed, key.epoch, key.position))


def check_kept(prepare: Step[Any] | None, limit: int) -> None:
    """Refuse to keep samples that a transform would make anew at each visit, and a negative number of bytes.

    Raises:
        ValueError: names the setting.
    """
    if prepare is not None and not prepare.deterministic:
        raise ValueError(f"prepare={type(prepare).__name__} draws random numbers: it belongs into train_transform")
    if limit < 0:
        raise ValueError(f"cache_bytes={limit}: must be at least 0")


@contextmanager
def naming(part: Part[Any], index: int) -> Generator[None]:
    """Say which sample an exception is about."""
    try:
        yield
    except Exception as error:
        name = part.identify(index)
        raise SampleError(f"sample {name.id!r} of {name.source} ({name.uri}): {error}") from error


def nbytes(sample: Mapping[str, Any]) -> int:
    """Bytes of a sample's tensors and arrays.

    Example:
        >>> nbytes({"image": torch.zeros(2, 3), "id": "a"})
        24
    """
    return sum(value.nbytes for value in sample.values() if isinstance(value, Tensor | np.ndarray))


def owned(sample: SampleT) -> SampleT:
    """The sample without the storage that its tensors are views of."""
    compact = {
        name: value.clone()  # which keeps the order of the axes in memory, so that batches lie the same
        for name, value in sample.items()
        if isinstance(value, Tensor) and value.untyped_storage().nbytes() != value.nbytes
    }
    return cast("SampleT", {**sample, **compact})
