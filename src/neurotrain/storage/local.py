"""A folder of this machine as a storage."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Literal

from neurotrain.storage.base import (
    AccessDeniedError,
    ChangedError,
    InvalidKeyError,
    ObjectInfo,
    ObjectNotFoundError,
    Storage,
    StorageError,
    TransientError,
    TruncatedError,
)
from neurotrain.storage.download import TEMPORARY
from neurotrain.storage.keys import check_range, key_problem, prefix_problem
from neurotrain.storage.statistics import Counter, Statistics

_PASSING = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE, errno.ENFILE})
# Without O_NONBLOCK, opening a pipe that lies among the images would wait for ever.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class LocalStorage(Storage):
    """Files below one folder.

    Links are followed as long as they stay below the root (or below a folder of ``links_into``): a file that an archive
    or another user put there can't make a run read elsewhere. A link that leads out is listed, without size and etag,
    and refused when it is read, so that it costs one sample and is seen.

    Args:
        root: the folder; it need not exist until something is written.
        etag: ``"stat"`` takes size, time of change in nanoseconds and file number as a content's identity;
            ``"content"`` hashes the content, which reads every file that is listed.
        links_into: further folders that links may lead into.

    Example:
        >>> storage = LocalStorage(root="photos")
        >>> storage.write("2024/a.txt", b"hello").size
        5
        >>> storage.read("2024/a.txt", start=1, length=3)
        b'ell'
        >>> storage.read("../a.txt")
        Traceback (most recent call last):
        neurotrain.storage.base.InvalidKeyError: file:///.../photos/../a.txt: a key is a relative path ...
    """

    def __init__(
        self, *, root: Path | str, etag: Literal["stat", "content"] = "stat", links_into: Sequence[Path | str] = ()
    ) -> None:
        if etag not in ("stat", "content"):
            raise ValueError(f"etag={etag!r}: 'stat' or 'content'")
        self.root = Path(root).expanduser().absolute()
        self.etag = etag
        self.links_into = tuple(Path(folder).expanduser().absolute() for folder in links_into)
        self._root = str(self.root)
        self._tops = (f"{self._root}/",)
        self._counter = Counter()

    @property
    def uri(self) -> str:
        """``file://`` and the folder."""
        return f"file://{self._root}"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield files in the order of their keys; one folder at a time is held in memory."""
        problem = prefix_problem(prefix)
        if problem is not None:
            raise InvalidKeyError(self.uri_of(prefix), problem)
        folder = prefix.rpartition("/")[0]
        yield from self._walk(f"{folder}/" if folder else "", prefix, above=frozenset())

    def read(self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None) -> bytes:
        """Read a file, or a part of it: see :meth:`Storage.read`."""
        began = perf_counter()
        check_range(start, length)
        with self._errors(key):
            descriptor, status = self._open(key)
            try:
                size = max(0, status.st_size - start)
                size = size if length is None else min(size, length)
                data = pread(descriptor, size, start)
                if etag is not None and self._info(key, status, descriptor).etag != etag:
                    raise ChangedError(self.uri_of(key), f"it is no longer the file of etag {etag}")
            finally:
                os.close(descriptor)
            if len(data) != size:
                raise TruncatedError(self.uri_of(key), f"{len(data)} of {size} bytes: the file shrank")
        mine = self._counter.mine()
        mine.reads += 1
        mine.bytes_read += size
        mine.wait_seconds += perf_counter() - began
        return data

    def write(self, key: str, data: bytes | Path) -> ObjectInfo:
        """Write a file: to a temporary name, to the disk, then to its place, so that it is whole or not there."""
        began = perf_counter()
        target = self._path(key)
        with self._errors(key):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._check_inside(os.path.realpath(target.parent), key)
            temporary = target.parent / f"{TEMPORARY}{secrets.token_hex(8)}.part"
            try:
                size = _write_through(temporary, data)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(target.parent)
        mine = self._counter.mine()
        mine.writes += 1
        mine.bytes_written += size
        mine.wait_seconds += perf_counter() - began
        return self.stat(key)

    def stat(self, key: str) -> ObjectInfo:
        """Size, identity and time of a file: see :meth:`Storage.stat`."""
        with self._errors(key):
            descriptor, status = self._open(key)
            try:
                return self._info(key, status, descriptor)
            finally:
                os.close(descriptor)

    def delete(self, key: str) -> None:
        """Remove a file (of a link, the link); folders that become empty stay."""
        path = self._path(key)
        with self._errors(key), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._check_inside(os.path.realpath(path.parent), key)
            path.unlink()

    def statistics(self) -> Statistics:
        """What this instance did in this process."""
        return self._counter.total()

    def path_of(self, key: str) -> Path:
        """Where an object lies, for libraries that want a path; checked like a read."""
        with self._errors(key):
            os.close(self._open(key)[0])
        return self._path(key)

    def _path(self, key: str) -> Path:
        problem = key_problem(key)
        if problem is not None:
            raise InvalidKeyError(self.uri_of(key), problem)
        if key.rpartition("/")[2].startswith(TEMPORARY):
            raise InvalidKeyError(
                self.uri_of(key), f"names that begin with {TEMPORARY!r} are those of unfinished files"
            )
        return self.root / key

    def _open(self, key: str) -> tuple[int, os.stat_result]:
        """Open a regular file that truly lies below the root."""
        if key_problem(key) is not None:
            self._path(key)
        descriptor = os.open(f"{self._root}/{key}", _READ)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ObjectNotFoundError(self.uri_of(key), "not a regular file")
            self._check_inside(_real_path(descriptor, f"{self._root}/{key}"), key)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, status

    def _check_inside(self, real: str, key: str) -> None:
        if f"{real}/".startswith(self._tops):
            return
        # The root itself may be a link, and may have been made only now.
        self._tops = tuple(f"{os.path.realpath(top).rstrip('/')}/" for top in (self.root, *self.links_into))
        if not f"{real}/".startswith(self._tops):
            raise InvalidKeyError(self.uri_of(key), "a link leads out of the root: name the folder in links_into")

    def _walk(self, folder: str, prefix: str, *, above: frozenset[tuple[int, int]]) -> Iterator[ObjectInfo]:
        """Objects below ``folder`` (empty, or ending in a slash), by key; ``above`` are the folders on the way."""
        path = f"{self._root}/{folder}"
        try:
            self._check_inside(os.path.realpath(path), folder.rstrip("/"))
            status = Path(path).stat()
            with os.scandir(path) as found:
                # A folder sorts as its objects do: with the slash behind its name.
                names = sorted((f"{entry.name}/" if _is_folder(entry) else entry.name, entry) for entry in found)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self._typed(error, folder) from None
        above |= {(status.st_dev, status.st_ino)}
        for name, entry in names:
            key = f"{folder}{name}"
            if name.startswith(TEMPORARY) or not (key.startswith(prefix) or prefix.startswith(key)):
                continue
            if name.endswith("/") and not (entry.is_symlink() and self._is_closed(entry, above)):
                yield from self._walk(key, prefix, above=above)
            elif key.removesuffix("/").startswith(prefix):
                yield self._listed(key.removesuffix("/"), entry)

    def _is_closed(self, link: os.DirEntry[str], above: frozenset[tuple[int, int]]) -> bool:
        """Whether a link to a folder leads out of the root, or back to a folder on the way to it."""
        status = link.stat()
        try:
            self._check_inside(os.path.realpath(link.path), link.name)
        except InvalidKeyError:
            return True
        return (status.st_dev, status.st_ino) in above

    def _info(self, key: str, status: os.stat_result, descriptor: int) -> ObjectInfo:
        return _info(key, status, descriptor if self.etag == "content" else None)

    def _listed(self, key: str, entry: os.DirEntry[str]) -> ObjectInfo:
        """What is known of a file; of one that can't be read, its key, so that the read says why."""
        if self.etag == "stat" and entry.is_file(follow_symlinks=False):
            return _info(key, entry.stat(follow_symlinks=False))
        try:
            return self.stat(key)
        except (ObjectNotFoundError, InvalidKeyError, AccessDeniedError):
            return ObjectInfo(key=key, size=None, etag=None, modified=None)

    @contextlib.contextmanager
    def _errors(self, key: str) -> Generator[None]:
        try:
            yield
        except StorageError:
            self._counter.mine().errors += 1
            raise
        except OSError as error:
            self._counter.mine().errors += 1
            raise self._typed(error, key) from None

    def _typed(self, error: OSError, key: str) -> StorageError:
        uri, reason = self.uri_of(key), error.strerror or str(error)
        if isinstance(error, StorageError):
            return error
        if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
            return ObjectNotFoundError(uri, reason)
        if isinstance(error, PermissionError):
            return AccessDeniedError(uri, reason)
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL):
            return InvalidKeyError(uri, reason)
        # Device or address: a socket lies there.
        if error.errno == errno.ENXIO:
            return ObjectNotFoundError(uri, "not a regular file")
        return (TransientError if error.errno in _PASSING else StorageError)(uri, reason)


