"""Objects of the web in a local folder: whole, checked, and named by their address."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neurotrain.data.sources.base import SampleFormatError
from neurotrain.documents import parse_json
from neurotrain.storage.base import Storage

_BLOCK = 2**20
_PART = 2**20
"""Bytes of one read: what an interrupted download loses at most. Smaller objects come in one piece."""


class DownloadCache:
    """A folder of downloaded objects.

    An object lies in ``ab/ab12...``, named by the hash of its address, beside ``ab12....json`` with its size, etag and
    SHA-256. It gets that name when it is complete and its checksums fit; an interrupted download goes on where it
    stopped, as long as the server still has the same object. Processes that share the folder download an object once.

    Args:
        folder: of the cache; made where absent.
        storage: takes addresses as keys.
    """

    def __init__(self, *, folder: Path, storage: Storage) -> None:
        self.folder = folder
        self.storage = storage

    def path_of(self, url: str) -> Path:
        """Where an object lies, or will.

        Example:
            >>> from neurotrain.storage import MemoryStorage
            >>> cache = DownloadCache(folder=Path("cache"), storage=MemoryStorage(name="web"))
            >>> cache.path_of("https://example.org/a.png").as_posix()
            'cache/07/077c887d094368c955d80cb3562e2e0284d1355693196dfdd87e42854ac81349'
        """
        name = hashlib.sha256(url.encode()).hexdigest()
        return self.folder / name[:2] / name

    def has(self, url: str) -> bool:
        """Whether an object is there."""
        return self.path_of(url).is_file()

    def read(self, url: str, *, checksums: Mapping[str, str]) -> tuple[bytes, str]:
        """Read an object, after a download where it is not there.

        Args:
            url: its address.
            checksums: hexadecimal digits by algorithm.

        Returns:
            Its bytes, and their SHA-256.

        Raises:
            StorageError: if it cannot be downloaded.
            SampleFormatError: if its checksum is another one, or the file was damaged since; it is downloaded anew the
                next time.
        """
        self.fetch(url, checksums=checksums)
        path = self.path_of(url)
        facts = parse_json(_facts_of(path).read_text(encoding="utf-8"))
        data = path.read_bytes()
        if len(data) != facts["size"]:
            path.unlink(missing_ok=True)
            shown = self.storage.uri_of(url)
            raise SampleFormatError(f"{shown}: {path} has {len(data)} of {facts['size']} bytes: it has been damaged")
        return data, facts["sha256"]

    def fetch(self, url: str, *, checksums: Mapping[str, str]) -> int:
        """Download an object where it is not there.

        Args:
            url: its address.
            checksums: hexadecimal digits by algorithm.

        Returns:
            Bytes that were downloaded; 0 where it was there.

        Raises:
            StorageError: if it cannot be had.
            SampleFormatError: if its checksum is another one.
        """
        path = self.path_of(url)
        if path.is_file():
            return 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.with_suffix(".lock")):
            if path.is_file():  # another process was faster
                return 0
            arrived = path.with_suffix(".new")
            arrived.unlink(missing_ok=True)
            info = self.storage.download(url, arrived, part_bytes=_PART)
            try:
                digests = _digests(arrived, {"sha256", *checksums})
                for algorithm, expected in checksums.items():
                    if digests[algorithm] != expected.strip().lower():
                        told = f"{algorithm} is {digests[algorithm]}, the table says {expected}"
                        raise SampleFormatError(f"{self.storage.uri_of(url)}: {told}")
                size = arrived.stat().st_size
                facts = {"uri": self.storage.uri_of(url), "size": size, "etag": info.etag, "sha256": digests["sha256"]}
                # What is known of it first: a file without would be one of unknown length.
                _write(_facts_of(path), facts)
                arrived.replace(path)
            finally:
                arrived.unlink(missing_ok=True)
            return size


def _facts_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.write_text(json.dumps(facts), encoding="utf-8")
    temporary.replace(path)


def _digests(path: Path, algorithms: set[str]) -> dict[str, str]:
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            for one in hashes.values():
                one.update(block)
    return {name: one.hexdigest() for name, one in hashes.items()}


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Hold a lock file; the kernel frees it when its holder dies. A thread waits for a thread, too."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
