"""Parquet files with embedded images, anywhere a storage reaches."""

from __future__ import annotations

import hashlib
import warnings
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neurotrain.data.sources.arrow_fields import extract, unique_ids
from neurotrain.data.sources.base import RawSample, Source
from neurotrain.data.sources.class_names import folder_class_names, noted_class_names
from neurotrain.data.sources.columns import (
    Column,
    Filter,
    filter_columns,
    filter_expression,
    find_column,
    match_columns,
)
from neurotrain.data.sources.objects import find_objects
from neurotrain.data.sources.parquet_filters import matching_rows
from neurotrain.data.sources.parquet_footer import ParquetFooter, read_footers
from neurotrain.data.sources.parquet_groups import RowGroups, read_columns
from neurotrain.storage import Storage


class ParquetSource(Source):
    """Rows of Parquet files at random: ``id`` is the file's key without its ending, a colon, and the row in the file.

    Only footers are read to count the rows, only the columns of fields and filters ever. A row is read by decoding its
    row group, which is then kept: in memory up to ``cache_bytes`` for each process, or for good in ``decoded_dir``,
    from where it is memory-mapped. For more data than memory and a random order, the latter is the fast way.

    Args:
        name: of the source.
        storage: holds the files.
        files: keys or patterns of them, see :func:`~neurotrain.data.sources.objects.find_objects`.
        columns: field: name of its column, dots lead into nested ones; a struct with a child ``bytes`` stands for it.
            None takes columns of usual names, see :func:`~neurotrain.data.sources.columns.match_columns`.
        filters: all to be met; row groups that cannot meet them are told by their statistics.
        id_column: column of texts or whole numbers, each there once, that are the ids; None makes them.
        table_columns: further columns of :meth:`table`, to weight or to balance by.
        cache_bytes: decoded row groups kept in memory by each process.
        decoded_dir: folder on a local disk for decoded row groups; None keeps them in memory only.
        largest_group: bytes that a row group may decode to; a larger one is refused before it fills the memory.

    Raises:
        ValueError: if a setting is out of range.

    Example:
        >>> import pyarrow.parquet as pq
        >>> from tempfile import TemporaryDirectory
        >>> from neurotrain.storage import LocalStorage
        >>> with TemporaryDirectory() as folder:
        ...     pq.write_table(pa.table({"image": [b"GIF89a", b"GIF87a"], "label": [3, 1]}), f"{folder}/toy.parquet")
        ...     source = ParquetSource(name="toy", storage=LocalStorage(root=folder), filters=[("label", "<", 2)])
        ...     source.setup()
        ...     sample = source.read(0)
        >>> len(source), sample.id, dict(sample.fields)
        (1, 'toy:1', {'image': b'GIF87a', 'label': 1})
    """

    def __init__(
        self,
        *,
        name: str,
        storage: Storage,
        files: str | Sequence[str] = "*.parquet",
        columns: Mapping[str, str] | None = None,
        filters: Sequence[Filter] = (),
        id_column: str | None = None,
        table_columns: Sequence[str] = (),
        cache_bytes: int = 256 * 2**20,
        decoded_dir: Path | None = None,
        largest_group: int = 4 * 2**30,
    ) -> None:
        super().__init__(name=name)
        if cache_bytes < 1:
            raise ValueError(f"cache_bytes={cache_bytes}: at least one row group is always kept, give what it may take")
        if largest_group < 1:
            raise ValueError(f"largest_group={largest_group}: bytes, at least 1")
        self._storage, self._largest_group = storage, largest_group
        self._files = files
        self._given = columns
        self._filters = tuple(filters)
        self._id_column, self._table_columns = id_column, tuple(table_columns)
        self._cache_bytes, self._decoded_dir = cache_bytes, decoded_dir
        self._footers: list[ParquetFooter] | None = None
        self._table: pa.Table | None = None

    def setup(self) -> None:
        """Read the footers and, where there are filters, the columns that they look at.

        Raises:
            ValueError: if no file matches, or columns or filters do not fit the files.
            StorageError: if a file cannot be read.
            SampleFormatError: if a file is no whole Parquet file.
        """
        if self._footers is not None:
            return
        footers = read_footers(self._storage, find_objects(self._storage, self._files, key=f"{self.name}: files"))
        self._columns = self._matched(footers)
        # Where a row group begins in all rows, and whose it is.
        self._groups = [(file, group) for file, footer in enumerate(footers) for group in range(len(footer.rows))]
        self._starts = list(accumulate((n for footer in footers for n in footer.rows), initial=0))
        self._file_starts = list(accumulate((sum(footer.rows) for footer in footers), initial=0))
        self._kept = self._filtered(footers) if self._filters else None
        self._stems = [footer.key.removesuffix(".parquet") for footer in footers]
        self._binary = {field: column.name for field, column in self._columns.items() if column.is_binary}
        self._given_ids = None if self._id_column is None else self._ids_of(footers, self._id_column)
        self._decoded = RowGroups(
            storage=self._storage,
            footers=footers,
            columns=self._columns,
            cache_bytes=self._cache_bytes,
            decoded_dir=self._decoded_dir,
            largest_group=self._largest_group,
        )
        self._warn_of_thrashing(footers)
        self._footers = footers

    def __len__(self) -> int:
        """Rows that the filters keep."""
        self._ready()
        return self._starts[-1] if self._kept is None else len(self._kept)

    def read(self, index: int) -> RawSample:
        """Fetch a row, and decode its row group where that is not at hand.

        Raises:
            IndexError: if there is no such entry.
            StorageError: if the file cannot be read.
            SampleFormatError: if the row group is corrupted, or a field is null.
        """
        footers = self._ready()
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no entry {index}, there are {len(self)}")
        row = index if self._kept is None else int(self._kept[index])
        number = bisect_right(self._starts, row) - 1
        file, group = self._groups[number]
        row_of_file = row - self._file_starts[file]
        uri = f"{footers[file].uri}#{row_of_file}"
        fields = self._decoded.fields(file, group).read(row - self._starts[number], uri=uri)
        digest = footers[file].digest
        return RawSample(
            id=f"{self._stems[file]}:{row_of_file}" if self._given_ids is None else self._given_ids[row].as_py(),
            source=self.name,
            uri=uri,
            fields=fields,
            identity={field: f"{digest}:{row_of_file}:{column}" for field, column in self._binary.items()},
        )

    def table(self) -> pa.Table:
        """``id``, ``row_group`` (rows of one are cheap to read together), text and number fields, ``table_columns``."""
        if self._table is None:
            footers = self._ready()
            wanted = {field: column for field, column in self._columns.items() if not column.is_binary}
            for name in self._table_columns:
                wanted[name] = find_column(footers[0].schema, name, key=f"{self.name}: table_columns")
            ids = self._made_ids(footers) if self._given_ids is None else self._given_ids.cast(pa.string())
            everything = pa.table({"id": ids, "row_group": self._group_of_rows()})
            for name, values in self._whole_columns(footers, wanted).items():
                everything = everything.append_column(name, values)
            self._table = everything if self._kept is None else everything.take(pa.array(self._kept))
        return self._table

    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes that ``label`` counts.

        As ``datasets`` notes them in the schema; else, where images carry a path and every label has one folder of its
        own, as in ``truck/0770.jpg``, the names of the folders; else None.
        """
        footers = self._ready()
        label, image = self._columns.get("label"), self._columns.get("image")
        if label is None or not pa.types.is_integer(label.type):
            return None
        noted = noted_class_names(footers[0].schema, label.name)
        if noted is not None or image is None or image.path[-1] != "bytes":
            return noted
        try:
            path = find_column(footers[0].schema, ".".join([*image.path[:-1], "path"]), key="path")
        except ValueError:
            return None
        whole = self._whole_columns(footers, {"label": label, "path": path})
        return folder_class_names(whole["label"], whole["path"])

    def fingerprint(self) -> str:
        """Of the keys, sizes and footers of the files, the columns and the filters."""
        footers = self._ready()
        files = [(footer.key, footer.digest) for footer in footers]
        columns = [(field, column.path) for field, column in self._columns.items()]
        text = repr((files, columns, self._filters, self._id_column))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def __getstate__(self) -> dict[str, object]:
        """All but the table, which is read again where it is needed."""
        return {**self.__dict__, "_table": None}

    def _ready(self) -> list[ParquetFooter]:
        if self._footers is None:
            raise RuntimeError(f"{self.name}: call setup() first")
        return self._footers

    def _matched(self, footers: Sequence[ParquetFooter]) -> dict[str, Column]:
        columns = match_columns(footers[0].schema, self._given, subject=f"{self.name}: {footers[0].uri}")
        names = [column.name for column in columns.values()] + list(self._table_columns)
        names += filter_columns(footers[0].schema, self._filters, subject=f"{self.name}: {footers[0].uri}")
        types = {name: find_column(footers[0].schema, name, key=f"{self.name}: table_columns").type for name in names}
        for footer in footers[1:]:
            for name, expected in types.items():
                found = find_column(footer.schema, name, key=f"{self.name}: {footer.uri}").type
                if found != expected:
                    first = footers[0].uri
                    raise ValueError(f"{self.name}: {footer.uri}: {name!r} is {found}, but {expected} in {first}")
        return columns

    def _filtered(self, footers: Sequence[ParquetFooter]) -> np.ndarray:
        """Numbers of the rows that meet the filters, in all rows of all files."""
        schema = footers[0].schema
        expression = filter_expression(schema, self._filters, subject=self.name)
        names = filter_columns(schema, self._filters, subject=self.name)
        assert expression is not None
        kept = [
            self._file_starts[file] + matching_rows(self._storage, footer, expression=expression, columns=names)
            for file, footer in enumerate(footers)
        ]
        rows = np.concatenate(kept)
        if not len(rows):
            raise ValueError(f"{self.name}: filters={self._filters}: none of {self._starts[-1]} rows meets them")
        return rows

    def _ids_of(self, footers: Sequence[ParquetFooter], name: str) -> pa.Array:
        column = find_column(footers[0].schema, name, key=f"{self.name}: id_column")
        values = self._whole_columns(footers, {"id": column})["id"]
        return unique_ids(values, subject=f"{self.name}: id_column={name!r}")

    def _made_ids(self, footers: Sequence[ParquetFooter]) -> pa.ChunkedArray:
        counts = [sum(footer.rows) for footer in footers]
        parts = [
            pc.call_function(
                "binary_join_element_wise", [pa.scalar(stem), pa.array(range(count)).cast(pa.string()), ":"]
            )
            for stem, count in zip(self._stems, counts, strict=True)
        ]
        return pa.chunked_array(parts)

    def _group_of_rows(self) -> pa.Array:
        return pa.array(np.repeat(np.arange(len(self._groups), dtype=np.int32), np.diff(self._starts)))

    def _whole_columns(
        self, footers: Sequence[ParquetFooter], columns: Mapping[str, Column]
    ) -> dict[str, pa.ChunkedArray]:
        names = [column.name for column in columns.values()]
        if not names:
            return {}
        groups = [range(len(footer.rows)) for footer in footers]
        tables = [
            extract(read_columns(self._storage, footer, columns=names, groups=numbers), columns)
            for footer, numbers in zip(footers, groups, strict=True)
        ]
        whole = pa.concat_tables(tables)
        return {name: whole.column(name) for name in columns}

    def _warn_of_thrashing(self, footers: Sequence[ParquetFooter]) -> None:
        total = sum(footer.stored_bytes([column.name for column in self._columns.values()]) for footer in footers)
        if self._decoded_dir is None and total > self._cache_bytes:
            warnings.warn(
                f"{self.name}: {total / 2**20:.0f} MiB decoded do not fit cache_bytes ({self._cache_bytes / 2**20:.0f} "
                "MiB): in a random order row groups are decoded again and again; give decoded_dir",
                stacklevel=2,
            )
