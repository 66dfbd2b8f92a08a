"""WebDataset tar shards read from their first byte to their last."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import BinaryIO, cast

from neurotrain.data.sources.base import RawSample
from neurotrain.data.sources.member_fields import MemberFields
from neurotrain.data.sources.objects import find_objects
from neurotrain.data.sources.ranged_file import RangedFile
from neurotrain.data.sources.sharded_stream import ShardedStream, Sharing
from neurotrain.data.sources.tar_members import ForwardFile, ShardError, TarMember, members
from neurotrain.data.sources.tar_samples import LARGEST_MEMBER, MOST_MEMBERS, check_limits, sample_of, shard_stem
from neurotrain.storage import ObjectInfo, Storage

_BLOCK = 8 * 2**20
"""Bytes asked for at once."""


class WebDatasetStream(ShardedStream):
    """Samples of tar shards in the order of the shards, compressed ones (``.tar.gz``, ``.tgz``) too.

    See :class:`~neurotrain.data.sources.sharded_stream.ShardedStream` for order, readers and resuming, and
    :class:`~neurotrain.data.sources.webdataset.WebDatasetSource` for fields and what is refused. A refused shard is
    told of when the place is reached that it is refused for.

    Args:
        name: of the source.
        storage: holds the shards.
        shards: keys or patterns of them, see :func:`~neurotrain.data.sources.objects.find_objects`.
        fields: field: extensions of its member.
        seed: of the order of shards and of the buffer.
        shuffle_shards: draw the order of shards for each epoch.
        shuffle_buffer: samples to draw from; 1 keeps the order.
        sharing: how readers share.
        largest_member: bytes that a member may have.
        most_members: members that a shard may have.
        largest_shard: bytes that a compressed shard may unpack to.

    Raises:
        ValueError: if a setting is out of range.
    """

    def __init__(
        self,
        *,
        name: str,
        storage: Storage,
        shards: str | Sequence[str] = ("*.tar",),
        fields: Mapping[str, str] | None = None,
        seed: int = 0,
        shuffle_shards: bool = True,
        shuffle_buffer: int = 1000,
        sharing: Sharing = "shards",
        largest_member: int = LARGEST_MEMBER,
        most_members: int = MOST_MEMBERS,
        largest_shard: int = 64 * 2**30,
    ) -> None:
        super().__init__(
            name=name, seed=seed, shuffle_shards=shuffle_shards, shuffle_buffer=shuffle_buffer, sharing=sharing
        )
        check_limits(largest_member=largest_member, most_members=most_members)
        self._storage, self._shards = storage, shards
        self._fields = MemberFields(fields=fields, name=name)
        if largest_shard < 1:
            raise ValueError(f"largest_shard={largest_shard}: bytes, at least 1")
        self._largest_member, self._most_members = largest_member, most_members
        self._largest_shard = largest_shard
        self._objects: list[ObjectInfo] | None = None

    def shard_count(self) -> int:
        """Number of shards; finds them on first use.

        Raises:
            ValueError: if none matches.
            StorageError: if the storage fails.
        """
        return len(self._found())

    def _found(self) -> list[ObjectInfo]:
        if self._objects is None:
            self._objects = find_objects(self._storage, self._shards, key=f"{self.name}: shards")
        return self._objects

    def _identity(self) -> str:
        shards = [(item.key, item.size) for item in self._found()]
        text = repr((shards, self._fields.identity()))
        return f"shards={hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"

    def _read_shard(self, shard: int, first: int) -> Iterator[RawSample]:
        item = self._found()[shard]
        uri = self._storage.uri_of(item.key)
        for key, group in groupby(self._contents(item, uri, first), key=lambda pair: pair[0].key):
            contents = dict(group)
            extensions = [member.extension for member in contents]
            if len(set(extensions)) < len(extensions):
                raise ShardError(f"{uri}: two members of {key!r} have one extension, of {', '.join(extensions)}")
            place = f"{uri}#{key}"
            chosen = self._fields.select(list(contents), uri=place)
            yield sample_of(self.name, item, f"{shard_stem(item.key)}:{key}", place, chosen, contents)

    def _contents(self, item: ObjectInfo, uri: str, first: int) -> Iterator[tuple[TarMember, bytes]]:
        """Members from the ``first``-th sample on, with what they hold where that is wanted."""
        file, number, last = self._opened(item), -1, None
        seen: set[str] = set()
        for member in members(file, uri=uri, largest_member=self._largest_member, most_members=self._most_members):
            if member.key != last:
                if member.key in seen:
                    raise ShardError(f"{uri}: members of {member.key!r} are not side by side, or two samples share it")
                seen.add(member.key)
                number, last = number + 1, member.key
            if number < first:
                continue
            data = b""
            if self._fields.field_of(member.extension) is not None:
                file.seek(member.offset)
                data = file.read(member.size)
                if len(data) < member.size:
                    raise ShardError(f"{uri}: truncated in member {member.key}.{member.extension}")
            yield member, data

    def _opened(self, item: ObjectInfo) -> RangedFile | ForwardFile:
        if not item.key.endswith((".gz", ".tgz")):
            return RangedFile(
                storage=self._storage, key=item.key, size=item.size, block=_BLOCK, largest=self._largest_read()
            )
        packed = RangedFile(storage=self._storage, key=item.key, size=item.size, block=_BLOCK)
        plain = gzip.GzipFile(fileobj=io.BufferedReader(packed, buffer_size=2**18))
        return ForwardFile(cast(BinaryIO, plain), largest=self._largest_read(), total=self._largest_shard)

    def _largest_read(self) -> int:
        return max(self._largest_member, 2**20)
