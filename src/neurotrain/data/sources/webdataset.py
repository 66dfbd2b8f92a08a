"""WebDataset tar shards: at random through an index of offsets, or streamed."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from neurotrain.data.sources.arrow_fields import unique_ids
from neurotrain.data.sources.base import RawSample, SampleFormatError, Source
from neurotrain.data.sources.member_fields import MemberFields
from neurotrain.data.sources.objects import AT_ONCE, find_objects
from neurotrain.data.sources.tar_index import TarIndex, index_of
from neurotrain.data.sources.tar_members import TarMember
from neurotrain.data.sources.tar_samples import LARGEST_MEMBER, MOST_MEMBERS, check_limits, sample_of, shard_stem
from neurotrain.storage import ObjectInfo, Storage

_GAP = 64 * 2**10
"""Bytes between two wanted members up to which one request for both costs less than two."""


class WebDatasetSource(Source):
    r"""Samples of tar shards at random.

    Headers are read once; then a sample is one range read. Nothing is unpacked and nothing is unpickled. An archive
    with a link, a device, a name that leads out of it, a pickle, or a member above the limits is refused as a whole.

    Args:
        name: of the source.
        storage: holds the shards.
        shards: keys or patterns of them, see :func:`~neurotrain.data.sources.objects.find_objects`; uncompressed.
        fields: field: extensions of its member, see :class:`~neurotrain.data.sources.member_fields.MemberFields`.
        ids: ``"shard"``: the shard's key without its ending, a colon, the sample's key; ``"key"``: the sample's key
            alone, which no two samples may share then.
        index_dir: folder for the indices of shards, one file for each state of a shard; None builds them at each start.
        largest_member: bytes that a member may have.
        most_members: members that a shard may have.

    Raises:
        ValueError: if a setting is out of range.

    Reference:
        A. Aizman et al., "High Performance I/O For Large Scale Deep Learning", 2019 (arXiv:2001.01858).

    Example:
        >>> import io, tarfile
        >>> from neurotrain.storage import MemoryStorage
        >>> buffer = io.BytesIO()
        >>> with tarfile.open(fileobj=buffer, mode="w") as archive:
        ...     for member, content in {"cat.jpg": b"\xff\xd8", "cat.cls": b"3"}.items():
        ...         info = tarfile.TarInfo(member)
        ...         info.size = len(content)
        ...         archive.addfile(info, io.BytesIO(content))
        >>> storage = MemoryStorage(name="shards")
        >>> _ = storage.write("train-000.tar", buffer.getvalue())
        >>> source = WebDatasetSource(name="toy", storage=storage, shards="train-{000..000}.tar")
        >>> source.setup()
        >>> source.read(0).id, dict(source.read(0).fields)
        ('train-000:cat', {'image': b'\xff\xd8', 'label': 3})
    """

    def __init__(
        self,
        *,
        name: str,
        storage: Storage,
        shards: str | Sequence[str] = "*.tar",
        fields: Mapping[str, str] | None = None,
        ids: Literal["shard", "key"] = "shard",
        index_dir: Path | None = None,
        largest_member: int = LARGEST_MEMBER,
        most_members: int = MOST_MEMBERS,
    ) -> None:
        super().__init__(name=name)
        check_limits(largest_member=largest_member, most_members=most_members)
        self._storage, self._shards = storage, shards
        self._fields = MemberFields(fields=fields, name=name)
        if ids not in ("shard", "key"):
            raise ValueError(f"ids={ids!r}: 'shard' or 'key'")
        self._ids, self._index_dir = ids, index_dir
        self._largest_member, self._most_members = largest_member, most_members
        self._objects: list[ObjectInfo] | None = None

    def setup(self) -> None:
        """Find the shards and index those that no index is kept of, several at a time.

        Raises:
            ValueError: if no shard matches, the shards hold no sample, or ``fields`` fit none.
            StorageError: if a shard cannot be read.
            SampleFormatError: if a shard is cut, corrupted, compressed, or not to be trusted.
        """
        if self._objects is not None:
            return
        objects = find_objects(self._storage, self._shards, key=f"{self.name}: shards")
        for item in objects:
            if item.key.endswith((".gz", ".tgz")):
                uri = self._storage.uri_of(item.key)
                raise ValueError(f"{uri}: a compressed shard has no random access: unpack it, or use WebDatasetStream")
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            self._indices = list(pool.map(self._index, objects))
        self._starts = list(accumulate((len(index) for index in self._indices), initial=0))
        if not self._starts[-1]:
            raise ValueError(f"{self.name}: shards={self._shards!r}: {len(objects)} shards without a sample")
        self._fields.check(set[str]().union(*(index.extensions for index in self._indices)))
        if self._ids == "key":
            keys = pa.chunked_array([index.table.column("key").combine_chunks() for index in self._indices])
            unique_ids(keys, subject=f"{self.name}: ids='key'")
        self._objects = objects

    def __len__(self) -> int:
        """Samples of all shards."""
        self._ready()
        return self._starts[-1]

    def read(self, index: int) -> RawSample:
        """Fetch a sample with one range read, or with several where its members lie far apart.

        Raises:
            IndexError: if there is no such entry.
            StorageError: if the shard cannot be read.
            SampleFormatError: if the sample lacks a field, or a member is not what its extension says.
        """
        objects = self._ready()
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no entry {index}, there are {len(self)}")
        shard = bisect_right(self._starts, index) - 1
        item, listed = objects[shard], self._indices[shard].members(index - self._starts[shard])
        uri = f"{self._storage.uri_of(item.key)}#{listed[0].key}"
        chosen = self._fields.select(listed, uri=uri)
        contents = self._contents(item, sorted(chosen.values(), key=lambda member: member.offset), uri=uri)
        name = listed[0].key if self._ids == "key" else f"{shard_stem(item.key)}:{listed[0].key}"
        return sample_of(self.name, item, name, uri, chosen, contents)

    def table(self) -> pa.Table:
        """``id, shard`` (number), ``size`` (bytes of all members), ``label`` where samples have a ``cls`` member."""
        objects = self._ready()
        parts: list[pa.Table] = []
        for number, (item, index) in enumerate(zip(objects, self._indices, strict=True)):
            stem = shard_stem(item.key)
            keys = index.table.column("key")
            made = pc.call_function("binary_join_element_wise", [pa.scalar(stem), keys, ":"])
            ids = keys if self._ids == "key" else made
            shard = pa.array([number] * len(index), type=pa.int32())
            columns = {"id": ids, "shard": shard, "size": index.sizes(), "label": index.table.column("label")}
            parts.append(pa.table(columns))
        whole = pa.concat_tables(parts)
        labelled = self._fields.field_of("cls") == "label" and whole.column("label").null_count < len(whole)
        return whole if labelled else whole.drop_columns("label")

    def fingerprint(self) -> str:
        """Of the shards' keys, the names and sizes of all members, and ``fields``; the bytes are not read."""
        shards = [(item.key, index.digest()) for item, index in zip(self._ready(), self._indices, strict=True)]
        return hashlib.blake2b(repr((shards, self._fields.identity(), self._ids)).encode(), digest_size=8).hexdigest()

    def _ready(self) -> list[ObjectInfo]:
        if self._objects is None:
            raise RuntimeError(f"{self.name}: call setup() first")
        return self._objects

    def _index(self, item: ObjectInfo) -> TarIndex:
        return index_of(
            self._storage,
            item,
            folder=self._index_dir,
            largest_member=self._largest_member,
            most_members=self._most_members,
        )

    def _contents(self, item: ObjectInfo, ordered: Sequence[TarMember], *, uri: str) -> dict[TarMember, bytes]:
        contents: dict[TarMember, bytes] = {}
        for group in _neighbours(ordered):
            start, end = group[0].offset, group[-1].offset + group[-1].size
            data = self._storage.read(item.key, start=start, length=end - start)
            if len(data) != end - start:
                raise SampleFormatError(f"{uri}: the shard ends before it: it has changed since it was indexed")
            for member in group:
                first = member.offset - start
                contents[member] = data[first : first + member.size]
        return contents


def _neighbours(ordered: Sequence[TarMember]) -> list[list[TarMember]]:
    groups: list[list[TarMember]] = []
    for member in ordered:
        if groups and member.offset - (groups[-1][-1].offset + groups[-1][-1].size) <= _GAP:
            groups[-1].append(member)
        else:
            groups.append([member])
    return groups
