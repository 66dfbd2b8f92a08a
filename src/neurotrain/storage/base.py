"""What every storage backend does: bytes by key, one set of errors, whatever lies underneath."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


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
    """

    transient = False
    """Whether the same call may succeed later."""

    def __init__(self, uri: str, reason: str) -> None:
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
    while pickled, and work after ``fork`` and in spawned processes. Every method raises :class:`StorageError`'s children
    and nothing else of its backend's.
    """

    @property
    @abstractmethod
    def uri(self) -> str:
        """Root, for messages and manifests: no secrets in it."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield every object whose key starts with ``prefix``, sorted by key, page by page; nothing where none is."""

    @abstractmethod
    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Read an object, or the ``length`` bytes of it from ``start`` on (fewer only where the object ends).

        Raises:
            ObjectNotFoundError: if there is none.
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
