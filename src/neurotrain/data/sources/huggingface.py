"""Hugging Face datasets at random: from the hub, pinned to a commit, or from a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from neurotrain.data.sources.arrow_rows import ArrowRows
from neurotrain.data.sources.base import RawSample, SampleFormatError, Source
from neurotrain.data.sources.columns import Filter
from neurotrain.data.sources.huggingface_files import is_local, local_files
from neurotrain.data.sources.parquet import ParquetSource
from neurotrain.storage import LocalStorage, ObjectNotFoundError, TransientError


class HuggingFaceSource(Source):
    """One split of a dataset; images stay the bytes that they are stored as.

    From the hub, the split is downloaded and prepared once by ``datasets`` in ``cache_dir`` and memory-mapped. A folder
    is read where it lies: what ``save_to_disk`` wrote is mapped, Parquet files are read as by
    :class:`~neurotrain.data.sources.parquet.ParquetSource`. Code of a dataset is never run.

    Args:
        name: of the source.
        path: id on the hub (``owner/name``), or a folder.
        revision: commit on the hub, 40 digits; a branch could move under a run.
        subset: configuration of the dataset, where it has several.
        split: which; None where there is only one, or for a folder that was saved as one.
        columns: field: name of its column, dots lead into nested ones; an image's struct stands for its bytes. None
            takes columns of usual names, see :func:`~neurotrain.data.sources.columns.match_columns`.
        filters: all to be met; on the hub's Parquet files they are tested before anything is prepared.
        id_column: column of texts or whole numbers, each there once, that are the ids; None makes them.
        table_columns: further columns of :meth:`table`, to weight or to balance by.
        cache_dir: of downloads and prepared data; None is the one of ``datasets``.

    Raises:
        ValueError: if ``path`` is no folder and no pinned dataset of the hub.
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
        id_column: str | None = None,
        table_columns: Sequence[str] = (),
        cache_dir: Path | None = None,
    ) -> None:
        super().__init__(name=name)
        self._local = is_local(path, revision=revision, name=name)
        check_split(split, local=self._local, name=name)
        if self._local and cache_dir is not None:
            raise ValueError(f"{name}: cache_dir={str(cache_dir)!r} has no effect: a folder is read where it lies")
        self._path, self._revision, self._subset, self._split = path, revision, subset, split
        self._columns, self._filters, self._table_columns = columns, tuple(filters), tuple(table_columns)
        self._id_column, self._cache_dir = id_column, cache_dir
        self._inner: ParquetSource | ArrowRows | None = None

    def setup(self) -> None:
        """Find the files, or have them downloaded and prepared.

        Raises:
            ValueError: if there is no such subset or split, or columns or filters do not fit.
            StorageError: if the hub has no such dataset, or cannot be reached.
            SampleFormatError: if a file is not whole.
        """
        if self._inner is None:
            inner = self._local_source() if self._local else self._hub_source()
            inner.setup()
            self._inner = inner

    def __len__(self) -> int:
        """Rows that the filters keep."""
        return len(self._ready())

    def read(self, index: int) -> RawSample:
        """Fetch a row.

        Raises:
            IndexError: if there is no such entry.
            StorageError: if a file cannot be read.
            SampleFormatError: if it is corrupted, or a field is null, as where only the path of an image is stored.
        """
        return self._ready().read(index)

    def table(self) -> pa.Table:
        """``id``, text and number fields, and ``table_columns``."""
        return self._ready().table()

    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes that ``label`` counts, where the dataset tells them."""
        return self._ready().class_names()

    def fingerprint(self) -> str:
        """Of the files, the columns and the filters."""
        return self._ready().fingerprint()

    def _ready(self) -> ParquetSource | ArrowRows:
        if self._inner is None:
            raise RuntimeError(f"{self.name}: call setup() first")
        return self._inner

    def _local_source(self) -> ParquetSource | ArrowRows:
        folder = Path(self._path).expanduser()
        kind, paths = local_files(folder, subset=self._subset, split=self._split, name=self.name)
        if kind == "arrow":
            return self._arrow_rows(paths, uri=f"file://{paths[0].parent.absolute()}")
        return ParquetSource(
            name=self.name,
            storage=LocalStorage(root=folder),
            files=[path.relative_to(folder).as_posix() for path in paths],
            columns=self._columns,
            filters=self._filters,
            id_column=self._id_column,
            table_columns=self._table_columns,
        )

    def _hub_source(self) -> ArrowRows:
        assert self._revision is not None
        assert self._split is not None
        uri = f"hf://datasets/{self._path}@{self._revision[:7]}/{self._split}"
        prepared = _prepared(
            self._path,
            revision=self._revision,
            subset=self._subset,
            split=self._split,
            filters=self._filters,
            cache_dir=self._cache_dir,
            uri=uri,
        )
        return self._arrow_rows(prepared, uri=uri)

    def _arrow_rows(self, paths: Sequence[Path], *, uri: str) -> ArrowRows:
        return ArrowRows(
            name=self.name,
            paths=paths,
            uri=uri,
            columns=self._columns,
            filters=self._filters,
            id_column=self._id_column,
            table_columns=self._table_columns,
        )


def check_split(split: str | None, *, local: bool, name: str) -> None:
    """Refuse a split that a dataset of the hub cannot be asked for.

    Raises:
        ValueError: if it is not given, or a slice or sum of splits.
    """
    if split is None and not local:
        raise ValueError(f"{name}: split=None: a dataset of the hub needs one, like 'train'")
    if split is not None and any(mark in split for mark in "[]+/"):
        raise ValueError(f"{name}: split={split!r}: the name of one split is expected; choose rows with filters")


def _prepared(
    path: str,
    *,
    revision: str,
    subset: str | None,
    split: str,
    filters: Sequence[Filter],
    cache_dir: Path | None,
    uri: str,
) -> list[Path]:
    """Arrow files of a split of the hub, downloaded and prepared where they are not."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    cache = None if cache_dir is None else str(cache_dir)
    try:
        builder = datasets.load_dataset_builder(path, name=subset, revision=revision, cache_dir=cache)
        if filters and builder_reads_parquet(builder):
            # Rows that do not count are left out while the files are prepared; ArrowRows tests what is left again.
            builder = datasets.load_dataset_builder(
                path, name=subset, revision=revision, cache_dir=cache, filters=list(filters)
            )
        builder.download_and_prepare()
        prepared = builder.as_dataset(split=split, in_memory=False)
    except (DatasetGenerationError, pa.ArrowException) as error:
        raise SampleFormatError(f"{uri}: cannot be prepared: {error.__cause__ or error}") from error
    except FileNotFoundError as error:
        raise ObjectNotFoundError(uri, str(error)) from error
    except ConnectionError as error:
        raise TransientError(uri, str(error)) from error
    except (ValueError, RuntimeError) as error:  # a subset or split that is not there, a dataset that wants to run code
        raise ValueError(f"{uri}: {error}") from error
    files = cast("list[dict[str, str]]", prepared.cache_files)  # its annotation says something else
    return [Path(file["filename"]) for file in files]


def builder_reads_parquet(builder: Any) -> bool:  # noqa: ANN401
    """Whether a builder of ``datasets`` reads Parquet, which can be filtered while it is read."""
    return type(builder).__module__ == "datasets.packaged_modules.parquet.parquet"
