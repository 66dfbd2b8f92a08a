"""Members of a tar archive that is not trusted: where they lie, nothing is unpacked."""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

from neurotrain.data.sources.base import SampleFormatError
from neurotrain.storage import StorageError

_BACK = tarfile.BLOCKSIZE
"""Bytes that a reader looks back at most: the block in which it found the end."""

LARGEST_HEADER = 2**20
"""Bytes that one header of a member may have; a name that is longer is an attack on the memory."""

_LARGEST_END = 2**16
"""Bytes of zeros that may follow the last member; tar pads to 10 KiB."""

REFUSED = frozenset({"pyd", "pickle", "pkl", "dill", "joblib", "pt", "pth", "ckpt"})
"""Endings of files that run code when they are loaded."""

_NAME = re.compile(r"((?:[^/]*/)*[^/.]+)\.([^/]+)")
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


class ShardError(SampleFormatError):
    """A whole shard is of no use from some place on: cut, corrupted, or made to do harm."""


class TarMember(NamedTuple):
    """One file in an archive.

    Attributes:
        key: its name up to the first dot behind the last slash: members of one sample share it.
        extension: the rest of the name in lower case, without the dot.
        offset: of its first byte in the archive.
        size: bytes.
    """

    key: str
    extension: str
    offset: int
    size: int


class ForwardFile(io.RawIOBase):
    """A stream that can only be read on, as the seekable file that a tar reader wants.

    Args:
        stream: is read to its end, in order.
        largest: bytes that one read may ask for.
        total: bytes that the stream may have.
    """

    def __init__(self, stream: BinaryIO, *, largest: int, total: int) -> None:
        super().__init__()
        self._stream, self._largest, self._total = stream, largest, total
        self._place, self._position, self._last = 0, 0, b""

    def tell(self) -> int:
        """Position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move on, or back by a block."""
        assert whence == io.SEEK_SET, "the end is not known"
        self._position = offset
        return offset

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes, fewer only at the end of the stream."""
        if size is None or not 0 <= size <= self._largest:
            raise ValueError(f"a read of {size} bytes at once, at most {self._largest}")
        back = self._place - self._position
        assert back <= len(self._last), "a stream is read on"
        while back < 0:
            skipped = self._stream.read(min(-back, 2**20))
            if not skipped:
                return b""
            self._note(skipped)
            back += len(skipped)
        data = self._last[len(self._last) - back :][:size] if back else b""
        while len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                break
            self._note(more)
            data += more
        self._position += len(data)
        return data

    def _note(self, data: bytes) -> None:
        self._place += len(data)
        if self._place > self._total:
            raise ValueError(f"it unpacks to more than {self._total} bytes: raise largest_shard if that is meant")
        self._last = data[-_BACK:] if len(data) >= _BACK else (self._last + data)[-_BACK:]


def members(file: io.RawIOBase, *, uri: str, largest_member: int, most_members: int) -> Iterator[TarMember]:
    """The members of an archive, in order.

    Folders, and files whose name has no extension or begins with a dot, belong to no sample and are passed over.

    Args:
        file: of the archive, not compressed; one that refuses reads of more than a header's or a member's size.
        uri: of the archive, for messages.
        largest_member: bytes that a member may have.
        most_members: number of members.

    Yields:
        What can be read; between two of them the file may be read elsewhere.

    Raises:
        ShardError: if the archive is cut or corrupted, has more or larger members than allowed, or one that is a
            link or a device, has a name that leads out of a folder, or would run code when loaded.
        StorageError: if the file cannot be read.
    """
    try:
        for number, info in enumerate(_headers(file)):
            if number >= most_members:
                raise ShardError(f"{uri}: more than {most_members} members")
            problem = _problem(info, largest_member)
            if problem is not None:
                raise ShardError(f"{uri}: member {info.name[:200]!r} {problem}")
            named = _NAME.fullmatch(info.name.removeprefix("./"))
            if info.isreg() and named is not None:
                key, extension = named[1], named[2].lower()
                yield TarMember(key=key, extension=extension, offset=info.offset_data, size=info.size)
    except (StorageError, SampleFormatError):
        raise
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, RecursionError) as error:
        raise ShardError(f"{uri}: truncated, corrupted or no tar archive: {error}") from error


def _headers(file: io.RawIOBase) -> Iterator[tarfile.TarInfo]:
    """Every header; ``tarfile`` takes a damaged one for the end, so the end is looked at."""
    with tarfile.TarFile(fileobj=cast(BinaryIO, file), mode="r") as archive:
        place = -1
        while (info := archive.next()) is not None:
            archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - kept to look up names
            if archive.offset <= place or info.size < 0:
                raise tarfile.ReadError(f"a member of {info.size} bytes")
            place = archive.offset
            yield info
        file.seek(archive.offset)
        end = file.read(_LARGEST_END)
    if len(end) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it ends at byte {archive.offset + len(end)} without the mark of an end")
    if end.count(0) != len(end):
        raise tarfile.ReadError(f"at byte {archive.offset} neither a header nor the end of an archive")
    if len(end) == _LARGEST_END:
        raise tarfile.ReadError(f"it goes on behind its end at byte {archive.offset}")


def _problem(info: tarfile.TarInfo, largest_member: int) -> str | None:
    parts = info.name.split("/")
    if info.name.startswith("/") or ".." in parts or "\\" in info.name or "\0" in info.name:
        return "leads out of its folder"
    if not (info.isreg() or info.isdir()) or info.issparse():
        return f"is {_KINDS.get(info.type, 'no plain file')}: only plain files are read"
    if info.size > largest_member:
        return f"has {info.size} bytes, at most {largest_member}: raise largest_member if that is meant"
    if not REFUSED.isdisjoint(parts[-1].lower().split(".")[1:]):
        return "is a pickle, which would run code when loaded: convert it"
    return None
