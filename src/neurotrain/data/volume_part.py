"""Cases of a data set of volumes as a data module asks for them: maps of prepared arrays, nothing kept in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch

from neurotrain.data.engine import SampleName
from neurotrain.data.parts import Part
from neurotrain.data.volumes.base import VolumeRecord
from neurotrain.data.volumes.cache import VolumeCache


class VolumePart(Part[Mapping[str, Any]]):
    """Prepared cases: whole ones with their reference to evaluate, or what patches are cut out of.

    The system keeps what is read of the mapped files for as long as there is memory; this process keeps nothing.

    Args:
        name: of the data set.
        records: which cases, in this order.
        cache: prepares and opens them.
        whole: whether samples are those of :class:`neurotrain.batch.VolumeBatch`, else
            :class:`neurotrain.data.volumes.VolumeCase`.
        labelled: whether references are read.
    """

    def __init__(
        self, *, name: str, records: Sequence[VolumeRecord], cache: VolumeCache, whole: bool, labelled: bool = True
    ) -> None:
        super().__init__(name=name, prepare=None, limit=0)
        self._records = tuple(records)
        self._cache = cache
        self._whole, self._labelled = whole, labelled

    def __len__(self) -> int:
        """Number of cases."""
        return len(self._records)

    def identify(self, index: int) -> SampleName:
        """Id and first file of a case."""
        record = self._records[index]
        return SampleName(id=record.id, uri=str(record.images[0]), source=self.name)

    def table(self) -> pa.Table:
        """``id``, ``uri`` and ``group``."""
        rows = {
            "id": [record.id for record in self._records],
            "uri": [str(record.images[0]) for record in self._records],
            "group": [record.group for record in self._records],
        }
        return pa.table(rows, schema=pa.schema([(name, pa.string()) for name in rows]))

    def fingerprint(self) -> str:
        """Of the content of all files and the preparation: 16 hexadecimal digits."""
        keys = [self._cache.key(record, labelled=self._labelled) for record in self._records]
        return hashlib.blake2b("\n".join(keys).encode(), digest_size=8).hexdigest()

    def _decode(self, index: int, generator: torch.Generator) -> Mapping[str, Any]:
        record = self._records[index]
        case = self._cache.open(record, labelled=self._labelled)
        names = {"id": record.id, "source": self.name}
        if not self._whole:
            assert case.mask is not None, "patches are cut out of labelled cases"
            shown = {"image": case.image, "mask": case.mask, "centres": case.centres, "spacing": case.spacing[1]}
            return {**shown, **names}
        sample = {"image": case.image, "box": case.box, "size": case.size, "spacing": case.spacing[0], **names}
        return sample if case.reference is None else {**sample, "reference": case.reference}
