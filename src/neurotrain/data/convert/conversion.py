"""Conversion: written aside, checked by count, then put into place at once."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from neurotrain.data.convert.entries import Entry, entries_of
from neurotrain.data.convert.folder import FolderWriter, TableWriter
from neurotrain.data.convert.parquet import ParquetWriter
from neurotrain.data.convert.shards import ShardWriter
from neurotrain.data.convert.writer import Writer, check_parts
from neurotrain.data.datasets.base import SegmentationDataset
from neurotrain.data.sources.base import Source
from neurotrain.data.sources.huggingface import HuggingFaceSource
from neurotrain.data.sources.objects import AT_ONCE
from neurotrain.data.sources.parquet import ParquetSource
from neurotrain.storage import LocalStorage, Storage, StorageError, open_storage

Layout = Literal["folder", "table", "huggingface", "webdataset"]
"""``folder``: files by field; ``table``: the same, and a CSV; ``huggingface``: Parquet; ``webdataset``: tar."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)

SHARD_BYTES = 256 * 2**20
"""Bytes of files in a shard where nothing else is said."""

MANIFEST = "conversion.json"
"""Written last: where it lies, everything does."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was written.

    Attributes:
        layout: of what was written.
        uri: where.
        samples: by split.
        files: number of objects.
        bytes: of all objects.
        digest: of all samples: ids, splits, fields and their bytes; equal for every layout of the same samples.
    """

    layout: Layout
    uri: str
    samples: dict[str, int]
    files: int
    bytes: int
    digest: str

    def __str__(self) -> str:
        """One line."""
        counts = ", ".join(f"{split} {count}" for split, count in self.samples.items())
        return f"{self.uri}: {self.layout}, {counts} samples in {self.files} files ({self.bytes} bytes)"


