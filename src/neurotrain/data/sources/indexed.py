"""What sources share whose samples are objects of one storage, found by a manifest."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from neurotrain.data.index import (
    HeaderError,
    ImageHeader,
    Manifest,
    open_manifest,
    read_header,
    read_parallel,
    table_fingerprint,
    unchanged_rows,
)
from neurotrain.data.sources.arrow_fields import ArrowFields
from neurotrain.data.sources.base import INDEX_ONLY, LISTED, Field, RawSample, SampleFormatError, Source
from neurotrain.data.sources.columns import Column
from neurotrain.data.sources.pairing import object_columns
from neurotrain.storage.base import Storage

_LOGGER = logging.getLogger(__name__)
_VERSION = 1
"""Of what an index holds: an older one is built again."""

_PLACE = ("uri", "etag", "modified")
"""Endings of the columns that say where and when an object was written: not part of what the entries are."""


class IndexedSource(Source):
    """Samples that are objects of one storage.

    The index lies in ``index_dir`` under a name made of the source's own and of its settings. At each start the storage
    is listed; where nothing has changed the index is mapped, else only new and changed objects are read again.

    Args:
        name: of the source.
        storage: holds the objects.
        index_dir: folder of the index; None: it is built at each start and kept in memory.
        refresh: list the storage at each start; False takes an index that is there as it is, and an object that has
            changed meanwhile is an error when it is read.
        dimensions: read each new image's header for ``width``, ``height`` and ``frames``.
        threads: objects that are read at once while the index is built.

    Raises:
        ValueError: if ``refresh`` is False and there is no ``index_dir``, or ``threads`` is below 1.
    """

    storage: Storage
    """Where its objects lie: here there always is one."""

    first = "image"
    """Field whose object gives a row its ``key``, ``uri``, ``size`` and ``etag``."""

    def __init__(
        self,
        *,
        name: str,
        storage: Storage,
        index_dir: Path | None = None,
        refresh: bool = True,
        dimensions: bool = False,
        threads: int = 8,
    ) -> None:
        super().__init__(name=name)
        if not refresh and index_dir is None:
            raise ValueError("refresh=False has no effect without index_dir: there is no index to take as it is")
        if threads < 1:
            raise ValueError(f"threads={threads}: must be at least 1")
        self.storage = storage  # pyright: ignore[reportIncompatibleVariableOverride] - narrower than the base's
        self.index_dir = None if index_dir is None else Path(index_dir).expanduser()
        self.refresh = refresh
        self.dimensions = dimensions
        self.threads = threads
        self._manifest: Manifest | None = None
        self._lookup: _Lookup | None = None

    @property
    @abstractmethod
    def fields(self) -> tuple[str, ...]:
        """Fields that are objects, the first one first."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """What the index depends on beside the listing, of plain values."""

    @abstractmethod
    def _listing(self) -> pa.Table:
        """Objects that may belong to a sample: ``key, size, etag, modified``."""

    @abstractmethod
    def _build(self, listing: pa.Table, previous: pa.Table | None) -> pa.Table:
        """The index, without ``uri`` and dimensions."""

    @property
    def index_path(self) -> Path | None:
        """File of the index, None where it is in memory."""
        if self.index_dir is None:
            return None
        plain = re.sub(r"[^\w.-]", "_", self.name)
        return self.index_dir / f"{plain}-{self._digest()}.arrow"

    def setup(self) -> None:
        """Map the index, or build it.

        Raises:
            SourceError: lists what does not fit together.
            StorageError: if the storage cannot be listed or read.
        """
        if self._manifest is not None:
            return
        path, listing, stamp = self.index_path, None, None
        if self.refresh:
            listing = self._listing()
            stamp = table_fingerprint(listing)
        manifest = open_manifest(
            path,
            stamp=stamp,
            build=lambda previous: self._built(self._listing() if listing is None else listing, previous),
            identity=_identity_columns,
        )
        self._manifest = manifest
        where = "in memory" if path is None else str(path)
        _LOGGER.info("source %r: %d entries, index %s", self.name, manifest.table.num_rows, where)

    def __len__(self) -> int:
        """Number of entries."""
        return self.table().num_rows

    def table(self) -> pa.Table:
        """The index; see :class:`~neurotrain.data.sources.base.Source`."""
        return self._ready().table

    def fingerprint(self) -> str:
        """Identity of ids, keys, sizes, captions, labels and the user's columns, in their order.

        Where the objects lie and when they were written does not count, so that a copied folder is the same data.
        """
        return self._ready().fingerprint

    def read(self, index: int) -> RawSample:
        """Fetch the objects of one entry; see :class:`~neurotrain.data.sources.base.Source`."""
        if self._lookup is None:
            self._lookup = _Lookup(self.table(), self.fields, first=self.first)
        row = self._lookup.row(index)
        fields: dict[str, Field] = {}
        identity: dict[str, str] = {}
        for field, (key, size, etag) in row.objects.items():
            data, known = self._object(field, key, etag, index)
            fields[field] = checked_size(data, size, self.storage.uri_of(key))
            if (one := known or etag) is not None:
                identity[field] = one
        uri = self.storage.uri_of(row.objects[self.first][0])
        return RawSample(id=row.id, source=self.name, uri=uri, fields={**fields, **row.values}, identity=identity)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made again in a moment."""
        return {**self.__dict__, "_lookup": None}

    def _object(self, field: str, key: str, etag: str | None, index: int) -> tuple[bytes, str | None]:
        """Bytes of one entry's object, and what identifies them where the index does not."""
        # The object that was indexed or an error: what is cached of it goes by the etag.
        return self.storage.read(key, etag=etag), None

    def _ready(self) -> Manifest:
        if self._manifest is None:
            raise RuntimeError(f"source {self.name!r}: call setup() first")
        return self._manifest

    def _digest(self) -> str:
        settings = {
            "version": _VERSION,
            "class": type(self).__name__,
            "storage": self.storage.identity,
            "dimensions": self.dimensions,
            **self._settings(),
        }
        written = json.dumps(settings, sort_keys=True)
        return hashlib.blake2b(written.encode(), digest_size=8).hexdigest()

    def _built(self, listing: pa.Table, previous: pa.Table | None) -> pa.Table:
        table = self._build(listing, previous)
        uris = pa.array([self.storage.uri_of(key) for key in table.column("key").to_pylist()], pa.string())
        table = table.add_column(1, "uri", uris)
        if self.dimensions:
            table = _with_dimensions(table, previous, storage=self.storage, threads=self.threads)
        return table


