"""Single values out of Arrow columns without Arrow's own scalars, which cost more than the bytes that they hold."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neurotrain.data.sources.base import Field, SampleFormatError
from neurotrain.data.sources.columns import Column

Reader = Callable[[int], Field | None]


class ArrowFields:
    """The fields of any row of a table, in memory or memory-mapped.

    Args:
        table: holds the columns; it is kept alive, and nothing of it is copied before a row is read.
        columns: by field.
    """

    def __init__(self, *, table: pa.Table, columns: Mapping[str, Column]) -> None:
        table.validate()  # buffers as long as the type needs; what offsets say is checked where they are used
        self._readers = {field: _reader(_leaf(table, column)) for field, column in columns.items()}

    def read(self, row: int, *, uri: str) -> dict[str, Field]:
        """The fields of one row.

        Args:
            row: from 0 on.
            uri: of the row, for messages.

        Returns:
            Bytes, text, or a number for every field.

        Raises:
            SampleFormatError: if a value is null or no valid text.
        """
        fields: dict[str, Field] = {}
        for name, read in self._readers.items():
            try:
                value = read(row)
            except UnicodeDecodeError as error:
                raise SampleFormatError(f"{uri}: {name!r} is no valid UTF-8") from error
            if value is None:
                raise SampleFormatError(f"{uri}: {name!r} is null")
            fields[name] = value
        return fields


def extract(table: pa.Table, columns: Mapping[str, Column]) -> pa.Table:
    """The leaves as columns of their own, named by field, so that nothing else of their structs is kept."""
    return pa.table({field: _leaf(table, column) for field, column in columns.items()})


def unique_ids(values: pa.ChunkedArray, *, subject: str) -> pa.Array:
    """Ids out of a column of the user's.

    Args:
        values: texts or whole numbers.
        subject: the column, for messages.

    Returns:
        Strings.

    Raises:
        ValueError: if one is null, there twice, or of another type.
    """
    if not (
        pa.types.is_integer(values.type) or pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    ):
        raise ValueError(f"{subject} of type {values.type}: ids are texts or whole numbers")
    if values.null_count:
        raise ValueError(f"{subject}: {values.null_count} rows have no id")
    counts = values.value_counts()
    double = counts.filter(counts.field("counts").to_numpy() > 1)
    if len(double):
        raise ValueError(f"{subject}: {len(double)} ids are there more than once, as {double[0]['values'].as_py()!r}")
    texts = values.cast(pa.large_string()).combine_chunks()
    return texts.chunk(0) if isinstance(texts, pa.ChunkedArray) else texts


def flattened(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns as they are in what :func:`extract` returns."""
    return {field: Column(path=(field,), type=column.type) for field, column in columns.items()}


def _leaf(table: pa.Table, column: Column) -> pa.ChunkedArray:
    values = table.column(column.path[0])
    for name in column.path[1:]:
        values = pc.call_function("struct_field", [values], pc.StructFieldOptions(name))
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values


def _reader(values: pa.ChunkedArray) -> Reader:
    chunks = [chunk for chunk in values.chunks if len(chunk)]
    readers = [_chunk_reader(chunk) for chunk in chunks]
    if len(readers) == 1:
        return readers[0]
    starts = np.cumsum([0, *(len(chunk) for chunk in chunks)]).tolist()

    def read(row: int) -> Field | None:
        number = bisect_right(starts, row) - 1
        return readers[number](row - starts[number])

    return read


def _chunk_reader(chunk: pa.Array) -> Reader:
    kind = chunk.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        read = _number_reader(chunk)
    else:
        read = _bytes_reader(chunk)
    if not chunk.null_count:
        return read
    valid = chunk.is_valid().to_numpy(zero_copy_only=False)

    def read_valid(row: int) -> Field | None:
        return read(row) if valid[row] else None

    return read_valid


def _number_reader(chunk: pa.Array) -> Reader:
    if pa.types.is_boolean(chunk.type):
        chunk = chunk.cast(pa.int8())
    values: np.ndarray = pc.fill_null(chunk, 0).to_numpy(zero_copy_only=False)

    def read(row: int) -> Field:
        return values[row].item()

    return read


def _bytes_reader(chunk: pa.Array) -> Reader:
    """Slices of the data buffer. A memoryview's slice ends where its buffer does, whatever the offsets say."""
    kind = chunk.type
    wide = pa.types.is_large_binary(kind) or pa.types.is_large_string(kind)
    _, offset_buffer, data_buffer = chunk.buffers()
    every = np.frombuffer(offset_buffer, dtype=np.int64 if wide else np.int32)
    offsets = every[chunk.offset : chunk.offset + len(chunk) + 1]
    data = memoryview(data_buffer or b"")

    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return lambda row: str(data[offsets[row] : offsets[row + 1]], "utf-8")
    return lambda row: bytes(data[offsets[row] : offsets[row + 1]])
