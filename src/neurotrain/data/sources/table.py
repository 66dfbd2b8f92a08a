"""Files that a table names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from neurotrain.data.index import listing_table
from neurotrain.data.sources.base import SourceError
from neurotrain.data.sources.pairing import object_columns
from neurotrain.data.sources.rows import RowSource
from neurotrain.storage.base import Storage


class TableSource(RowSource):
    r"""Samples that are the rows of a CSV, TSV, JSONL or Parquet table, in its order.

    A row names its image, and where there are columns for them its mask, validity mask and conditioning files, by their
    keys; the table's other columns are kept in the index and in the samples. Rows of one image are told apart as ``a``,
    ``a#2``, unless a column holds their ids.

    Args:
        name: of the source.
        storage: holds the files.
        table: key of the table.
        tables: storage of the table; None: the one of the files.
        columns: name of a column by role: ``image``, ``mask`` or ``mask/<label>``, ``valid``, ``conditioning/<name>``,
            ``id``, ``caption`` (texts or lists of them), ``label`` (numbers or names), ``split``; None: the column
            ``image``.
        folder: put before the keys that the table has.
        classes: names of the labels, in their order; None: those that are found, sorted.
        default_caption: of rows without one; None makes that an error.
        verify: list ``folder``, so that files that are not there are told now, and sizes and etags are known.
        index_dir: folder of the index; None: it is built at each start and kept in memory.
        refresh: look for changes at each start; see :class:`~neurotrain.data.sources.indexed.IndexedSource`.
        dimensions: read each new image's header for ``width``, ``height`` and ``frames``.
        threads: objects that are read at once while the index is built.

    Raises:
        ValueError: if a role or the table's ending is unknown, or settings contradict each other.

    Example:
        >>> from neurotrain.storage import MemoryStorage
        >>> storage = MemoryStorage(name="table-example")
        >>> _ = storage.write("photos/a.jpg", b"jpeg")
        >>> _ = storage.write("list.csv", b"file,text,year\na.jpg,A fox.,2019\n")
        >>> columns = {"image": "file", "caption": "text"}
        >>> source = TableSource(name="toy", storage=storage, table="list.csv", columns=columns, folder="photos")
        >>> source.setup()
        >>> dict(source.read(0).fields)
        {'image': b'jpeg', 'caption': 'A fox.', 'year': 2019}
    """

    def __init__(
        self,
        *,
        name: str,
        storage: Storage,
        table: str,
        tables: Storage | None = None,
        columns: Mapping[str, str] | None = None,
        folder: str = "",
        classes: Sequence[str] | None = None,
        default_caption: str | None = None,
        verify: bool = True,
        index_dir: Path | None = None,
        refresh: bool = True,
        dimensions: bool = False,
        threads: int = 8,
    ) -> None:
        super().__init__(
            name=name,
            storage=storage,
            table=table,
            tables=storage if tables is None else tables,
            columns=columns,
            classes=classes,
            default_caption=default_caption,
            index_dir=index_dir,
            refresh=refresh,
            dimensions=dimensions,
            threads=threads,
        )
        self._folder = f"{folder.strip('/')}/" if folder.strip("/") else ""
        self._verify = verify

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "folder": self._folder, "verify": self._verify}

    def _listing(self) -> pa.Table:
        """The table's own row first, then the files'."""
        own = super()._listing()
        return pa.concat_tables([own, listing_table(self.storage.list(self._folder))]) if self._verify else own

    def _build(self, listing: pa.Table, previous: pa.Table | None) -> pa.Table:
        return self._with_files(self._entries(), listing.slice(1))

    def _with_files(self, entries: pa.Table, listing: pa.Table) -> pa.Table:
        """Replace each column of file names by the columns of its objects."""
        rows = {key: row for row, key in enumerate(listing.column("key").to_pylist())}
        columns: dict[str, pa.ChunkedArray | pa.Array] = {"id": entries.column("id")}
        problems: list[str] = []
        for field in self.fields:
            names = object_columns(field, first=self.first)
            keys = [self._folder + name for name in entries.column(field).to_pylist()]
            found = [rows.get(key) for key in keys]
            if self._verify:
                missing = (row for row, number in enumerate(found) if number is None)
                problems += [f"{self.storage.uri_of(keys[row])}: missing, named in row {row + 1}" for row in missing]
            taken = listing.take(pa.array(found, pa.int64()))
            columns |= {column: taken.column(part) for part, column in names.items()}
            columns[names["key"]] = pa.array(keys, pa.string())
        if problems:
            raise SourceError(f"source {self.name!r}", problems)
        others = [name for name in entries.column_names if name not in ("id", *self.fields)]
        return pa.table({**columns, **{name: entries.column(name) for name in others}})
