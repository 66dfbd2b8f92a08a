"""Rows of Arrow files on a local disk, as ``datasets`` keeps them: memory-mapped, nothing is converted."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa

from neurotrain.data.sources.arrow_fields import ArrowFields, extract, unique_ids
from neurotrain.data.sources.base import RawSample, SampleFormatError
from neurotrain.data.sources.class_names import noted_class_names
from neurotrain.data.sources.columns import (
    Filter,
    filter_columns,
    filter_expression,
    find_column,
    match_columns,
)

_EDGE = 64 * 2**10
"""Bytes at both ends of a file that its digest is of."""


class ArrowRows:
    """Rows of Arrow files in the format of files or of streams: ``id`` is the row's number in all of them.

    Args:
        name: of the source.
        paths: of the files, in order.
        uri: of all of them together, for messages.
        columns: field: name of its column; None takes columns of usual names.
        filters: all to be met.
        id_column: column of texts or whole numbers, each there once, that are the ids; None makes them.
        table_columns: further columns of :meth:`table`.
    """

    def __init__(
        self,
        *,
        name: str,
        paths: Sequence[Path],
        uri: str,
        columns: Mapping[str, str] | None = None,
        filters: Sequence[Filter] = (),
        id_column: str | None = None,
        table_columns: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._paths, self._uri = tuple(paths), uri
        self._given, self._filters, self._table_columns = columns, tuple(filters), tuple(table_columns)
        self._id_column = id_column
        self._rows: pa.Table | None = None
        self._ids: pa.Array | None = None
        self._fields: ArrowFields | None = None
        self._states: list[str] = []
        self._kept: np.ndarray | None = None

    def setup(self) -> None:
        """Map the files, and find the rows that meet the filters.

        Raises:
            ValueError: if columns or filters do not fit.
            SampleFormatError: if a file is no whole Arrow file, or the files differ in their columns.
        """
        if self._rows is not None:
            return
        rows = self._map()
        schema = rows.schema
        self._columns = match_columns(schema, self._given, subject=f"{self.name}: {self._uri}")
        self._listed = {
            name: find_column(schema, name, key=f"{self.name}: table_columns") for name in self._table_columns
        }
        self._kept = self._filtered(rows) if self._filters else None
        if self._id_column is not None:
            column = find_column(schema, self._id_column, key=f"{self.name}: id_column")
            values = extract(rows, {"id": column}).column("id")
            self._ids = unique_ids(values, subject=f"{self.name}: id_column={self._id_column!r}")
        self._use(rows)

    def __len__(self) -> int:
        """Rows that the filters keep."""
        rows = self._ready()
        return rows.num_rows if self._kept is None else len(self._kept)

    def read(self, index: int) -> RawSample:
        """Fetch a row.

        Raises:
            IndexError: if there is no such entry.
            SampleFormatError: if a field is null.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no entry {index}, there are {len(self)}")
        row = index if self._kept is None else int(self._kept[index])
        uri = f"{self._uri}#{row}"
        name = str(row) if self._ids is None else self._ids[row].as_py()
        assert self._fields is not None
        fields = self._fields.read(row, uri=uri)
        file = bisect_right(self._starts, row) - 1
        identity = {
            field: f"{self._states[file]}:{row - self._starts[file]}:{column.name}"
            for field, column in self._columns.items()
            if column.is_binary
        }
        return RawSample(id=name, source=self.name, uri=uri, fields=fields, identity=identity)

    def table(self) -> pa.Table:
        """``id``, text and number fields, and ``table_columns``."""
        rows = self._ready()
        wanted = {field: column for field, column in self._columns.items() if not column.is_binary}
        listed = extract(rows, {**wanted, **self._listed})
        ids = pa.array(np.arange(rows.num_rows)) if self._ids is None else self._ids
        whole = listed.add_column(0, "id", ids.cast(pa.string()))
        return whole if self._kept is None else whole.take(pa.array(self._kept))

    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes that ``label`` counts, where ``datasets`` noted them in the schema."""
        label = self._columns.get("label")
        return None if label is None else noted_class_names(self._ready().schema, label.name)

    def fingerprint(self) -> str:
        """Of the files' sizes, both ends and number of rows, the columns and the filters; not of their times."""
        self._ready()
        columns = [(field, column.path) for field, column in self._columns.items()]
        text = repr((self._digests, self._starts, columns, self._filters, self._id_column))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def __getstate__(self) -> dict[str, object]:
        """All but what is mapped: another process maps it again."""
        return {**self.__dict__, "_rows": None, "_fields": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Map the files again where the source was set up."""
        vars(self).update(state)
        if self._states:
            rows = self._map()
            if self._states != state["_states"]:
                raise SampleFormatError(f"{self._uri}: changed while it was handed to another process")
            self._use(rows)

    def _ready(self) -> pa.Table:
        if self._rows is None:
            raise RuntimeError(f"{self.name}: call setup() first")
        return self._rows

    def _use(self, rows: pa.Table) -> None:
        self._rows, self._fields = rows, ArrowFields(table=rows, columns=self._columns)

    def _map(self) -> pa.Table:
        tables = [_mapped(path) for path in self._paths]
        for path, table in zip(self._paths, tables, strict=True):
            if not table.schema.equals(tables[0].schema):
                raise SampleFormatError(f"{path}: has other columns than {self._paths[0].name}")
        self._starts = list(accumulate((table.num_rows for table in tables), initial=0))
        self._digests = [_digest(path) for path in self._paths]
        self._states = [
            f"{digest}:{path.stat().st_mtime_ns:x}" for digest, path in zip(self._digests, self._paths, strict=True)
        ]
        return pa.concat_tables(tables)

    def _filtered(self, rows: pa.Table) -> np.ndarray:
        expression = filter_expression(rows.schema, self._filters, subject=self.name)
        names = {name.partition(".")[0] for name in filter_columns(rows.schema, self._filters, subject=self.name)}
        assert expression is not None
        number = "number of the row"
        looked_at = rows.select(sorted(names & set(rows.column_names)))
        kept = looked_at.append_column(number, pa.array(np.arange(rows.num_rows))).filter(expression)
        if not kept.num_rows:
            raise ValueError(f"{self.name}: filters={self._filters}: none of {rows.num_rows} rows meets them")
        return kept.column(number).to_numpy()


def _mapped(path: Path) -> pa.Table:
    try:
        mapped = pa.memory_map(str(path))
        with mapped:
            is_file = mapped.read(6) == b"ARROW1"
        reader = pa.ipc.open_file if is_file else pa.ipc.open_stream
        table = reader(pa.memory_map(str(path))).read_all()
        table.validate()
    except (pa.ArrowException, OSError) as error:
        raise SampleFormatError(f"{path}: no whole Arrow file: {error}") from error
    return table


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest.update(str(size).encode())
        for start in (0, max(0, size - _EDGE)):
            file.seek(start)
            digest.update(file.read(_EDGE))
    return digest.hexdigest()
