"""Samples of tar shards out of their members."""

from __future__ import annotations

from collections.abc import Mapping

from neurotrain.data.sources.base import Field, RawSample
from neurotrain.data.sources.member_fields import decoded
from neurotrain.data.sources.tar_members import TarMember
from neurotrain.storage import ObjectInfo

LARGEST_MEMBER = 256 * 2**20
"""Bytes that a member may have where nothing else is said."""

MOST_MEMBERS = 10_000_000
"""Members that a shard may have where nothing else is said."""


def check_limits(*, largest_member: int, most_members: int) -> None:
    """Refuse limits that let nothing through.

    Raises:
        ValueError: names the setting.
    """
    for key, value in (("largest_member", largest_member), ("most_members", most_members)):
        if value < 1:
            raise ValueError(f"{key}={value}: must be at least 1")


def sample_of(
    source: str,
    item: ObjectInfo,
    name: str,
    uri: str,
    chosen: Mapping[str, TarMember],
    contents: Mapping[TarMember, bytes],
) -> RawSample:
    """A sample out of the content of its members.

    Args:
        source: name of the source.
        item: the shard.
        name: id of the sample.
        uri: of the sample.
        chosen: its members by field.
        contents: what they hold.

    Returns:
        The sample.

    Raises:
        SampleFormatError: if a member is not what its extension says.
    """
    fields: dict[str, Field] = {field: decoded(contents[member], member, uri=uri) for field, member in chosen.items()}
    state = item.etag or ""
    identity = {
        field: f"{state}:{chosen[field].offset}"
        for field, value in fields.items()
        if state and isinstance(value, bytes)
    }
    return RawSample(id=name, source=source, uri=uri, fields=fields, identity=identity)


def shard_stem(key: str) -> str:
    """A shard's key without its ending."""
    for ending in (".tar", ".tar.gz", ".tgz"):
        if key.endswith(ending):
            return key.removesuffix(ending)
    return key
