"""Which member of a sample in a tar shard feeds which field, and the few that are text or a number."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence

from neurotrain.data.datasets.decoding import EXTENSIONS
from neurotrain.data.sources.base import Field, SampleFormatError
from neurotrain.data.sources.columns import NAMED_FIELDS, USUAL_NAMES
from neurotrain.data.sources.tar_members import TarMember

_IMAGE = frozenset(extension.removeprefix(".") for extension in EXTENSIONS)


class MemberFields:
    """Fields by extension.

    Args:
        fields: field: its extensions, several with ``;`` between them (``"jpg;png"``), of which a sample has one; other
            members are not read. None takes the usual ones: an extension that begins with a field's
            name feeds that field (``mask.png``, and ``mask.vein.png`` the field ``mask/vein``); an image's feeds
            ``image``, ``cls`` ``label``, ``txt`` ``caption``; every other member goes by its extension.
        name: of the source, for messages.

    Raises:
        ValueError: if two fields name one extension, or one names none.

    Example:
        >>> usual = MemberFields(fields=None, name="toy")
        >>> [usual.field_of(extension) for extension in ("jpg", "mask.png", "mask.vein.png", "cls", "txt", "json")]
        ['image', 'mask', 'mask/vein', 'label', 'caption', 'json']
    """

    def __init__(self, *, fields: Mapping[str, str] | None, name: str) -> None:
        self._name = name
        self._fields = None if fields is None else dict(fields)
        self._by_extension: dict[str, str] = {}
        for field, written in (fields or {}).items():
            for extension in written.split(";"):
                extension = extension.strip().lower().removeprefix(".")
                if not extension:
                    raise ValueError(f"{name}: fields.{field}={written!r}: name an extension, like 'jpg;png'")
                if extension in self._by_extension:
                    other = self._by_extension[extension]
                    raise ValueError(f"{name}: fields.{field}={written!r}: {extension!r} feeds {other!r} already")
                self._by_extension[extension] = field
        if fields is not None and not fields:
            raise ValueError(f"{name}: fields={{}}: name at least one, like {{'image': 'jpg;png'}}")

    def field_of(self, extension: str) -> str | None:
        """The field that an extension feeds, None where it is not read."""
        if self._fields is not None:
            return self._by_extension.get(extension)
        first, *others = extension.split(".")
        if len(others) > 1 and f"{first}/" in NAMED_FIELDS:
            return "/".join([first, *others[:-1]])
        if others and first in USUAL_NAMES:
            return first
        return {"cls": "label", "txt": "caption"}.get(extension, "image" if extension in _IMAGE else extension)

    def identity(self) -> str:
        """Of the mapping: equal where the same members feed the same fields."""
        return repr(self._fields and sorted(self._by_extension.items()))

    def check(self, extensions: Collection[str]) -> None:
        """Refuse a mapping that fits no sample at all.

        Args:
            extensions: that occur in the shards.

        Raises:
            ValueError: names the field and the nearest extensions.
        """
        for field, written in (self._fields or {}).items():
            wanted = [extension for extension, fed in self._by_extension.items() if fed == field]
            if extensions and not set(wanted) & set(extensions):
                near = difflib.get_close_matches(wanted[0], sorted(extensions), n=3, cutoff=0.4)
                there = ", ".join(map(repr, near or sorted(extensions)[:8]))
                raise ValueError(f"{self._name}: fields.{field}={written!r}: no member has it; nearest: {there}")

    def select(self, listed: Sequence[TarMember], *, uri: str) -> dict[str, TarMember]:
        """The members of a sample by field.

        Args:
            listed: all of its members.
            uri: of the sample, for messages.

        Returns:
            In the order of the shard.

        Raises:
            SampleFormatError: if a field has no member, or two.
        """
        chosen: dict[str, TarMember] = {}
        for member in listed:
            field = self.field_of(member.extension)
            if field is None:
                continue
            if field in chosen:
                two = f"{chosen[field].extension!r} and {member.extension!r}"
                raise SampleFormatError(f"{uri}: {two} both feed {field!r}: choose one with fields")
            chosen[field] = member
        missing = [field for field in self._fields or () if field not in chosen]
        if missing:
            there = ", ".join(repr(member.extension) for member in listed)
            raise SampleFormatError(f"{uri}: no {', '.join(missing)}; it has {there}")
        return chosen


def decoded(data: bytes, member: TarMember, *, uri: str) -> Field:
    """What a member says: ``txt`` is text, ``cls`` a whole number, everything else stays bytes.

    Args:
        data: its content.
        member: where it is from.
        uri: of the sample, for messages.

    Returns:
        The field.

    Raises:
        SampleFormatError: if a text is no UTF-8, or a class no number.
    """
    kind = member.extension.rpartition(".")[2]
    try:
        if kind == "txt":
            return data.decode()
        if kind == "cls":
            return int(data)
    except ValueError as error:
        what = "a whole number" if kind == "cls" else "UTF-8 text"
        raise SampleFormatError(f"{uri}: {member.key}.{member.extension} is not {what}: {data[:40]!r}") from error
    return data
