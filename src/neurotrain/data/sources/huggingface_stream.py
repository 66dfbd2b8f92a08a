"""Hugging Face datasets as a stream: nothing is downloaded ahead."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from neurotrain.data.sources.arrow_fields import ArrowFields
from neurotrain.data.sources.base import RawSample
from neurotrain.data.sources.columns import Column, Filter, filter_expression, match_columns
from neurotrain.data.sources.huggingface import builder_reads_parquet, check_split
from neurotrain.data.sources.huggingface_files import is_local, local_files
from neurotrain.data.sources.sharded_stream import ShardedStream, Sharing
from neurotrain.data.sources.tar_members import ShardError
from neurotrain.storage import ObjectNotFoundError, TransientError

_ROWS = 64
"""Rows decoded at once."""


class HuggingFaceStream(ShardedStream):
    """One split, streamed by ``datasets``; images stay the bytes that they are stored as.

    The shuffle buffer is ours: that of ``datasets`` is lost on resume. See
    :class:`~neurotrain.data.sources.sharded_stream.ShardedStream` for order, readers and resuming; a shard is a file.

    Args:
        name: of the source.
        path: id on the hub (``owner/name``), or a folder with Parquet files.
        revision: commit on the hub, 40 digits.
        subset: configuration of the dataset, where it has several.
        split: which; None where a folder has only one.
        columns: field: name of its column, as for :class:`~neurotrain.data.sources.huggingface.HuggingFaceSource`.
        filters: all to be met; Parquet files are tested by their statistics first.
        seed: of the order of shards and of the buffer.
        shuffle_shards: draw the order of shards for each epoch.
        shuffle_buffer: samples to draw from; 1 keeps the order.
        sharing: how readers share.

    Raises:
        ValueError: if a setting is out of range, or ``path`` is no folder and no pinned dataset of the hub.
    """

    def __init__(
        self,
        *,
        name: str,
        path: str,
        revision: str | None = None,
        subset: str | None = None,
        split: str | None = None,
        columns: Mapping[str, str] | None = None,
        filters: Sequence[Filter] = (),
        seed: int = 0,
        shuffle_shards: bool = True,
        shuffle_buffer: int = 1000,
        sharing: Sharing = "shards",
    ) -> None:
        super().__init__(
            name=name, seed=seed, shuffle_shards=shuffle_shards, shuffle_buffer=shuffle_buffer, sharing=sharing
        )
        self._local = is_local(path, revision=revision, name=name)
        check_split(split, local=self._local, name=name)
        self._path, self._revision, self._subset, self._split = path, revision, subset, split
        self._given, self._filters = columns, tuple(filters)
        self._opened: Any = None
        self._process = -1

    def shard_count(self) -> int:
        """Number of files; finds them on first use.

        Raises:
            ValueError: if there is no such subset or split.
            StorageError: if the hub has no such dataset, or cannot be reached.
        """
        return int(self._dataset().num_shards)

    def __getstate__(self) -> dict[str, object]:
        """All but what is open."""
        return {**self.__dict__, "_opened": None}

    def _identity(self) -> str:
        where = f"{self._path}@{self._revision}" if self._revision else Path(self._path).name
        columns = None if self._given is None else sorted(self._given.items())
        chosen = (self._subset, self._split, columns, self._filters)
        return f"{where} {chosen} shards={self.shard_count()}"

    def _dataset(self) -> Any:  # noqa: ANN401 - datasets is imported where it is used
        if self._opened is None or self._process != os.getpid():  # connections do not survive a fork
            self._opened, self._process = self._open(), os.getpid()
        return self._opened

    def _open(self) -> Any:  # noqa: ANN401
        try:
            return self._filtered() if self._filters else self._streamed({})
        except FileNotFoundError as error:
            raise ObjectNotFoundError(self._uri(), str(error)) from error
        except ConnectionError as error:
            raise TransientError(self._uri(), str(error)) from error
        except pa.ArrowException as error:
            raise ShardError(f"{self._uri()}: truncated or corrupted: {error}") from error
        except RuntimeError as error:  # a dataset that wants to run code
            raise ValueError(f"{self._uri()}: {error}") from error

    def _filtered(self) -> Any:  # noqa: ANN401
        plain = self._streamed({})
        first = next(iter(plain.with_format("arrow").iter(batch_size=1)), None)
        if first is None:
            raise ValueError(f"{self.name}: {self._uri()} has no rows")
        return self._streamed({"filters": filter_expression(first.schema, self._filters, subject=self.name)})

    def _streamed(self, settings: dict[str, Any]) -> Any:  # noqa: ANN401
        import datasets

        if self._local:
            folder = Path(self._path).expanduser()
            kind, paths = local_files(folder, subset=self._subset, split=self._split, name=self.name)
            files = {"all": [str(path) for path in paths]}
            if kind == "arrow" and settings:
                raise ValueError(f"{self.name}: filters need Parquet files, {self._uri()} holds Arrow files")
            builder = datasets.load_dataset_builder(kind, data_files=files, **settings)
            return builder.as_streaming_dataset(split="all")
        builder = datasets.load_dataset_builder(self._path, name=self._subset, revision=self._revision)
        if settings:
            if not builder_reads_parquet(builder):
                raise ValueError(f"{self.name}: filters need Parquet files, which {self._uri()} is not made of")
            builder = datasets.load_dataset_builder(self._path, name=self._subset, revision=self._revision, **settings)
        return builder.as_streaming_dataset(split=self._split)

    def _uri(self) -> str:
        if self._local:
            return f"file://{Path(self._path).expanduser().absolute()}"
        return f"hf://datasets/{self._path}@{(self._revision or '')[:7]}/{self._split}"

    def _read_shard(self, shard: int, first: int) -> Iterator[RawSample]:
        dataset = self._dataset()
        rows = dataset.shard(num_shards=dataset.num_shards, index=shard)
        uri, number = f"{self._uri()}#{shard}", first
        for table in self._tables(rows.skip(first) if first else rows, uri=uri):
            fields = ArrowFields(table=table, columns=self._columns(table.schema))
            for row in range(table.num_rows):
                place = f"{uri}:{number}"
                values = fields.read(row, uri=place)
                number += 1
                yield RawSample(id=f"{shard}:{number - 1}", source=self.name, uri=place, fields=values)

    def _tables(self, rows: Any, *, uri: str) -> Iterator[pa.Table]:  # noqa: ANN401
        """Rows as they are stored: in Arrow's format no image is decoded."""
        tables = rows.with_format("arrow").iter(batch_size=_ROWS)
        while True:
            try:
                table = next(tables, None)
            except (pa.ArrowException, OSError) as error:
                raise ShardError(f"{uri}: truncated or corrupted: {error}") from error
            if table is None:
                return
            yield table

    def _columns(self, schema: pa.Schema) -> dict[str, Column]:
        return match_columns(schema, self._given, subject=f"{self.name}: {self._uri()}")
