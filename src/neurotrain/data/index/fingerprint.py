"""Identity of a table's values and their order, whatever pyarrow's version and the table's chunks are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def table_fingerprint(table: pa.Table, *, columns: Sequence[str] | None = None) -> str:
    """BLAKE2b (64 bit) over the names, nulls and values of columns, row by row in the table's order.

    The order of the columns, how the table is cut into chunks and the width of its integers have no influence.

    Args:
        table: of strings, whole numbers, floats, booleans, and anything else that Arrow can write as a string.
        columns: which of them count, those that are not there excepted; None: all.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> table_fingerprint(pa.table({"id": ["a", "b"], "size": [1, None]}))
        '25014d14699fb616'
        >>> table_fingerprint(pa.table({"id": ["b", "a"], "size": [None, 1]}))
        '46cc5106eb3ab8b0'
    """
    total = hashlib.blake2b(digest_size=8)
    chosen = sorted(table.column_names if columns is None else set(columns) & set(table.column_names))
    total.update(f"{table.num_rows}".encode())
    for name in chosen:
        column = table.column(name)
        # The name's length first: the end of one name and the start of the next content could trade bytes.
        total.update(f"|{len(name)}:{name}|".encode())
        total.update(_column_digest(column))
    return total.hexdigest()


def _column_digest(column: pa.ChunkedArray) -> bytes:
    """Digest of nulls, lengths and bytes, each as one run: the cuts between chunks leave no trace."""
    nulls, lengths, values = (hashlib.blake2b(digest_size=16) for _ in range(3))
    plain = _plain(column)
    kind = str(plain.type)
    for chunk in plain.chunks:
        nulls.update(chunk.is_null().to_numpy(zero_copy_only=False).tobytes())
        if pa.types.is_large_string(chunk.type):
            filled = pc.fill_null(chunk, "")
            lengths.update(np.diff(_bounds(filled)).astype("<i8").tobytes())
            values.update(_string_bytes(filled))
        else:
            filled = pc.fill_null(chunk, 0).to_numpy(zero_copy_only=False)
            values.update(np.ascontiguousarray(filled).astype(filled.dtype.newbyteorder("<")).tobytes())
    return kind.encode() + nulls.digest() + lengths.digest() + values.digest()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as int64, float64 or string: what it says, not how it is stored."""
    if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type):
        return column.cast(pa.int64())
    if pa.types.is_floating(column.type):
        return column.cast(pa.float64())
    if pa.types.is_nested(column.type):
        written = [None if value is None else repr(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(written, pa.large_string())])
    return column.cast(pa.large_string())


def _string_bytes(strings: pa.LargeStringArray) -> memoryview:
    """Bytes of all strings of a slice, without a copy."""
    if not len(strings):
        return memoryview(b"")
    data, bounds = strings.buffers()[2], _bounds(strings)
    return memoryview(b"" if data is None else data)[int(bounds[0]) : int(bounds[-1])]


def _bounds(strings: pa.LargeStringArray) -> NDArray[np.int64]:
    """Where each string begins in the data, and where the last one ends."""
    if not len(strings):
        return np.zeros(1, np.int64)
    offsets = strings.buffers()[1]
    assert offsets is not None, "a string array has offsets"
    return np.frombuffer(offsets, np.int64)[strings.offset : strings.offset + len(strings) + 1]
