"""What a Parquet file says of itself at its end: schema, row groups, and an identity; no row is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from neurotrain.data.sources.base import SampleFormatError
from neurotrain.storage import ObjectInfo, Storage

_MAGIC = b"PAR1"
_TAIL = 64 * 2**10
"""Bytes read at first: most footers are shorter, and a second request is only for those that are not."""

_LARGEST = 256 * 2**20
"""Bytes of a footer above which a file is taken for a broken one."""

_MOST_ROWS = 100_000_000
"""Rows of a file: a footer tells any number of them in as many bytes."""

_AT_ONCE = 8
"""Footers read side by side: a request to a bucket is mostly waiting."""


@dataclass(frozen=True, kw_only=True)
class ParquetFooter:
    """One Parquet file without its rows.

    Attributes:
        key: in its storage.
        uri: for messages.
        size: bytes.
        digest: of the footer and the size, 16 hexadecimal digits: every chunk's place, length and statistics are in it.
        metadata: as pyarrow reads it.
    """

    key: str
    uri: str
    size: int
    digest: str
    metadata: pq.FileMetaData

    @property
    def schema(self) -> pa.Schema:
        """Columns and their types."""
        return self.metadata.schema.to_arrow_schema()

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of each row group."""
        return tuple(self.metadata.row_group(group).num_rows for group in range(self.metadata.num_row_groups))

    def stored_bytes(self, columns: Sequence[str], *, group: int | None = None) -> int:
        """Uncompressed size of some columns.

        Args:
            columns: dotted names of leaves.
            group: number of a row group; None: in all of them.
        """
        wanted = set(columns)
        numbers = range(self.metadata.num_row_groups) if group is None else (group,)
        groups = (self.metadata.row_group(number) for number in numbers)
        chunks = (group.column(number) for group in groups for number in range(group.num_columns))
        return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in wanted)


def read_footers(storage: Storage, objects: Sequence[ObjectInfo]) -> list[ParquetFooter]:
    """The footers of many files, several at a time.

    Args:
        storage: holds them.
        objects: which.

    Returns:
        In the same order.

    Raises:
        StorageError: if one cannot be read.
        SampleFormatError: if one is no whole Parquet file.
    """
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        return list(pool.map(lambda item: read_footer(storage, item), objects))


def read_footer(storage: Storage, item: ObjectInfo) -> ParquetFooter:
    """The footer of one file, with one or two range reads.

    Args:
        storage: holds it.
        item: which.

    Returns:
        The footer.

    Raises:
        StorageError: if it cannot be read.
        SampleFormatError: if it is no whole Parquet file.
    """
    uri = storage.uri_of(item.key)
    size = storage.stat(item.key).size if item.size is None else item.size
    if size is None:
        raise SampleFormatError(f"{uri}: the server does not tell its size, so its footer cannot be found")
    tail = storage.read(item.key, start=max(0, size - _TAIL), length=min(size, _TAIL))
    if size < 12 or tail[-4:] != _MAGIC:
        raise SampleFormatError(f"{uri}: no Parquet file, or a truncated one: its {size} bytes do not end in 'PAR1'")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > min(size - len(_MAGIC), _LARGEST):
        raise SampleFormatError(f"{uri}: a footer of {length} bytes does not fit a file of {size}")
    if length > len(tail):
        tail = storage.read(item.key, start=size - length, length=length)
    return _parsed(tail[-length:], key=item.key, uri=uri, size=size)


def footer_of(data: bytes, *, key: str) -> ParquetFooter:
    """The footer of a file that was read whole.

    Raises:
        SampleFormatError: if it is no whole Parquet file.
    """
    length = int.from_bytes(data[-8:-4], "little") + 8
    if len(data) < 12 or data[-4:] != _MAGIC or length > len(data) - len(_MAGIC):
        raise SampleFormatError(f"{key}: no Parquet file, or a truncated one")
    return _parsed(data[-length:], key=key, uri=key, size=len(data))


def _parsed(footer: bytes, *, key: str, uri: str, size: int) -> ParquetFooter:
    try:
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer))
        metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise SampleFormatError(f"{uri}: its footer is corrupted: {error}") from error
    digest = hashlib.blake2b(footer + str(size).encode(), digest_size=8).hexdigest()
    found = ParquetFooter(key=key, uri=uri, size=size, digest=digest, metadata=metadata)
    if min(found.rows, default=0) < 0 or sum(found.rows) > _MOST_ROWS:
        raise SampleFormatError(f"{uri}: its footer claims {sum(found.rows)} rows, at most {_MOST_ROWS} are read")
    return found