def checked_size(data: bytes, size: int | None, uri: str) -> bytes:
    """Return ``data``.

    Raises:
        SampleFormatError: if it has not the size that the index says.
    """
    if size is not None and len(data) != size:
        raise SampleFormatError(f"{uri}: has {len(data)} bytes, the index says {size}: it has changed since")
    return data


class _Row:
    """One entry: its objects by field (key, size, etag), and its plain values."""

    __slots__ = ("id", "objects", "values")

    def __init__(self, identifier: str, objects: dict[str, tuple[str, int | None, str | None]]) -> None:
        self.id = identifier
        self.objects = objects
        self.values: dict[str, Field] = {}


class _Lookup:
    """Rows of a table by number, touching no column that no sample carries."""

    def __init__(self, table: pa.Table, fields: Sequence[str], *, first: str) -> None:
        self._length = table.num_rows
        named = {field: object_columns(field, first=first) for field in fields if field in (first, *table.column_names)}
        self._objects = {field: (names["key"], names["size"], names["etag"]) for field, names in named.items()}
        taken = {
            "id",
            "uri",
            "width",
            "height",
            "frames",
            *(name for names in named.values() for name in names.values()),
        }
        self._values = [
            name
            for name in table.column_names
            if name not in taken and not name.startswith(INDEX_ONLY) and _is_field(table.column(name).type)
        ]
        wanted = ["id", *(name for names in self._objects.values() for name in names), *self._values]
        # Where something is missing Arrow's own scalars tell; they cost more than what they hold.
        full = {name: table.schema.field(name).type for name in wanted if not table.column(name).null_count}
        self._full = ArrowFields(
            table=table, columns={name: Column(path=(name,), type=kind) for name, kind in full.items()}
        )
        self._gapped = {name: table.column(name) for name in wanted if name not in full}

    def row(self, index: int) -> _Row:
        if not 0 <= index < self._length:
            raise IndexError(f"entry {index} of {self._length}")
        found: dict[str, Any] = dict(self._full.read(index, uri=""))
        for name, column in self._gapped.items():
            found[name] = column[index].as_py()
        row = _Row(found["id"], {})
        for field, (key, size, etag) in self._objects.items():
            if found[key] is not None:
                row.objects[field] = (found[key], found[size], found[etag])
        for name in self._values:
            if found[name] is not None:
                row.values[name] = found[name]
        return row


def _is_field(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind) or types.is_floating(kind)


def _identity_columns(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if not any(name == e or name.endswith(f"_{e}") for e in _PLACE)]


def _with_dimensions(table: pa.Table, previous: pa.Table | None, *, storage: Storage, threads: int) -> pa.Table:
    """Add ``width``, ``height`` and ``frames``; only new and changed images are read, null where one is unreadable."""
    names = ("width", "height", "frames")
    known = previous is not None and {*names} <= {*previous.column_names}
    rows = unchanged_rows(table, previous if known else None)
    sizes = np.zeros((3, table.num_rows), np.int64)
    if previous is not None and known:
        kept = previous.select(names).take(pa.array(rows, mask=rows < 0))
        sizes = np.stack([kept.column(name).fill_null(0).to_numpy() for name in names])
    wanted = np.flatnonzero(rows < 0)
    keys = table.column("key").take(pa.array(wanted)).to_pylist()

    def header(key: str) -> ImageHeader | None:
        try:
            return read_header(lambda length: storage.read(key, length=length))
        except HeaderError:
            return None

    unreadable: list[str] = []
    for row, key, found in zip(
        wanted, keys, read_parallel(header, keys, threads=threads, label="headers"), strict=True
    ):
        if found is None:
            unreadable.append(key)
        else:
            sizes[:, row] = found.width, found.height, found.frames
    if unreadable:
        shown = ", ".join(unreadable[:LISTED]) + (", ..." if len(unreadable) > LISTED else "")
        _LOGGER.warning("%s: %d headers cannot be read: %s", storage.uri, len(unreadable), shown)
    for name, values in zip(names, sizes, strict=True):
        if name in table.column_names:  # a folder of frames knows how many there are
            continue
        table = table.append_column(name, pa.array(values, mask=values == 0))
    return table
