"""Records to samples: decoded and prepared once, kept within a budget, transformed anew at each visit."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import Dataset

from neurotrain.batch import SegmentationBatch, SegmentationSample
from neurotrain.data.datasets.base import Record, SegmentationDataset
from neurotrain.data.engine import worker_number
from neurotrain.data.plan import EpochPlan, SampleKey
from neurotrain.data.transforms import Transform


class SampleError(RuntimeError):
    """One sample could not be read or transformed; the message names it, the cause is attached."""


class SampleCache:
    """Decoded, prepared samples in RAM, up to a number of bytes; what does not fit is decoded at each visit.

    It grows in the process that owns it only. Workers that are forked afterwards share its memory; they add nothing, or
    each would end up with a copy of its own.

    Args:
        dataset: decodes a record.
        prepare: deterministic first transform, applied before a sample is kept; None: nothing.
        limit: bytes of tensors that may be kept; 0 keeps nothing.
        labelled: whether labels are read; without them the mask is all zeros.

    Raises:
        ValueError: if ``prepare`` draws random numbers, or ``limit`` is negative.
    """

    def __init__(
        self, *, dataset: SegmentationDataset, prepare: Transform | None = None, limit: int = 0, labelled: bool = True
    ) -> None:
        if prepare is not None and not prepare.deterministic:
            raise ValueError(f"prepare={type(prepare).__name__} draws random numbers: it belongs into train_transform")
        if limit < 0:
            raise ValueError(f"cache_bytes={limit}: must be at least 0")
        self._dataset = dataset
        self._prepare = prepare
        self._limit = limit
        self._labelled = labelled
        self._kept: dict[str, SegmentationSample] = {}
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes kept."""
        return self._used

    def __len__(self) -> int:
        """Samples kept."""
        return len(self._kept)

    def read(self, record: Record) -> SegmentationSample:
        """The prepared sample, out of memory if it is there; keep it if there is room."""
        if record.id in self._kept:
            return self._kept[record.id]
        sample = self._dataset.read(record) if self._labelled else self._dataset.read_unlabelled(record)
        if self._prepare is not None:
            sample = self._prepare(sample, torch.Generator())
        size = _nbytes(sample)
        if worker_number() is None and self._used + size <= self._limit:
            sample = self._kept[record.id] = _owned(sample)
            self._used += size
        return sample

    def fill(self, records: Sequence[Record]) -> None:
        """Read ahead until one does not fit, so that workers find what there is room for.

        Raises:
            SampleError: if one cannot be read.
        """
        for record in records:
            with _naming(record, self._dataset.name):
                self.read(record)
            if record.id not in self._kept:
                return


class PlannedSamples(Dataset[SegmentationSample]):
    """Map-style dataset of transformed samples, addressed by the keys of a plan.

    Args:
        records: the plan's index counts them.
        cache: reads and prepares a record.
        transform: applied at each visit, with random numbers of the key's own.
        plan: gives each key its generator.
        source: name of the dataset, for messages.
    """

    def __init__(
        self, *, records: Sequence[Record], cache: SampleCache, transform: Transform, plan: EpochPlan, source: str
    ) -> None:
        assert len(records) == plan.length, "a plan of other records"
        self._records = tuple(records)
        self._cache = cache
        self._transform = transform
        self._plan = plan
        self._source = source

    def __len__(self) -> int:
        """Number of records."""
        return len(self._records)

    def load(self, key: SampleKey) -> SegmentationSample:
        """Read and transform one sample.

        Raises:
            SampleError: names the sample; whatever went wrong is its cause.
        """
        record = self._records[key.index]
        with _naming(record, self._source):
            return self._transform(self._cache.read(record), self._plan.generator(key))

    def __getitem__(self, key: SampleKey) -> SegmentationSample:
        """The same, as a map-style dataset."""
        return self.load(key)


def collate(samples: Sequence[SegmentationSample]) -> SegmentationBatch:
    """Stack samples of one shape.

    Args:
        samples: at least one.

    Returns:
        The batch; ids stay a list.

    Raises:
        ValueError: names the samples whose shapes differ.
    """
    shapes = {f"{sample['source']}/{sample['id']}": tuple(sample["image"].shape) for sample in samples}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"a batch needs images of one shape, got {listed}: "
            "use a transform of fixed output size (RandomPatch, Resize, CentreCrop) or a batch size of 1"
        )
    return {
        "image": torch.stack([sample["image"] for sample in samples]),
        "mask": torch.stack([sample["mask"] for sample in samples]),
        "valid": torch.stack([sample["valid"] for sample in samples]),
        "id": [sample["id"] for sample in samples],
        "source": [sample["source"] for sample in samples],
    }


@contextmanager
def _naming(record: Record, source: str) -> Generator[None]:
    try:
        yield
    except Exception as error:
        raise SampleError(f"sample {record.id!r} of {source} ({record.image}): {error}") from error


def _nbytes(sample: SegmentationSample) -> int:
    return sum(part.nbytes for part in (sample["image"], sample["mask"], sample["valid"]))


def _owned(sample: SegmentationSample) -> SegmentationSample:
    """The sample without the storage that its tensors are views of."""
    return {
        **sample,
        "image": _compact(sample["image"]),
        "mask": _compact(sample["mask"]),
        "valid": _compact(sample["valid"]),
    }


def _compact(part: Tensor) -> Tensor:
    return part if part.untyped_storage().nbytes() == part.nbytes else part.contiguous().clone()
