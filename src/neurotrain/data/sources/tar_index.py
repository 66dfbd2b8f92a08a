"""Where every member of a tar shard lies, found once and kept as an Arrow file for each state of the shard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa

from neurotrain.data.sources.arrow_files import map_arrow, write_arrow
from neurotrain.data.sources.ranged_file import RangedFile
from neurotrain.data.sources.tar_members import LARGEST_HEADER, ShardError, TarMember, members
from neurotrain.storage import ObjectInfo, Storage

LARGEST_LABEL = 32
"""Bytes up to which a ``cls`` member is a number, read while the index is built so that classes can be balanced."""

_VERSION = b"1"
_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "label": pa.int64(),
        "members": pa.list_(pa.struct({"extension": pa.string(), "offset": pa.int64(), "size": pa.int64()})),
    },
    metadata={b"version": _VERSION},
)


class TarIndex:
    """The samples of one shard.

    Args:
        table: one row a sample, as :func:`index_of` makes it.
        path: file that the table is mapped from, so that other processes map it too; None where it is in memory.
    """

    def __init__(self, *, table: pa.Table, path: Path | None) -> None:
        self._table, self._path = table, path
        samples = table.column("members").combine_chunks()
        flat = samples.values
        self._first: np.ndarray = samples.offsets.to_numpy()
        coded = flat.field("extension").dictionary_encode()
        self._extensions: list[str] = coded.dictionary.to_pylist()
        self._codes: np.ndarray = coded.indices.to_numpy()
        self._offsets: np.ndarray = flat.field("offset").to_numpy()
        self._sizes: np.ndarray = flat.field("size").to_numpy()
        self._keys = table.column("key").combine_chunks()

    def __reduce__(self) -> tuple[object, ...]:
        """A mapped index travels as its path."""
        return (_unpickled, (self._path, None if self._path is not None else self._table))

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._keys)

    @property
    def table(self) -> pa.Table:
        """``key, label`` (null without a ``cls`` member) and ``members``."""
        return self._table

    @property
    def extensions(self) -> set[str]:
        """Extensions that any sample has."""
        return set(self._extensions)

    def key(self, sample: int) -> str:
        """Key of a sample."""
        return self._keys[sample].as_py()

    def members(self, sample: int) -> list[TarMember]:
        """Members of a sample, in their order in the shard."""
        key, part = self.key(sample), slice(self._first[sample], self._first[sample + 1])
        codes, offsets, sizes = self._codes[part].tolist(), self._offsets[part].tolist(), self._sizes[part].tolist()
        return [
            TarMember(key, self._extensions[code], offset, size)
            for code, offset, size in zip(codes, offsets, sizes, strict=True)
        ]

    def sizes(self) -> np.ndarray:
        """Bytes of each sample."""
        before = np.concatenate([[0], np.cumsum(self._sizes)])
        return before[self._first[1:]] - before[self._first[:-1]]

    def digest(self) -> str:
        """Of names and sizes, without what a storage calls a state: a copy elsewhere has the same."""
        total = hashlib.blake2b(digest_size=16)
        for values in (self._keys.to_pylist(), self._extensions):
            total.update("\n".join(values).encode() + b"\0")
        for numbers in (self._first, self._codes, self._offsets, self._sizes):
            total.update(np.ascontiguousarray(numbers).tobytes())
        return total.hexdigest()


def index_of(
    storage: Storage, item: ObjectInfo, *, folder: Path | None, largest_member: int, most_members: int
) -> TarIndex:
    """The index of a shard: mapped where it was kept for this state of the shard, else built from the headers.

    Args:
        storage: holds the shard.
        item: the shard.
        folder: where indices are kept; None builds it anew. A server that tells neither etag nor time can't be trusted
            to say when a shard changed: its index is built anew too.
        largest_member: bytes that a member may have.
        most_members: number of members.

    Returns:
        The index.

    Raises:
        StorageError: if the shard cannot be read.
        ShardError: if it is cut, corrupted or not to be trusted, or two samples of it have one key.
    """
    limits = {"largest_member": largest_member, "most_members": most_members}
    state = item.etag or (None if item.modified is None else f"{item.modified}")
    if folder is None or state is None:
        return TarIndex(table=_built(storage, item, **limits), path=None)
    # The limits are part of the name: an index made under wider ones must not carry a member past narrower ones.
    identity = repr((storage.uri_of(item.key), item.size, state, *limits.values())).encode()
    path = folder / f"{hashlib.blake2b(identity, digest_size=16).hexdigest()}.arrow"
    table = _mapped(path)
    if table is None:
        write_arrow(_built(storage, item, **limits), path)
        table = _mapped(path)
        assert table is not None
    return TarIndex(table=table, path=path)


def samples_of(found: Iterable[TarMember], *, uri: str) -> Iterator[tuple[str, list[TarMember]]]:
    """Members side by side that share a key.

    Args:
        found: members in their order.
        uri: of the shard, for messages.

    Yields:
        Key and members of a sample.

    Raises:
        ShardError: if a sample has two members of one extension.
    """
    for key, group in groupby(found, key=lambda member: member.key):
        listed = list(group)
        extensions = [member.extension for member in listed]
        if len(set(extensions)) < len(extensions):
            double = next(name for name in extensions if extensions.count(name) > 1)
            raise ShardError(f"{uri}: two members {f'{key}.{double}'!r}")
        yield key, listed


def _built(storage: Storage, item: ObjectInfo, *, largest_member: int, most_members: int) -> pa.Table:
    uri = storage.uri_of(item.key)
    file = RangedFile(storage=storage, key=item.key, size=item.size, largest=LARGEST_HEADER)
    found = members(file, uri=uri, largest_member=largest_member, most_members=most_members)
    keys: dict[str, int] = {}
    labels: list[int | None] = []
    flat: list[TarMember] = []
    for key, listed in samples_of(found, uri=uri):
        if key in keys:
            raise ShardError(f"{uri}: members of {key!r} are not side by side, or two samples share the key")
        keys[key] = len(flat)
        flat += listed
        labels.append(_label(file, listed, uri=uri))
    leaves = {
        "extension": pa.array((member.extension for member in flat), type=pa.string()),
        "offset": pa.array((member.offset for member in flat), type=pa.int64()),
        "size": pa.array((member.size for member in flat), type=pa.int64()),
    }
    members_of = pa.ListArray.from_arrays(
        pa.array([*keys.values(), len(flat)], type=pa.int32()),
        pa.StructArray.from_arrays(leaves.values(), leaves.keys()),
    )
    columns = {"key": list(keys), "label": labels, "members": members_of}
    return pa.table(columns, schema=_SCHEMA)


def _label(file: RangedFile, listed: list[TarMember], *, uri: str) -> int | None:
    for member in listed:
        if member.extension.rpartition(".")[2] == "cls" and member.size <= LARGEST_LABEL:
            file.seek(member.offset)
            try:
                return int(file.read(member.size))
            except ValueError:
                raise ShardError(f"{uri}: member {member.key}.cls is no number") from None
    return None


def _mapped(path: Path) -> pa.Table | None:
    """A kept index; None where there is none, or what is there is none of ours, whole and of this version."""
    table = map_arrow(path)
    if table is None or not table.schema.equals(_SCHEMA, check_metadata=True):
        return None
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        return None
    return table


def _unpickled(path: Path | None, table: pa.Table | None) -> TarIndex:
    table = table if path is None else _mapped(path)
    if table is None:
        raise FileNotFoundError(f"{path}: the index of a shard was removed while it was used")
    return TarIndex(table=table, path=path)
