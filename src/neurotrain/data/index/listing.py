"""What a storage lists, as columns, and which of it has changed since."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from neurotrain.storage.base import ObjectInfo

_ROWS = 65_536
_SCHEMA = pa.schema(
    [("key", pa.string()), ("size", pa.int64()), ("etag", pa.string()), ("modified", pa.float64())]
)  # fmt: skip


def listing_table(objects: Iterable[ObjectInfo]) -> pa.Table:
    """Columns ``key, size, etag, modified`` of a listing, made block by block: no list of objects is ever whole.

    Args:
        objects: as a storage lists them.

    Returns:
        One row an object whose key has no hidden part, in the listing's order.

    Example:
        >>> info = ObjectInfo(key="a.png", size=3, etag=None, modified=1.5)
        >>> listing_table([info]).to_pylist()
        [{'key': 'a.png', 'size': 3, 'etag': None, 'modified': 1.5}]
    """
    batches: list[pa.RecordBatch] = []
    remaining = iter(objects)
    while block := list(islice(remaining, _ROWS)):
        # A hidden part: ``.git/config``, ``a/.b.png``.
        shown = [entry for entry in block if "/." not in entry.key and not entry.key.startswith(".")]
        columns = [
            pa.array([entry.key for entry in shown], pa.string()),
            pa.array([entry.size for entry in shown], pa.int64()),
            pa.array([entry.etag for entry in shown], pa.string()),
            pa.array([entry.modified for entry in shown], pa.float64()),
        ]
        batches.append(pa.record_batch(columns, schema=_SCHEMA))
    return pa.Table.from_batches(batches, schema=_SCHEMA)


def unchanged_rows(table: pa.Table, previous: pa.Table | None) -> NDArray[np.int64]:
    """Find the rows whose objects are as they were.

    An object is unchanged where its size and its etag are; where a storage has no etags, its time stands in. One that
    has neither counts as changed.

    Args:
        table: with the columns ``key, size, etag, modified``.
        previous: the same of an earlier state; None: there was none.

    Returns:
        int64 ``(N,)``: the row of ``previous``, or -1 where the object is new or has changed.

    Example:
        >>> before = pa.table({"key": ["a", "b"], "size": [1, 2], "etag": ["x", "y"], "modified": [0.0, 0.0]})
        >>> now = pa.table({"key": ["b", "a", "c"], "size": [2, 9, 3], "etag": ["y", "x", "z"], "modified": [0.0] * 3})
        >>> unchanged_rows(now, before).tolist()
        [1, -1, -1]
    """
    if previous is None or not previous.num_rows or not {"key", "size", "etag", "modified"} <= {*previous.column_names}:
        return np.full(table.num_rows, -1, np.int64)
    # combine_chunks: index_in and take see one array; types may differ where a column is all null.
    keys = previous.column("key").cast(pa.string()).combine_chunks()
    rows = pc.index_in(table.column("key").cast(pa.string()), value_set=keys)  # pyright: ignore[reportAttributeAccessIssue]
    before = previous.select(["size", "etag", "modified"]).take(rows)
    same_etag = _equal(table, before, "etag")
    # Where one of the two has no etag the comparison is null: the time decides.
    same_content = np.where(same_etag.is_null(), _true(_equal(table, before, "modified")), _true(same_etag))
    found = rows.fill_null(-1).to_numpy().astype(np.int64)
    return np.where(_true(_equal(table, before, "size")) & same_content, found, -1)


def _equal(left: pa.Table, right: pa.Table, name: str) -> pa.ChunkedArray:
    kind = _SCHEMA.field(name).type
    return pc.equal(left.column(name).cast(kind), right.column(name).cast(kind))  # pyright: ignore[reportAttributeAccessIssue]


def _true(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    return values.fill_null(fill_value=False).to_numpy()
