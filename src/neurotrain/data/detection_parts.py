"""What detection reads: annotated images, looked at closely when they are verified, and pictures to predict."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import torch

from neurotrain.batch import DetectionSample
from neurotrain.data.datasets.base import Record
from neurotrain.data.detection import CocoSource
from neurotrain.data.parts import SourcePart
from neurotrain.data.prediction import find_images
from neurotrain.data.sources.base import RawSample, SampleFormatError, Source


class DetectionPart(SourcePart[DetectionSample]):
    """Entries of a source of annotated images; see :class:`neurotrain.data.parts.SourcePart` for the arguments."""

    def check(self, index: int, generator: torch.Generator) -> None:
        """Decode one entry and look at its boxes and masks.

        Raises:
            SampleFormatError: lists boxes without an area or outside of the image, and masks without a pixel.
        """
        sample = self.read(index, generator)
        if not isinstance(self.source, CocoSource):
            return
        row = self._row(index)
        found = self.source.flaws(row)
        if "masks" in sample:
            bare = sample["masks"].flatten(1).any(1).logical_not().nonzero().flatten().tolist()
            found += [f"annotation {self.source.objects(row)[place]['id']}: the mask has no pixel" for place in bare]
        if found:
            raise SampleFormatError("; ".join(found))


class PictureSource(Source):
    """Images of a folder, of a glob, or one image; an entry's id is the file's name without its ending.

    Args:
        location: see :func:`neurotrain.data.prediction.find_images`.
        name: of the source.
    """

    def __init__(self, *, location: str, name: str = "pictures") -> None:
        super().__init__(name=name)
        self._location = location
        self._records: tuple[Record, ...] | None = None

    def setup(self) -> None:
        """Find the images, once.

        Raises:
            DatasetError: if nothing is found; or lists files of one id and files that are no image.
            ValueError: if the location is empty or no valid glob.
        """
        if self._records is None:
            self._records = find_images(self._location)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._ready())

    def read(self, index: int) -> RawSample:
        """One image."""
        record = self._ready()[index]
        return RawSample(
            id=record.id, source=self.name, uri=str(record.image), fields={"image": record.image.read_bytes()}
        )

    def table(self) -> pa.Table:
        """``id`` and ``uri``."""
        records = self._ready()
        return pa.table(
            {
                "id": pa.array([record.id for record in records], pa.string()),
                "uri": pa.array([str(record.image) for record in records], pa.string()),
            }
        )

    def fingerprint(self) -> str:
        """Of the names and sizes of the files."""
        told = "\n".join(f"{record.id}:{Path(record.image).stat().st_size}" for record in self._ready())
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()

    def _ready(self) -> tuple[Record, ...]:
        if self._records is None:
            raise RuntimeError(f"source {self.name!r}: call setup() first")
        return self._records
