"""What sources share whose samples are the rows of a user's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from neurotrain.data.index import listing_table
from neurotrain.data.sources.base import CHECKSUM, SourceError
from neurotrain.data.sources.indexed import IndexedSource
from neurotrain.data.sources.table_files import ending_of, missing_columns, read_table
from neurotrain.data.sources.table_rows import VALUES, checked_columns, entry_columns, file_id, is_file
from neurotrain.storage.base import Storage


class RowSource(IndexedSource):
    """Samples that are rows; a child says what the files are that they name.

    Args:
        name: of the source.
        storage: holds the files.
        table: key of the table.
        tables: storage of the table.
        columns: name of a column by role; None: the column ``image``.
        checksums: name of a column by algorithm.
        classes: names of the labels, in their order; None: those that are found, sorted.
        default_caption: of rows without one; None makes that an error.
        index_dir: folder of the index; None: it is built at each start and kept in memory.
        refresh: look for changes at each start.
        dimensions: read each new image's header.
        threads: objects that are read at once while the index is built.

    Raises:
        ValueError: if a role or the table's ending is unknown, or settings contradict each other.
    """

    def __init__(
        self,
        *,
        name: str,
        storage: Storage,
        table: str,
        tables: Storage,
        columns: Mapping[str, str] | None,
        checksums: Mapping[str, str] | None = None,
        classes: Sequence[str] | None,
        default_caption: str | None,
        index_dir: Path | None,
        refresh: bool,
        dimensions: bool,
        threads: int,
    ) -> None:
        super().__init__(
            name=name, storage=storage, index_dir=index_dir, refresh=refresh, dimensions=dimensions, threads=threads
        )
        ending_of(table)
        self._table_key = table
        self._tables = tables
        self._columns = checked_columns(columns, first=self.first)
        self._checksums = dict(checksums or {})
        self._classes = None if classes is None else tuple(classes)
        self._default_caption = default_caption
        for role, key, value in (("label", "classes", classes), ("caption", "default_caption", default_caption)):
            if value is not None and role not in self._columns:
                raise ValueError(f"{key}={value!r} has no effect: columns has no {role!r}")

    @property
    def fields(self) -> tuple[str, ...]:
        """``image`` and the other files that a row names."""
        return tuple(role for role in self._columns if is_file(role))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels, in their order; empty where labels are numbers or there are none.

        Raises:
            RuntimeError: before :meth:`setup`, where they are to be found.
        """
        if self._classes is not None:
            return self._classes
        table = self.table()
        names = table.column("label_name").unique().to_pylist() if "label_name" in table.column_names else []
        return tuple(sorted(name for name in names if name is not None))

    def _settings(self) -> dict[str, Any]:
        return {
            "table": [self._tables.identity, self._table_key],
            "columns": self._columns,
            "checksums": self._checksums,
            "classes": self._classes,
            "default_caption": self._default_caption,
        }

    def _listing(self) -> pa.Table:
        """The table's own file."""
        return listing_table([self._tables.stat(self._table_key)])

    def _entries(self, make_id: Callable[[str], str] = file_id) -> pa.Table:
        """The table with the columns of an index; files are as it has them."""
        subject = f"source {self.name!r} ({self._tables.uri_of(self._table_key)})"
        texts = {role for role in self._columns if is_file(role) or role in VALUES} - {"label"}
        text = [column for role, column in self._columns.items() if role in texts]
        sums = list(self._checksums.values())
        rows = read_table(self._tables.read(self._table_key), key=self._table_key, text=[*text, *sums])
        if problems := missing_columns(rows, self._checksums):
            raise SourceError(subject, problems)
        entries = entry_columns(
            rows.drop_columns([column for column in sums if column not in self._columns.values()]),
            self._columns,
            first=self.first,
            classes=self._classes,
            default_caption=self._default_caption,
            subject=subject,
            make_id=make_id,
        )
        for algorithm, column in self._checksums.items():
            entries = entries.append_column(f"{CHECKSUM}{algorithm}", rows.column(column))
        return entries