def convert(
    data: Source | SegmentationDataset,
    *,
    layout: Layout,
    target: str | Path | Storage,
    splits: Sequence[str] | None = None,
    base_url: str | None = None,
    shard_bytes: int | None = None,
) -> Conversion:
    """Write the samples of a source or a dataset in another layout.

    Bytes are copied, never decoded. The same samples make the same bytes. A local folder appears whole or not at all;
    in a bucket ``conversion.json`` is written last, and what was written before a failure is removed.

    Args:
        data: what to convert.
        layout: into what.
        target: folder, URI (``s3://bucket/prefix``), or storage; nothing may lie there.
        splits: which, in this order; None: all.
        base_url: address under which the target will be offered; for ``table``, which needs it.
        shard_bytes: of files in a shard, 256 MiB where not given; for ``huggingface`` and ``webdataset``.

    Returns:
        What was written.

    Raises:
        ValueError: if a setting is unknown or without effect, something lies at the target, or there is no sample.
        StorageError: if bytes cannot be read or written.
        SampleFormatError, DatasetError: if a sample or a file is not what it should be.

    Example:
        >>> from neurotrain.data.datasets import SyntheticDrive
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     drive = SyntheticDrive(root=Path(folder, "drive"), train=2, test=1, size=(64, 60))
        ...     convert(drive, layout="webdataset", target=f"{folder}/shards").samples
        {'train': 2, 'test': 1}
    """
    _check(layout, base_url=base_url, shard_bytes=shard_bytes)
    storage = _opened(target)
    place = storage.root if isinstance(storage, LocalStorage) else None
    _refuse_to_overwrite(storage, place)
    staging = _staging(place)
    try:
        with closing(_writer(data, layout, staging, base_url=base_url, shard_bytes=shard_bytes)) as writer:
            samples, digest = _written(writer, data, splits)
        report = _listed(staging, layout=layout, uri=storage.uri, samples=samples, digest=digest)
        _publish(staging, storage, place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return report


def _check(layout: str, *, base_url: str | None, shard_bytes: int | None) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is not one of {', '.join(map(repr, LAYOUTS))}")
    if (base_url is None) == (layout == "table"):
        raise ValueError(f"base_url={base_url!r}: layout 'table' needs it, and no other has a use for it")
    if shard_bytes is not None and layout not in ("huggingface", "webdataset"):
        raise ValueError(f"shard_bytes={shard_bytes}: layout {layout!r} has no shards")
    if shard_bytes is not None and shard_bytes < 1:
        raise ValueError(f"shard_bytes={shard_bytes}: at least 1")


def _opened(target: str | Path | Storage) -> Storage:
    if isinstance(target, Storage):
        return target
    return LocalStorage(root=target) if isinstance(target, Path) else open_storage(target)


def _refuse_to_overwrite(storage: Storage, place: Path | None) -> None:
    if place is None:
        found = next((item.key for item in storage.list()), None)
    else:
        found = place.name if place.exists() and not (place.is_dir() and not any(place.iterdir())) else None
    if found is not None:
        raise ValueError(f"target={storage.uri}: {found!r} lies there already, nothing is overwritten")


def _staging(place: Path | None) -> Path:
    """A new folder: beside the place, so that it can be renamed into it; for a bucket, a temporary one."""
    if place is None:
        return Path(tempfile.mkdtemp(prefix="neurotrain-convert-"))
    place.parent.mkdir(parents=True, exist_ok=True)
    staging = place.with_name(f".{place.name}.{secrets.token_hex(4)}.partial")
    staging.mkdir()
    return staging


def _class_names(data: Source | SegmentationDataset) -> Sequence[str] | None:
    if not isinstance(data, (HuggingFaceSource, ParquetSource)):
        return None
    data.setup()
    return data.class_names()


def _writer(
    data: Source | SegmentationDataset, layout: Layout, folder: Path, *, base_url: str | None, shard_bytes: int | None
) -> Writer:
    most = shard_bytes or SHARD_BYTES
    match layout:
        case "folder":
            return FolderWriter(folder=folder)
        case "table":
            assert base_url is not None
            return TableWriter(folder=folder, base_url=base_url)
        case "huggingface":
            return ParquetWriter(folder=folder, shard_bytes=most, class_names=_class_names(data))
        case "webdataset":
            return ShardWriter(folder=folder, shard_bytes=most)


def _written(
    writer: Writer, data: Source | SegmentationDataset, splits: Sequence[str] | None
) -> tuple[dict[str, int], str]:
    samples: dict[str, int] = {}
    digest = hashlib.blake2b(digest_size=16)
    for entry in entries_of(data, splits=splits):
        check_parts([entry.split], what="split")
        check_parts([*entry.files, *entry.values], what="field")
        writer.add(entry)
        samples[entry.split] = samples.get(entry.split, 0) + 1
        for content in _content(entry):
            digest.update(content)
    writer.close()
    return samples, digest.hexdigest()


def _content(entry: Entry) -> Iterator[bytes]:
    values = {"id": entry.id, "split": entry.split, **entry.values}
    for name, value in [*sorted(values.items()), *sorted(entry.files.items())]:
        content = value if isinstance(value, bytes) else repr(value).encode()
        # Lengths first: without them the end of one value and the start of the next could trade bytes.
        yield f"{len(name.encode())}:{len(content)}:{name}".encode()
        yield content


def _listed(staging: Path, *, layout: Layout, uri: str, samples: dict[str, int], digest: str) -> Conversion:
    files = _keys(staging)
    manifest = {"layout": layout, "samples": samples, "digest": digest, "files": files}
    (staging / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    size = sum((staging / key).stat().st_size for key in (*files, MANIFEST))
    return Conversion(layout=layout, uri=uri, samples=samples, files=len(files) + 1, bytes=size, digest=digest)


def _keys(staging: Path) -> list[str]:
    found = sorted(path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file())
    return [key for key in found if key != MANIFEST]


def _publish(staging: Path, storage: Storage, place: Path | None) -> None:
    if place is None:
        _upload(staging, storage)
    else:
        _move(staging, place)


def _move(staging: Path, place: Path) -> None:
    for path in staging.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    try:
        staging.rename(place)
    except OSError as error:
        raise ValueError(f"target={place}: something came to lie there in the meantime: {error}") from error


def _upload(staging: Path, storage: Storage) -> None:
    """Write all objects, several at a time, then the manifest; after a failure, nothing of them is left."""
    done: list[str] = []

    def put(key: str) -> None:
        storage.write(key, staging / key)
        done.append(key)

    try:
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            waiting = [pool.submit(put, key) for key in _keys(staging)]
            wait(waiting, return_when=FIRST_EXCEPTION)
            pool.shutdown(cancel_futures=True)
        for future in waiting:
            if not future.cancelled():
                future.result()
        put(MANIFEST)
    except BaseException:
        for key in done:
            try:
                storage.delete(key)
            except StorageError:
                continue  # the failure that is raised says more; without the manifest, what is left counts for nothing
        raise
