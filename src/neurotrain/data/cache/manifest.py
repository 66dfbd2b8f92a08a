"""The files' headers gathered in one Arrow table, so that opening a large cache need not read them all.

It is a copy: the headers decide, and a manifest that is absent, damaged or out of date costs time and nothing else. Its
name is the hash of its content, and it is mapped, not read, so processes share it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neurotrain.data.cache.index import COLUMNS, Index, check_columns
from neurotrain.data.cache.layout import EntrySpec, TensorSpec
from neurotrain.data.cache.shard import CacheFormatError, ShardInfo, is_shard
from neurotrain.documents import parse_json

FORMAT = "neurotrain-cache-manifest-1"
_NAME = re.compile(r"manifest-([0-9a-f]{32})\.arrow")
_ABOUT = b"neurotrain"


def manifests(folder: Path) -> list[Path]:
    """Manifests of a cache, the latest first."""
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and not path.is_symlink()]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def load_manifest(path: Path) -> Index:
    """Map a manifest.

    Raises:
        CacheFormatError: if its content is not that of its name, or is none of a cache's.
        OSError: if it cannot be read.
    """
    match = _NAME.fullmatch(path.name)
    assert match is not None, "listed by manifests()"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, _digest).hexdigest()
    if digest != match[1]:
        raise CacheFormatError(f"{path.name}: damaged")
    try:
        with pa.memory_map(str(path)) as mapped:
            table = pa.ipc.open_file(mapped).read_all()
        table.validate(full=True)
        return _index(table)
    except (pa.ArrowException, ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise CacheFormatError(f"{path.name}: {type(error).__name__}: {error}") from error


def save_manifest(folder: Path, index: Index) -> Path:
    """Write the manifest of what is there now and remove those before it; the caller holds the folder's lock.

    Raises:
        OSError: if there is no room; the cache works without.
    """
    about = {
        "format": FORMAT,
        "shards": [[shard.name, shard.nbytes, shard.entries] for shard in index.shards],
        "specs": [[list(tensor) for tensor in spec.tensors] for spec in index.specs],
    }
    table = pa.table({name: pa.array(index.columns[name]) for name in COLUMNS})
    table = table.replace_schema_metadata({_ABOUT: json.dumps(about).encode()})
    before = manifests(folder)
    temporary = folder / f".manifest-{secrets.token_hex(8)}.part"
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=max(1, table.num_rows))
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, _digest).hexdigest()
            os.fsync(file.fileno())
        path = folder / f"manifest-{digest}.arrow"
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    for old in before:
        if old != path:
            old.unlink(missing_ok=True)
    return path


def _index(table: pa.Table) -> Index:
    about = parse_json((table.schema.metadata or {})[_ABOUT])
    if about["format"] != FORMAT or table.column_names != list(COLUMNS):
        raise ValueError(f"not of the format {FORMAT}")
    shards = list(_shards(about["shards"]))
    specs = [
        EntrySpec(tuple(TensorSpec(n, code, tuple(shape)) for n, code, shape in tensors)) for tensors in about["specs"]
    ]
    columns = {name: _column(table, name, dtype) for name, dtype in COLUMNS.items()}
    check_columns(shards, specs, columns)
    return Index(shards=shards, specs=specs, columns=columns)


def _shards(listed: list[Any]) -> Iterator[ShardInfo]:
    for name, nbytes, entries in listed:
        if not is_shard(name):
            raise ValueError(f"{name!r} is not the name of a shard")
        if type(nbytes) is not int or type(entries) is not int or not 0 < nbytes < 2**63 or entries < 1:
            raise ValueError(f"{name}: {nbytes!r} bytes, {entries!r} entries")
        yield ShardInfo(name, nbytes, entries)


def _column(table: pa.Table, name: str, dtype: Any) -> NDArray[Any]:  # noqa: ANN401 - what numpy takes for a dtype
    column = table.column(name)
    if column.type != pa.from_numpy_dtype(dtype) or column.null_count:
        raise ValueError(f"column {name} has the type {column.type}")
    chunk = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return np.asarray(chunk)


def _digest() -> Any:  # noqa: ANN401 - hashlib's objects have no public type
    return hashlib.blake2b(digest_size=16)