def _info(key: str, status: os.stat_result, content: int | None = None) -> ObjectInfo:
    """What the system says of a file; its identity is a hash where its content is given as an open descriptor."""
    etag = f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ino:x}"
    if content is not None:
        with open(content, "rb", closefd=False) as file:
            etag = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()
    return ObjectInfo(key=key, size=status.st_size, etag=etag, modified=status.st_mtime)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _real_path(descriptor: int, path: str) -> str:
    """Where an open file truly lies; asking the descriptor leaves no moment in which a link could be exchanged."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a Path costs as much as the read
    except OSError:  # no /proc
        return os.path.realpath(path)


def pread(descriptor: int, size: int, start: int) -> bytes:
    """Read ``size`` bytes of an open file from ``start`` on; fewer only where it ends."""
    if size <= 0:
        return b""
    data = os.pread(descriptor, size, start)
    if len(data) == size or not data:
        return data
    parts = [data]  # Linux returns at most 2 GiB at once
    while data and sum(map(len, parts)) < size:
        data = os.pread(descriptor, size - sum(map(len, parts)), start + sum(map(len, parts)))
        parts.append(data)
    return b"".join(parts)


def _write_through(path: Path, data: bytes | Path) -> int:
    """Write a new file down to the disk and return its size."""
    with path.open("xb") as file:
        if isinstance(data, Path):
            with data.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
        else:
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
