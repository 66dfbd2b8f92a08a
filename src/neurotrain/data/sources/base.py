"""What every source does: an index of entries, and the raw fields of one of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from neurotrain.storage.base import Storage

LISTED = 10
"""Problems named in a message before it only counts."""

CAPTION_FILE, CHECKSUM = "caption_file", "checksum_"
INDEX_ONLY = (CAPTION_FILE, CHECKSUM)
"""Columns that begin so are in the index, not in samples: the file of a caption, what a download is checked with."""

Field = bytes | str | int | float
"""One raw field: an encoded file (JPEG, PNG, TIFF, GIF, npy, …) as bytes, a caption as str, a label or a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSample:
    """One entry of a source as it lies in storage, nothing decoded.

    Attributes:
        id: unique within its source, stable between runs and machines.
        source: name of the source.
        uri: where it came from, for messages and the ledger of bad samples; no secrets in it.
        fields: by name: ``image``, ``mask``, ``valid``, ``caption``, ``label``, ``video``, or a column's. One field of
            several files has a field for each: ``mask/<label>``, ``conditioning/<name>``, ``video/<frame>``.
        identity: etag or hash of the content by field, for caches; a field that has none is absent.
    """

    id: str
    source: str
    uri: str
    fields: Mapping[str, Field]
    identity: Mapping[str, str] = field(default_factory=dict[str, str])


class Source(ABC):
    """Random access to raw samples.

    :meth:`setup` finds or builds the index; before it nothing else works. Afterwards an instance is picklable and safe
    to read from forked and spawned workers, and ``len`` and the order of entries never change.
    """

    storage: Storage | None = None
    """Where its objects lie; None where a library reads them."""

    def __init__(self, *, name: str) -> None:
        if not name or "/" in name:
            raise ValueError(f"name={name!r}: a source needs a name without '/'")
        self.name = name

    @abstractmethod
    def setup(self) -> None:
        """Find or build the index; calling it twice does nothing the second time."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of entries."""

    @abstractmethod
    def read(self, index: int) -> RawSample:
        """Fetch the raw fields of one entry.

        Raises:
            IndexError: if there is no such entry.
            StorageError: if its bytes cannot be had.
            SampleFormatError: if its bytes are not what the index says.
        """

    @abstractmethod
    def table(self) -> pa.Table:
        """The index, one row an entry in the source's order: ``id`` first, then what is known without decoding.

        Columns where the source knows them: ``uri, size, etag, width, height, frames, caption, label, split``, and
        those of the user's table. Samplers weight and balance by them, buckets read shapes from them.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Identity of the entries and their order: 16 hexadecimal digits that change when either does."""


class StreamingSource(ABC):
    """Samples in the order that they come, without random access; resumes through its own state, and a run says so."""

    def __init__(self, *, name: str) -> None:
        self.name = name

    @abstractmethod
    def stream(self, *, epoch: int, shard: int, shards: int) -> Iterator[RawSample]:
        """Yield the ``shard``-th of ``shards`` disjoint parts of an epoch, from where the loaded state left it."""

    @abstractmethod
    def state_dict(self) -> dict[str, object]:
        """Where the stream is, of plain values."""

    @abstractmethod
    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Go on from there."""


class SampleFormatError(ValueError):
    """The bytes of one sample are not what they should be: truncated, of another type, too large to decode safely."""


class SourceError(ValueError):
    """A source is not what its settings say; the message lists what is wrong (the first 10 and the count).

    Args:
        subject: what the problems are about.
        problems: one line each, at least one.

    Example:
        >>> print(SourceError("photos", ["masks/a.png: missing"]))
        photos: 1 problem
          masks/a.png: missing
    """

    def __init__(self, subject: str, problems: Sequence[str]) -> None:
        # Both travel through pickling between processes, which calls the constructor with ``args``.
        super().__init__(subject, problems)
        self.subject = subject
        self.problems = tuple(problems)

    def __str__(self) -> str:
        """The count, then the problems."""
        count = len(self.problems)
        lines = [f"{self.subject}: {count} problem{'s' if count != 1 else ''}"]
        lines += [f"  {problem}" for problem in self.problems[:LISTED]]
        if count > LISTED:
            lines.append(f"  ... and {count - LISTED} more")
        return "\n".join(lines)
