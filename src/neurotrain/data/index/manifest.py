"""A table on disk that is complete or is not there, and says when it has been damaged."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from neurotrain.data.index.fingerprint import table_fingerprint

_LOGGER = logging.getLogger(__name__)
_MAGIC = b"NTINDEX1"
_TRAILER = len(_MAGIC) + hashlib.blake2b().digest_size
_BLOCK = 4 * 2**20
_STAMP, _FINGERPRINT = b"neurotrain.stamp", b"neurotrain.fingerprint"


class ManifestError(ValueError):
    """A manifest on disk is damaged, or is not the one that was meant."""


class Manifest:
    """A table of entries, in memory or mapped from a file.

    Pickled, one that is mapped travels as its path and is mapped again: a million entries cost a worker nothing.

    Args:
        table: one row an entry.
        stamp: identity of the settings and listings that it was built from.
        fingerprint: identity of the entries and their order.
        path: the file that ``table`` is mapped from; None: it is in memory.
    """

    def __init__(self, *, table: pa.Table, stamp: str, fingerprint: str, path: Path | None = None) -> None:
        self.table = table
        self.stamp = stamp
        self.fingerprint = fingerprint
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        """The path instead of the rows, where there is one."""
        return {**self.__dict__, "table": self.table if self.path is None else None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Map the file again.

        Raises:
            ManifestError: if another manifest has taken its place meanwhile.
        """
        self.__dict__.update(state)
        if self.path is not None:
            # The process that sent it has checked the bytes.
            found = _map(self.path)
            if found.fingerprint != self.fingerprint:
                raise ManifestError(f"{self.path}: was rebuilt while it was in use; start again")
            self.table = found.table


Identity = Callable[[pa.Table], Sequence[str]]
"""Which columns of a table make up the identity of its entries."""


def all_columns(table: pa.Table) -> Sequence[str]:
    """Every column."""
    return table.column_names


def save_manifest(path: Path, table: pa.Table, *, stamp: str = "", identity: Identity = all_columns) -> Manifest:
    """Write a table as an Arrow IPC stream with a checksum behind it, then map it.

    Any Arrow library reads the file with ``ipc.open_stream``. It appears under its name when it is complete: a reader
    or a second writer never sees half of it.

    Args:
        path: of the file; its folders are made.
        table: one row an entry.
        stamp: kept beside it.
        identity: which columns make up the identity of the entries.

    Returns:
        The manifest, mapped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fingerprint = table_fingerprint(table, columns=identity(table))
    marked = table.replace_schema_metadata({_STAMP: stamp.encode(), _FINGERPRINT: fingerprint.encode()})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, marked.schema) as writer:
            writer.write_table(marked)
        with temporary.open("r+b") as file:
            digest = _digest(file, temporary.stat().st_size)
            file.write(_MAGIC + digest)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return _map(path)


def load_manifest(path: Path) -> Manifest:
    """Map a manifest after comparing its bytes with its checksum; nothing of it stays in this process's memory.

    Args:
        path: written by :func:`save_manifest`.

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: if there is none.
        ManifestError: if it is damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _TRAILER:
            raise ManifestError(f"{path}: {size} bytes are no manifest")
        expected = _digest(file, size - _TRAILER)
        if file.read() != _MAGIC + expected:
            raise ManifestError(f"{path}: its checksum does not fit: it is damaged or no manifest")
    return _map(path)


def open_manifest(
    path: Path | None,
    *,
    stamp: str | None,
    build: Callable[[pa.Table | None], pa.Table],
    identity: Identity = all_columns,
) -> Manifest:
    """The manifest of ``stamp``: mapped if it is there, built and written if it is not.

    Args:
        path: of its file; None: built, and kept in memory only.
        stamp: identity of everything that it is built from; None: whatever is there will do.
        build: makes the table out of the previous one, whose rows of unchanged objects it may take over, or of None.
        identity: which columns make up the identity of the entries.

    Returns:
        The manifest. A damaged file is built again from nothing, with a warning.
    """
    if path is None:
        table = build(None)
        fingerprint = table_fingerprint(table, columns=identity(table))
        return Manifest(table=table, stamp=stamp or "", fingerprint=fingerprint)
    previous: Manifest | None = None
    try:
        previous = load_manifest(path)
    except FileNotFoundError:
        _LOGGER.debug("%s is not there yet", path)
    except ManifestError as error:
        _LOGGER.warning("%s; it is built again", error)
    if previous is not None and stamp in (None, previous.stamp):
        return previous
    table = build(None if previous is None else previous.table)
    return save_manifest(path, table, stamp=stamp or "", identity=identity)


def _map(path: Path) -> Manifest:
    try:
        # The reader stops at the end-of-stream mark: what follows is ours.
        table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid as error:
        raise ManifestError(f"{path}: cannot be read ({error})") from error
    metadata = table.schema.metadata or {}
    if _STAMP not in metadata or _FINGERPRINT not in metadata:
        raise ManifestError(f"{path}: is a table, but no manifest")
    stamp, fingerprint = metadata[_STAMP].decode(), metadata[_FINGERPRINT].decode()
    return Manifest(table=table.replace_schema_metadata(None), stamp=stamp, fingerprint=fingerprint, path=path)


def _digest(file: IO[bytes], size: int) -> bytes:
    """Digest of the first ``size`` bytes, read in blocks: pages that are mapped would count as this process's."""
    file.seek(0)
    digest = hashlib.blake2b()
    left = size
    while left > 0:
        block = file.read(min(left, _BLOCK))
        if not block:
            break
        digest.update(block)
        left -= len(block)
    return digest.digest()
