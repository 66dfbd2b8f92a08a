"""What every storage backend does: bytes by key, one set of errors, whatever lies underneath."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from neurotrain.storage.download import download
from neurotrain.storage.keys import redact
from neurotrain.storage.statistics import Statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What a backend knows of one object without reading it.

    Attributes:
        key: path below the storage's root, with ``/`` between parts.
        size: bytes; None where a server does not tell.
        etag: identity of the content that changes when the content does; None where the backend has none.
        modified: seconds since 1970, UTC; None where the backend does not tell.
    """

    key: str
    size: int | None
    etag: str | None
    modified: float | None


class StorageError(OSError):
    """Something went wrong at one URI; secrets are removed from the message.

    Args:
        uri: of the object or prefix; credentials, query strings and tokens in it are not shown.
        reason: what went wrong.

    Example:
        >>> print(StorageError("https://ann:pw@host.org/a.png?token=1", "500 Internal Server Error"))
        https://***@host.org/a.png?***: 500 Internal Server Error
    """

    transient = False
    """Whether the same call may succeed later."""

    def __init__(self, uri: str, reason: str) -> None:
        uri, reason = redact(uri), redact(reason)
        # Both travel through pickling between processes, which calls the constructor with ``args``.
        super().__init__(uri, reason)
        self.uri = uri
        self.reason = reason

    def __str__(self) -> str:
        """The URI and the reason."""
        return f"{self.uri}: {self.reason}"


class ObjectNotFoundError(StorageError):
    """There is no such object."""


class AccessDeniedError(StorageError):
    """The credentials do not allow it, or there are none."""


class AddressRefusedError(AccessDeniedError):
    """The address is private, or no web address at all, and was not allowed by name."""


class InvalidKeyError(StorageError, ValueError):
    """The key cannot name an object below the root: it is absolute, climbs out, or follows a link that leads out."""


class UnsupportedOperationError(StorageError):
    """This backend cannot do that at all."""


class ChangedError(StorageError):
    """The object is another one than it was when the caller learned its etag."""


class TruncatedError(StorageError):
    """Fewer or other bytes arrived than the backend announced."""

    transient = True


class TransientError(StorageError):
    """A server's or the network's passing fault, after the last retry."""

    transient = True


class DeadlineError(TransientError):
    """No answer within the deadline."""


class Storage(ABC):
    """Bytes by key below one root.

    Keys are relative, with ``/`` between parts, and never leave the root. Instances are picklable, hold no connection
    while pickled, and work after ``fork`` and in spawned processes; threads may share one. Every method raises
    :class:`StorageError`'s children and nothing else of its backend's.

    Example:
        >>> from neurotrain.storage import MemoryStorage
        >>> storage = MemoryStorage(name="example")
        >>> _ = storage.write("train/a.txt", b"first")
        >>> _ = storage.write("train/b.txt", b"second")
        >>> [info.key for info in storage.list("train/")]
        ['train/a.txt', 'train/b.txt']
        >>> storage.read("train/b.txt", start=3, length=2)
        b'on'
        >>> storage.exists("train/c.txt")
        False
    """

    @property
    @abstractmethod
    def uri(self) -> str:
        """Root, for messages and manifests: no secrets in it."""

    @property
    def identity(self) -> str:
        """What tells this root from every other one; the URI, and the server where the URI does not name it."""
        return self.uri

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield every object whose key starts with ``prefix``, sorted by key, page by page; nothing where none is."""

    @abstractmethod
    def read(self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None) -> bytes:
        """Read an object, or the ``length`` bytes of it from ``start`` on (fewer only where the object ends).

        Args:
            key: which object.
            start: first byte.
            length: bytes to read; None reads to the end.
            etag: what the object is expected to be, as a listing said; None takes any.

        Raises:
            ObjectNotFoundError: if there is none.
            ChangedError: if it is not the one that is expected.
            TruncatedError: if the bytes that arrived are not those that were announced.
        """

    @abstractmethod
    def write(self, key: str, data: bytes | Path) -> ObjectInfo:
        """Write an object, or a local file's content, whole or not at all."""

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo:
        """Size, etag and time of one object.

        Raises:
            ObjectNotFoundError: if there is none.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""

    def fetch(self, key: str, *, start: int = 0, length: int | None = None) -> tuple[ObjectInfo, bytes]:
        """Read an object, or a part of it, together with what is known of it at that moment."""
        info = self.stat(key)
        return info, self.read(key, start=start, length=length, etag=info.etag)

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self.stat(key)
        except ObjectNotFoundError:
            return False
        return True

    def uri_of(self, key: str) -> str:
        """URI of one object, for messages."""
        return f"{self.uri.rstrip('/')}/{key}"

    def read_many(self, keys: Iterable[str]) -> Iterator[bytes | StorageError]:
        """Read objects and yield them in the order of ``keys``; remote backends fetch several at once, and no more.

        Args:
            keys: which; consumed only as fast as the results are taken.

        Returns:
            The bytes of each object, or the error that stands in its place: one bad object costs only itself.
        """
        for key in keys:
            try:
                yield self.read(key)
            except StorageError as error:
                yield error

    def download(self, key: str, path: Path, *, part_bytes: int = 16 << 20) -> ObjectInfo:
        """Bring an object into a local file in parts: whole or not at all, and continued where a killed one stopped.

        Args:
            key: which object.
            path: the file; it appears, or is replaced, when it is complete. Until then its parts are kept beside it.
            part_bytes: size of one read.

        Returns:
            What was downloaded.

        Raises:
            ChangedError: if the object became another one meanwhile.
        """
        return download(self, key, path, part_bytes=part_bytes)

    def statistics(self) -> Statistics:
        """What this instance did in this process; zeros where a backend does not count."""
        return Statistics()

    def close(self) -> None:
        """Give connections back, where there are any; the next call opens new ones."""
        return

    def __repr__(self) -> str:
        """Class and root: no secrets."""
        return f"{type(self).__name__}({self.uri})"
