"""Checked entries in a folder, bounded in bytes, shared by processes each of which may be killed at any time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from neurotrain.storage.download import TEMPORARY
from neurotrain.storage.local import pread

_MAGIC = b"NTCACHE1"
_DIGEST = 16
_HEADER = len(_MAGIC) + _DIGEST
_ACCOUNT = 20
"""Digits of the account, all written at once: a killed process leaves the old number or the new one."""
_LEFT_AFTER_EVICTION = 0.9
"""Share of the bound that an eviction leaves: a scan of the folder makes room for many entries, not for one."""


class _Found(NamedTuple):
    used: int
    size: int
    path: Path
    complete: bool


class DiskCache:
    """Bytes by name in a folder.

    An entry is a file whose header holds the hash of its content, written to a temporary name and renamed; what does
    not match its hash is removed and counts as not there. Room is taken under a lock of the folder, by a file of the
    entry's full size, before the entry is written: the bound holds at every moment. What a killed process leaves behind
    makes the account too high, never too low, until the next eviction scans the folder.

    Args:
        folder: used by this cache alone; made when something is kept.
        max_bytes: of all entries together with their headers.

    Raises:
        ValueError: if the bound is not positive.

    Example:
        >>> cache = DiskCache(Path("cache"), max_bytes=1000)
        >>> cache.get("image of some etag") is None
        True
        >>> cache.put("image of some etag", b"content")
        >>> cache.get("image of some etag")
        b'content'
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes={max_bytes}: at least 1")
        self.folder = folder.expanduser().absolute()
        self.max_bytes = max_bytes
        self._folder = str(self.folder)

    def get(self, name: str, *, most: int | None = None) -> bytes | None:
        """Return an entry's content, and note that it was used.

        Args:
            name: of the entry.
            most: bytes that are worth reading; None for any number.

        Returns:
            The content; None where there is none, or more of it.
        """
        path = self._place(name)
        try:
            # As fast as decoding a small image matters: descriptors and plain strings, no file objects and paths.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            size = os.fstat(descriptor).st_size
            if most is not None and size > most + _HEADER:
                return None
            header, data = os.pread(descriptor, _HEADER, 0), pread(descriptor, size - _HEADER, _HEADER)
            os.utime(descriptor)
        finally:
            os.close(descriptor)
        if header != _header(data):
            Path(path).unlink(missing_ok=True)
            return None
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep an entry; one that is larger than the bound is not kept."""
        size = len(data) + _HEADER
        path = Path(self._place(name))
        if size > self.max_bytes or path.exists():
            return
        with self._room(path, size) as file:
            if file is None:
                return
            # No fsync: what a power cut leaves of an entry does not match its hash.
            file.write(_header(data))
            file.write(data)
            file.flush()
            Path(file.name).replace(path)

    def bytes_held(self) -> int:
        """Bytes of all files of the cache, found by a scan."""
        return sum(found.size for found in self._scan())

    def _place(self, name: str) -> str:
        digest = hashlib.blake2b(name.encode(), digest_size=20).hexdigest()
        return f"{self._folder}/{digest[:2]}/{digest}"

    @contextlib.contextmanager
    def _room(self, path: Path, size: int) -> Generator[IO[bytes] | None]:
        """Make room for an entry, and yield a locked temporary file of its size beside its place.

        None where there is no room, because others write so much at this moment.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}.part"
        try:
            with temporary.open("xb") as file:
                with self._locked() as account:
                    has_room = self._reserve(account, size)
                    if has_room:
                        fcntl.flock(file, fcntl.LOCK_EX)
                        file.truncate(size)
                yield file if has_room else None
        finally:
            temporary.unlink(missing_ok=True)

    def _reserve(self, account: int, size: int) -> bool:
        """Account for a new entry, after an eviction where it is needed."""
        text = os.pread(account, _ACCOUNT, 0)
        held = int(text) if text.isdigit() else self.bytes_held()
        if held + size > self.max_bytes:
            held = self._evict(min(self.max_bytes - size, int(self.max_bytes * _LEFT_AFTER_EVICTION)))
        has_room = held + size <= self.max_bytes
        os.pwrite(account, b"%0*d" % (_ACCOUNT, held + size if has_room else held), 0)
        return has_room

    @contextlib.contextmanager
    def _locked(self) -> Generator[int]:
        """Yield the descriptor of the folder's account while no other process has it; a killed one gives it back."""
        descriptor = os.open(self.folder / "account", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _evict(self, most: int) -> int:
        """Remove what was not used for longest until at most ``most`` bytes are left; return how many are."""
        entries = sorted(self._scan())
        held = sum(found.size for found in entries)
        for found in entries:
            if held <= most:
                break
            if found.complete or _is_abandoned(found.path):
                found.path.unlink(missing_ok=True)
                held -= found.size
        return held

    def _scan(self) -> Iterator[_Found]:
        """Every entry, and every file that is being written or was when its process was killed."""
        for path in self.folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                status = path.stat()
                complete = not path.name.startswith(TEMPORARY)
                yield _Found(status.st_mtime_ns, status.st_size, path, complete)


def _is_abandoned(temporary: Path) -> bool:
    """Whether nobody writes a temporary file any more."""
    try:
        with temporary.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file.seek(0, os.SEEK_END) > 0  # without bytes, it was made a moment ago and takes its lock next
    except (FileNotFoundError, BlockingIOError):
        return False


def _header(data: bytes) -> bytes:
    return _MAGIC + hashlib.blake2b(data, digest_size=_DIGEST).digest()
