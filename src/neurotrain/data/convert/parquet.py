"""Parquet files as the Hugging Face hub has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from neurotrain.data.convert.entries import Entry
from neurotrain.data.convert.writer import Writer
from neurotrain.data.datasets.decoding import EXTENSIONS

GROUP_BYTES = 8 * 2**20
"""Bytes of a row group: what is decoded at once to read one row."""

_FILE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


class ParquetWriter(Writer):
    """``data/train-00000-of-00002.parquet`` and so on, images as ``datasets`` stores them: ``{bytes, path}``.

    Args:
        folder: empty.
        shard_bytes: of files, above which the next file begins.
        class_names: of the labels, noted in the schema.
    """

    def __init__(self, *, folder: Path, shard_bytes: int, class_names: Sequence[str] | None) -> None:
        super().__init__(folder=folder)
        self._shard_bytes, self._class_names = shard_bytes, class_names
        self._writer: pq.ParquetWriter | None = None
        self._schema: pa.Schema | None = None
        self._rows: list[dict[str, Any]] = []
        self._paths: dict[str, list[Path]] = {}
        self._split, self._group, self._held = "", 0, 0

    def add(self, entry: Entry) -> None:
        """Add a row; it is written with its row group.

        Splits may differ in their columns: where a second observer drew on test images only, say. ``datasets`` reads
        such splits one by one, by ``data_files``.

        Raises:
            ValueError: if the sample has other fields than the first one of its split.
        """
        size = sum(len(content) for content in entry.files.values())
        if entry.split != self._split:
            self._finish()
            self._schema = None
        schema = self._schema = self._schema or _schema(entry, self._class_names)
        if self._writer is None or entry.split != self._split or self._held + self._group + size > self._shard_bytes:
            self._next(entry.split, schema)
        row = _row(entry)
        differ = sorted(row.keys() ^ set(schema.names))
        if differ:
            raise ValueError(
                f"sample {entry.id!r} and the first one of {entry.split!r} differ in the fields {differ}: "
                "a table has them all"
            )
        self._rows.append(row)
        self._group += size
        if self._group >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the last row group, and name the files by their number."""
        self._finish()
        paths_of, self._paths = self._paths, {}
        for split, paths in paths_of.items():
            for number, path in enumerate(paths):
                path.rename(path.with_name(f"{split}-{number:05d}-of-{len(paths):05d}.parquet"))

    def _next(self, split: str, schema: pa.Schema) -> None:
        self._finish()
        self._split, self._held = split, 0
        paths = self._paths.setdefault(split, [])
        path = self._folder / "data" / f"{split}-{len(paths):05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.append(path)
        # Files are compressed already, and no two are equal: neither packed nor looked up, their rows are read fast.
        files = {f"{item.name}.bytes" for item in schema if item.type == _FILE}
        texts = {f"{item.name}.path" if item.type == _FILE else item.name for item in schema}
        settings: dict[str, Any] = {  # which pyarrow annotates too narrowly
            "compression": dict.fromkeys(files, "none") | dict.fromkeys(texts, "zstd"),
            "use_dictionary": sorted(texts),
            "write_statistics": sorted(texts),
        }
        self._writer = pq.ParquetWriter(path, schema, write_page_checksum=True, **settings)

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows and self._writer is not None:
            try:
                table = pa.Table.from_pylist(rows, schema=self._schema)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise ValueError(f"values of one field are of different types: {error}") from error
            self._writer.write_table(table, row_group_size=len(rows))
        self._held, self._group = self._held + self._group, 0

    def _finish(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _row(entry: Entry) -> dict[str, Any]:
    files = {
        field: {"bytes": content, "path": f"{entry.name}.{entry.endings[field]}"}
        for field, content in entry.files.items()
    }
    return {"id": entry.id, **files, **entry.values}


def _schema(entry: Entry, class_names: Sequence[str] | None) -> pa.Schema:
    """Columns of the first sample's fields, and what ``datasets`` wants to know of them."""
    columns: dict[str, pa.DataType] = {"id": pa.string()}
    features: dict[str, Any] = {"id": {"dtype": "string", "_type": "Value"}}
    for field in entry.files:
        columns[field] = _FILE
        plain = {"bytes": {"dtype": "binary", "_type": "Value"}, "path": {"dtype": "string", "_type": "Value"}}
        features[field] = {"_type": "Image"} if f".{entry.endings[field]}" in EXTENSIONS else plain
    for field, value in entry.values.items():
        kind = "string" if isinstance(value, str) else "int64" if isinstance(value, int) else "float64"
        columns[field] = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64()}[kind]
        named = field == "label" and kind == "int64" and class_names is not None
        features[field] = (
            {"names": list(class_names or ()), "_type": "ClassLabel"} if named else {"dtype": kind, "_type": "Value"}
        )
    note = json.dumps({"info": {"features": features}})
    return pa.schema(columns, metadata={"huggingface": note})
