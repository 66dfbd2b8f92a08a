"""Objects into local files: whole or not at all, and continued where a killed download stopped."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import IO, Protocol, TypeVar

TEMPORARY = ".neurotrain-"
"""Beginning of the names of files that are not complete yet: they are no objects."""


class Described(Protocol):
    """What is known of an object."""

    @property
    def size(self) -> int | None:
        """Bytes."""
        ...

    @property
    def etag(self) -> str | None:
        """Identity of the content."""
        ...


Info = TypeVar("Info", bound=Described, covariant=True)


class Readable(Protocol[Info]):
    """The part of a storage that a download needs."""

    @property
    def identity(self) -> str:
        """What tells the storage from every other one."""
        ...

    def stat(self, key: str) -> Info:
        """Ask for an object."""
        ...

    def fetch(self, key: str) -> tuple[Info, bytes]:
        """Read an object together with what is known of it."""
        ...

    def read(self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None) -> bytes:
        """Read a part of the object of an etag."""
        ...


def download(storage: Readable[Info], key: str, path: Path, *, part_bytes: int) -> Info:
    """Bring an object into a file: see :meth:`Storage.download`."""
    if part_bytes < 1:
        raise ValueError(f"part_bytes={part_bytes}: at least 1")
    info = storage.stat(key)
    if info.etag is None or info.size is None or info.size <= part_bytes:
        # In one piece, which backends compare with the checksum of the whole where there is one.
        info, data = storage.fetch(key)
        parts: tuple[bytes, ...] = (data,)
    else:
        parts = ()
    name = hashlib.blake2b(repr((storage.identity, key, info.etag, str(path))).encode(), digest_size=12).hexdigest()
    part = path.with_name(f"{TEMPORARY}{name}.part")
    with _locked(part) as file:
        if parts:
            file.truncate(0)
            file.write(parts[0])
        else:
            assert info.size is not None
            for start in range(_resumed(file, info.size), info.size, part_bytes):
                file.write(storage.read(key, start=start, length=part_bytes, etag=info.etag))
        file.flush()
        os.fsync(file.fileno())
        part.replace(path)
    return info


def _resumed(file: IO[bytes], size: int) -> int:
    """Bytes that an earlier download left; none if they are too many."""
    file.seek(0, os.SEEK_END)
    if file.tell() > size:
        file.truncate(0)
        file.seek(0)
    return file.tell()


def _locked(part: Path) -> IO[bytes]:
    """Open a file for appending when no other process does; the lock goes with the file, or with the process."""
    while True:
        file = part.open("ab")
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if os.fstat(file.fileno()).st_ino == part.stat().st_ino:
                return file
        except FileNotFoundError:
            file.close()  # the other process finished it
        else:
            file.close()
