"""A source without the entries that a preparation leaves out, and the count of these by reason."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neurotrain.data.decoders.preparation import ImagePreparation
from neurotrain.data.sources.base import RawSample, Source, SourceError


class ScreenedSource(Source):
    """The entries of a source whose size a preparation accepts, in the source's order.

    Args:
        source: whose index has ``width`` and ``height`` (and ``frames`` for videos): see ``dimensions`` of its class.
        preparation: decides.

    Example:
        >>> from PIL import Image
        >>> from io import BytesIO
        >>> from neurotrain.data.sources import FolderSource
        >>> from neurotrain.storage import MemoryStorage
        >>> storage = MemoryStorage(name="screening-example")
        >>> for name, size in {"a": (80, 64), "b": (640, 64), "c": (64, 64)}.items():
        ...     stream = BytesIO()
        ...     Image.new("RGB", size).save(stream, "PNG")
        ...     _ = storage.write(f"{name}.png", stream.getvalue())
        >>> source = FolderSource(name="toy", storage=storage, dimensions=True)
        >>> screened = ScreenedSource(source=source, preparation=ImagePreparation(resolution=64, max_aspect=2.0))
        >>> screened.setup()
        >>> screened.table().column("id").to_pylist(), screened.left_out
        (['a', 'c'], {'aspect above max_aspect=2.0': 1})
    """

    def __init__(self, *, source: Source, preparation: ImagePreparation) -> None:
        super().__init__(name=source.name)
        self.source = source
        self.preparation = preparation
        self._kept: NDArray[np.int64] | None = None
        self._left_out: dict[str, int] = {}

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many entries are left out, by reason.

        Raises:
            RuntimeError: before :meth:`setup`.
        """
        self._rows()
        return self._left_out

    def setup(self) -> None:
        """Set the source up and screen its index.

        Raises:
            SourceError: if the index has no sizes, or nothing is left.
        """
        if self._kept is not None:
            return
        self.source.setup()
        table, needed = self.source.table(), self.preparation.measures
        missing = [name for name in needed if name not in table.column_names]
        if missing:
            raise SourceError(
                f"source {self.name!r}", [f"the index has no {name!r}: set dimensions=True" for name in missing]
            )
        sizes = zip(*(table.column(name).to_pylist() for name in needed), strict=True)
        kept, self._left_out = self.preparation.screen(sizes)
        if not kept:
            reasons = [f"{reason}: {count}" for reason, count in self._left_out.items()]
            raise SourceError(f"source {self.name!r}: all {table.num_rows} entries are left out", reasons)
        self._kept = np.array(kept, np.int64)

    def __len__(self) -> int:
        """Number of entries that are used."""
        return len(self._rows())

    def read(self, index: int) -> RawSample:
        """Fetch one of them; see :class:`~neurotrain.data.sources.base.Source`."""
        if not 0 <= index < len(self):
            raise IndexError(f"entry {index} of {len(self)}")
        return self.source.read(int(self._rows()[index]))

    def table(self) -> pa.Table:
        """Their rows of the index."""
        return self.source.table().take(pa.array(self._rows()))

    def fingerprint(self) -> str:
        """Identity of the source's entries and of which of them are used."""
        digest = hashlib.blake2b(self.source.fingerprint().encode(), digest_size=8)
        digest.update(self._rows().astype("<i8").tobytes())
        return digest.hexdigest()

    def _rows(self) -> NDArray[np.int64]:
        if self._kept is None:
            raise RuntimeError(f"source {self.name!r}: call setup() first")
        return self._kept
