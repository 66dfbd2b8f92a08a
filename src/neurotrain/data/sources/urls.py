"""Images that a table names by their address in the web."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from neurotrain.data.index import read_parallel
from neurotrain.data.sources.base import CHECKSUM, LISTED, SampleFormatError, SourceError
from neurotrain.data.sources.downloads import DownloadCache
from neurotrain.data.sources.pairing import object_columns
from neurotrain.data.sources.rows import RowSource
from neurotrain.storage.base import Storage, StorageError

_LENGTHS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True, kw_only=True)
class DownloadReport:
    """What a download of everything did.

    Attributes:
        downloaded: objects that were fetched.
        present: objects that were there already.
        failed: address (without its query) and reason of each one that cannot be had.
        bytes: that were fetched.
    """

    downloaded: int
    present: int
    failed: tuple[tuple[str, str], ...]
    bytes: int

    def __str__(self) -> str:
        """The counts on one line, then the first failures."""
        lines = [f"{self.downloaded} downloaded ({self.bytes} bytes), {self.present} there, {len(self.failed)} failed"]
        lines += [f"  {uri}: {reason}" for uri, reason in self.failed[:LISTED]]
        if len(self.failed) > LISTED:
            lines.append(f"  ... and {len(self.failed) - LISTED} more")
        return "\n".join(lines)


class UrlTableSource(RowSource):
    """Samples that are the rows of a table of addresses, downloaded into a local folder on first use.

    ``web`` decides what may be asked: give a :class:`~neurotrain.storage.UrlStorage`, which speaks http and https only,
    refuses private and loopback addresses unless their host is named in ``allowed_hosts``, and checks redirects again.

    Args:
        name: of the source.
        web: takes addresses as keys.
        table: key of the CSV, TSV, JSONL or Parquet table.
        tables: storage of the table.
        cache_dir: folder for what is downloaded.
        columns: name of a column by role, as in :class:`~neurotrain.data.sources.table.TableSource`; those of files
            hold addresses. None: the column ``image``.
        sha256: column of the images' SHA-256 in hexadecimal digits; empty values are not checked.
        md5: likewise of MD5.
        classes: names of the labels, in their order; None: those that are found, sorted.
        default_caption: of rows without one; None makes that an error.
        index_dir: folder of the index; None: it is built at each start and kept in memory.
        refresh: look for changes of the table at each start.
        threads: objects that :meth:`download` fetches at once.

    Raises:
        ValueError: if a role or the table's ending is unknown, or settings contradict each other.
    """

    def __init__(
        self,
        *,
        name: str,
        web: Storage,
        table: str,
        tables: Storage,
        cache_dir: Path,
        columns: Mapping[str, str] | None = None,
        sha256: str | None = None,
        md5: str | None = None,
        classes: Sequence[str] | None = None,
        default_caption: str | None = None,
        index_dir: Path | None = None,
        refresh: bool = True,
        threads: int = 8,
    ) -> None:
        checksums = {key: column for key, column in (("sha256", sha256), ("md5", md5)) if column is not None}
        super().__init__(
            name=name,
            storage=web,
            table=table,
            tables=tables,
            columns=columns,
            checksums=checksums,
            classes=classes,
            default_caption=default_caption,
            index_dir=index_dir,
            refresh=refresh,
            dimensions=False,
            threads=threads,
        )
        self._cache = DownloadCache(folder=Path(cache_dir).expanduser(), storage=web)

    def download(self) -> DownloadReport:
        """Fetch everything that is not there yet, several objects at once; one that cannot be had costs only itself.

        Returns:
            Counts, and the reason of every failure; those are tried again when their sample is read.
        """
        table = self.table()
        wanted: dict[str, dict[str, str]] = {}
        for field in self.fields:
            for row, url in enumerate(table.column(object_columns(field, first=self.first)["key"]).to_pylist()):
                wanted.setdefault(url, {}).update(self._checksums_of(field, row))
        urls = list(wanted)

        def fetch(url: str) -> int | str:
            try:
                return self._cache.fetch(url, checksums=wanted[url])
            except StorageError as error:
                return error.reason
            except SampleFormatError as error:
                return str(error).removeprefix(f"{self.storage.uri_of(url)}: ")

        results = list(read_parallel(fetch, urls, threads=self.threads, label=f"download {self.name}"))
        sizes = [result for result in results if isinstance(result, int)]
        outcomes = zip(urls, results, strict=True)
        failed = [(self.storage.uri_of(url), result) for url, result in outcomes if isinstance(result, str)]
        fetched = sum(size > 0 for size in sizes)
        return DownloadReport(downloaded=fetched, present=len(sizes) - fetched, failed=tuple(failed), bytes=sum(sizes))

    def _object(self, field: str, key: str, etag: str | None, index: int) -> tuple[bytes, str | None]:
        data, digest = self._cache.read(key, checksums=self._checksums_of(field, index))
        return data, f"sha256:{digest}"

    def _checksums_of(self, field: str, index: int) -> dict[str, str]:
        if field != self.first:
            return {}
        table = self.table()
        found = {name: table.column(f"{CHECKSUM}{name}")[index].as_py() for name in self._checksums}
        return {name: digits for name, digits in found.items() if digits}

    def _build(self, listing: pa.Table, previous: pa.Table | None) -> pa.Table:
        entries = self._entries(make_id=_url_id)
        unknown = pa.nulls(entries.num_rows, pa.string())
        columns: dict[str, pa.ChunkedArray | pa.Array] = {"id": entries.column("id")}
        for field in self.fields:
            names = object_columns(field, first=self.first)
            columns |= {
                names["key"]: entries.column(field),
                names["size"]: unknown.cast(pa.int64()),
                names["etag"]: unknown,
                names["modified"]: unknown.cast(pa.float64()),
            }
        others = [name for name in entries.column_names if name not in ("id", *self.fields)]
        table = pa.table({**columns, **{name: entries.column(name) for name in others}})
        _check_digits(table, self._checksums, f"source {self.name!r}")
        return table


def _url_id(url: str) -> str:
    """Beginning of the hash that also names the file."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def _check_digits(table: pa.Table, checksums: Mapping[str, str], subject: str) -> None:
    problems = [
        f"row {row + 1}: column {column!r} holds {digits!r}, expected {_LENGTHS[name]} hexadecimal digits"
        for name, column in checksums.items()
        for row, digits in enumerate(table.column(f"{CHECKSUM}{name}").to_pylist())
        if digits and re.fullmatch(f"[0-9a-fA-F]{{{_LENGTHS[name]}}}", digits.strip()) is None
    ]
    if problems:
        raise SourceError(subject, problems)
