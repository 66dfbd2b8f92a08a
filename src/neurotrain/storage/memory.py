"""Objects in this process's memory: for tests, examples and small generated data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem

from neurotrain.storage.base import ChangedError, InvalidKeyError, ObjectInfo, ObjectNotFoundError, Storage
from neurotrain.storage.keys import check_range, key_problem, prefix_problem
from neurotrain.storage.statistics import Counter, Statistics


class MemoryStorage(Storage):
    """Objects of fsspec's memory filesystem below ``memory://name``.

    All instances of one name in one process share their objects, as fsspec's do. A forked process starts with the
    objects of that moment; a pickled instance brings its objects along to a process that has none below that name.

    Args:
        name: one word that tells this root from others.

    Raises:
        ValueError: if the name is empty or holds a slash.

    Example:
        >>> storage = MemoryStorage(name="doctest")
        >>> storage.write("a.bin", b"123").size
        3
        >>> storage.delete("a.bin")
        >>> list(storage.list())
        []
    """

    def __init__(self, *, name: str) -> None:
        if key_problem(name) is not None or "/" in name:
            raise ValueError(f"name={name!r}: one word without slashes")
        self.name = name
        self._filesystem = MemoryFileSystem()
        self._counter = Counter()

    @property
    def uri(self) -> str:
        """``memory://`` and the name."""
        return f"memory://{self.name}"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield objects by key: those of the moment of the call."""
        problem = prefix_problem(prefix)
        if problem is not None:
            raise InvalidKeyError(self.uri_of(prefix), problem)
        top = f"/{self.name}/"
        for key in sorted(path.removeprefix(top) for path in tuple(self._filesystem.store) if path.startswith(top)):
            if key.startswith(prefix):
                yield self.stat(key)

    def read(self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None) -> bytes:
        """Read an object, or a part of it: see :meth:`Storage.read`."""
        check_range(start, length)
        content = self._content(key)
        if etag is not None and _etag(content) != etag:
            raise ChangedError(self.uri_of(key), f"it is no longer the object of etag {etag}")
        data = content[start : None if length is None else start + length]
        mine = self._counter.mine()
        mine.reads += 1
        mine.bytes_read += len(data)
        return data

    def write(self, key: str, data: bytes | Path) -> ObjectInfo:
        """Keep an object."""
        content = data.read_bytes() if isinstance(data, Path) else bytes(data)
        self._filesystem.pipe_file(self._path(key), content)
        mine = self._counter.mine()
        mine.writes += 1
        mine.bytes_written += len(content)
        return self.stat(key)

    def stat(self, key: str) -> ObjectInfo:
        """Size, hash of the content, and time of an object: see :meth:`Storage.stat`."""
        content = self._content(key)
        modified = self._filesystem.modified(self._path(key)).timestamp()
        return ObjectInfo(key=key, size=len(content), etag=_etag(content), modified=modified)

    def delete(self, key: str) -> None:
        """Forget an object."""
        self._filesystem.store.pop(self._path(key), None)

    def statistics(self) -> Statistics:
        """What this instance did in this process."""
        return self._counter.total()

    def __getstate__(self) -> dict[str, Any]:
        """Name and objects."""
        return {"name": self.name, "objects": {info.key: self._content(info.key) for info in self.list()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the objects over where this process has none below the name."""
        MemoryStorage.__init__(self, name=state["name"])
        if next(self.list(), None) is None:
            for key, content in state["objects"].items():
                self._filesystem.pipe_file(self._path(key), content)

    def _path(self, key: str) -> str:
        problem = key_problem(key)
        if problem is not None:
            raise InvalidKeyError(self.uri_of(key), problem)
        return f"/{self.name}/{key}"

    def _content(self, key: str) -> bytes:
        held = self._filesystem.store.get(self._path(key))
        if held is None:
            self._counter.mine().errors += 1
            raise ObjectNotFoundError(self.uri_of(key), "no such object")
        return held.getvalue()


def _etag(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=20).hexdigest()
