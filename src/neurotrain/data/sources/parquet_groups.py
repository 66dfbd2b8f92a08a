"""Decoded row groups of Parquet files: kept in memory up to a bound, or decoded once into files that are mapped."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from neurotrain.data.sources.arrow_fields import ArrowFields, extract, flattened
from neurotrain.data.sources.arrow_files import map_arrow, write_arrow
from neurotrain.data.sources.base import SampleFormatError
from neurotrain.data.sources.columns import Column
from neurotrain.data.sources.parquet_footer import ParquetFooter, footer_of
from neurotrain.data.sources.parquet_pages import check_pages, chunk_ranges
from neurotrain.data.sources.ranged_file import RangedFile
from neurotrain.storage import ChangedError, LocalStorage, Storage, StorageError

_STEP = 1024
"""Rows decoded at once where a row group could be larger than is allowed."""

LARGEST = 4 * 2**30
"""Bytes that columns which are read at once may decode to, where nothing else is said."""

MOST_OPEN = 256
"""Row groups held at once, whatever their size: a mapped one holds a file descriptor."""


class _Held(NamedTuple):
    fields: ArrowFields
    bytes: int


class RowGroups:
    """Row groups by number, each decoded when it is first read.

    A process has its own: after ``fork`` and unpickling it starts empty. What was decoded into ``decoded_dir`` is there
    for all processes and later runs; a file there is whole or absent.

    Args:
        storage: holds the files.
        footers: of the files.
        columns: by field; nothing else is read.
        cache_bytes: of decoded row groups in memory; one row group is kept even if it is larger.
        decoded_dir: folder for decoded row groups, to be mapped instead of kept in memory.
        largest_group: bytes that a row group may decode to.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        footers: Sequence[ParquetFooter],
        columns: Mapping[str, Column],
        cache_bytes: int,
        decoded_dir: Path | None,
        largest_group: int,
    ) -> None:
        self._largest = largest_group
        self._storage, self._footers, self._columns = storage, footers, dict(columns)
        self._cache_bytes, self._decoded_dir = cache_bytes, decoded_dir
        layout = repr([(field, column.path) for field, column in columns.items()])
        self._layout = hashlib.blake2b(layout.encode(), digest_size=8).hexdigest()
        self._start_empty()

    def __getstate__(self) -> dict[str, object]:
        """All but what is held: another process fills its own."""
        mine = ("_held", "_broken", "_lock", "_bytes", "_process", "_files")
        return {name: value for name, value in self.__dict__.items() if name not in mine}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Start empty."""
        self.__dict__.update(state)
        self._start_empty()

    def fields(self, file: int, group: int) -> ArrowFields:
        """The fields of a row group.

        Args:
            file: number of the file.
            group: number of the row group in it.

        Returns:
            Reader of its rows.

        Raises:
            StorageError: if the file cannot be read.
            SampleFormatError: if it cannot be decoded.
        """
        if self._process != os.getpid():
            self._start_empty()
        key = (file, group)
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                self._held.move_to_end(key)
                return held.fields
            if key in self._broken:  # every row of it asks again: once is enough to know
                raise SampleFormatError(self._broken[key])
            held = self._load(file, group)
            self._held[key] = held
            self._bytes += held.bytes
            while len(self._held) > 1 and (self._bytes > self._cache_bytes or len(self._held) > MOST_OPEN):
                _, dropped = self._held.popitem(last=False)
                self._bytes -= dropped.bytes
            return held.fields

    def _start_empty(self) -> None:
        self._held: OrderedDict[tuple[int, int], _Held] = OrderedDict()
        self._broken: dict[tuple[int, int], str] = {}
        self._files: dict[int, _Opened] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self._process = os.getpid()

    def _load(self, file: int, group: int) -> _Held:
        try:
            if self._decoded_dir is None:
                table = self._decode(file, group)
                return _Held(ArrowFields(table=table, columns=flattened(self._columns)), table.nbytes)
            path = self._decoded_dir / f"{self._footers[file].digest}-{self._layout}-{group}.arrow"
            table = map_arrow(path)
            if table is None:
                write_arrow(self._decode(file, group), path)
                table = map_arrow(path)
                assert table is not None
            return _Held(ArrowFields(table=table, columns=flattened(self._columns)), 0)
        except StorageError:
            raise
        except (pa.ArrowException, OSError) as error:
            message = f"{self._footers[file].uri}: row group {group} is corrupted: {error}"
            self._broken[file, group] = message
            raise SampleFormatError(message) from error

    def _decode(self, file: int, group: int) -> pa.Table:
        names = [column.name for column in self._columns.values()]
        try:
            table = _decoded(
                self._open(file), self._footers[file], columns=names, groups=[group], largest=self._largest
            )
        except SampleFormatError as error:
            self._broken[file, group] = str(error)
            raise
        return extract(table, self._columns)

    def _open(self, file: int) -> _Opened:
        if file not in self._files:
            footer = self._footers[file]
            if len(self._files) >= MOST_OPEN:
                self._files.pop(next(iter(self._files)))
            self._files[file] = _opened(self._storage, footer)
        return self._files[file]


def read_columns(
    storage: Storage,
    footer: ParquetFooter,
    *,
    columns: Sequence[str],
    groups: Sequence[int],
    largest: int = LARGEST,
) -> pa.Table:
    """Some columns of some row groups of a file at once.

    Args:
        storage: holds the file.
        footer: of the file.
        columns: dotted names.
        groups: numbers of row groups.
        largest: bytes that they may decode to, all together.

    Returns:
        Their rows, in order.

    Raises:
        StorageError: if the file cannot be read.
        SampleFormatError: if it cannot be decoded, or claims more bytes.
    """
    try:
        return _decoded(_opened(storage, footer), footer, columns=columns, groups=groups, largest=largest)
    except StorageError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise SampleFormatError(f"{footer.uri}: columns {list(columns)} are corrupted: {error}") from error


def decode_parquet(data: bytes, *, key: str, largest: int = LARGEST) -> pa.Table:
    """A file that was read whole.

    Args:
        data: of the file.
        key: of it, for messages.
        largest: bytes that it may decode to.

    Raises:
        SampleFormatError: if it is no whole Parquet file, or claims more bytes.
        pyarrow.ArrowException: if it cannot be decoded.
    """
    footer = footer_of(data, key=key)
    file = pq.ParquetFile(pa.BufferReader(data), metadata=footer.metadata, page_checksum_verification=True)
    opened = _Opened(file, lambda start, length: data[start : start + length], None)
    schema = footer.metadata.schema
    names = [schema.column(number).path for number in range(len(schema))]
    groups = range(len(footer.rows))
    return _decoded(opened, footer, columns=names, groups=groups, largest=largest)


class _Opened(NamedTuple):
    file: pq.ParquetFile
    read: Callable[[int, int], bytes]
    ranged: RangedFile | None


def _opened(storage: Storage, footer: ParquetFooter) -> _Opened:
    ranged = None
    if isinstance(storage, LocalStorage):
        file = pa.memory_map(str(storage.path_of(footer.key)))
    else:
        ranged = RangedFile(storage=storage, key=footer.key, size=footer.size)
        file = pa.PythonFile(ranged, mode="r")
    if file.size() != footer.size:
        raise ChangedError(footer.uri, f"has {file.size()} bytes now, had {footer.size} when its footer was read")

    def read(start: int, length: int) -> bytes:
        file.seek(start)
        return file.read(length)

    opened = pq.ParquetFile(file, metadata=footer.metadata, pre_buffer=False, page_checksum_verification=True)
    return _Opened(opened, read, ranged)


def _decoded(
    opened: _Opened, footer: ParquetFooter, *, columns: Sequence[str], groups: Sequence[int], largest: int
) -> pa.Table:
    """Decode columns whose pages claim no more than is allowed, at once or in steps: values may be told twice."""
    names, numbers = list(columns), list(groups)
    if opened.ranged is not None:
        opened.ranged.keep(chunk_ranges(footer, columns=names, groups=numbers))
    try:
        check_pages(footer, opened.read, columns=names, groups=numbers, largest=largest)
        stored = sum(footer.stored_bytes(names, group=number) for number in numbers)
        rows = sum(footer.rows[number] for number in numbers)
        # Threads of Arrow do not live on in a forked worker; workers are the parallelism here.
        if rows * stored <= largest:
            table = opened.file.read_row_groups(numbers, columns=names, use_threads=False)
        else:
            step = max(1, min(_STEP, largest // max(stored, 1)))
            table = _in_steps(opened.file, footer, columns=names, groups=numbers, rows=step, largest=largest)
    finally:
        if opened.ranged is not None:
            opened.ranged.keep([])
    if table.num_rows != rows:
        raise SampleFormatError(
            f"{footer.uri}: row groups {numbers} have {table.num_rows} rows, the footer says {rows}"
        )
    return table


def _in_steps(
    file: pq.ParquetFile, footer: ParquetFooter, *, columns: list[str], groups: list[int], rows: int, largest: int
) -> pa.Table:
    """Decode some rows at a time, and stop where they are too many bytes."""
    parts: list[pa.RecordBatch] = []
    total = 0
    for part in file.iter_batches(batch_size=rows, row_groups=groups, columns=columns, use_threads=False):
        total += part.nbytes
        if total > largest:
            told = f"row group {groups[0]}" if len(groups) == 1 else f"columns {columns}"
            raise SampleFormatError(f"{footer.uri}: {told} decodes to more than {largest} bytes: raise largest_group")
        parts.append(part)
    return pa.Table.from_batches(parts).combine_chunks()
