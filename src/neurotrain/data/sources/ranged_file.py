"""An object of a storage as a seekable file, for readers that want one."""

from __future__ import annotations

import io
from collections.abc import Sequence

from neurotrain.storage import Storage, StorageError, TruncatedError

BLOCK = 2**20
"""Bytes fetched at least: one request for many small reads."""


class RangedFile(io.RawIOBase):
    """Reads ranges of an object as they are asked for, with one block of read-ahead.

    Args:
        storage: holds the object.
        key: of the object.
        size: bytes; None asks the storage.
        block: bytes fetched at least.
        largest: bytes that one read may ask for; a file that makes its reader ask for more is lying about itself.

    Raises:
        StorageError: if the storage does not tell the size.
    """

    def __init__(
        self, *, storage: Storage, key: str, size: int | None = None, block: int = BLOCK, largest: int | None = None
    ) -> None:
        super().__init__()
        self._storage, self._key, self._block, self._largest = storage, key, block, largest
        known = storage.stat(key).size if size is None else size
        if known is None:
            raise StorageError(storage.uri_of(key), "the server does not tell its size: it cannot be read in ranges")
        self._size = known
        self._position = 0
        self._start, self._held = 0, b""
        self._kept: list[tuple[int, bytes]] = []

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position; nothing is fetched."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes, fewer only at the end of the object.

        Raises:
            StorageError: as the storage does.
            ValueError: if more than ``largest`` bytes are asked for.
        """
        rest = max(0, self._size - self._position)
        wanted = rest if size is None or size < 0 else min(size, rest)
        if self._largest is not None and wanted > self._largest:
            raise ValueError(f"a read of {wanted} bytes at once, at most {self._largest}")
        for start, data in self._kept:
            if start <= self._position <= self._position + wanted <= start + len(data):
                first, self._position = self._position - start, self._position + wanted
                return data[first : first + wanted]
        first = self._position - self._start
        if not 0 <= first <= first + wanted <= len(self._held):
            self._fetch(wanted)
            first = 0
        self._position += wanted
        return self._held[first : first + wanted]

    def keep(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch ranges, with one request each, and answer from them until other ones are to be kept.

        Args:
            ranges: from where, how many bytes.
        """
        self._kept = []
        self._kept = [
            (start, self._storage.read(self._key, start=start, length=length)) for start, length in ranges if length
        ]

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Fill a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _fetch(self, wanted: int) -> None:
        length = min(max(wanted, self._block), self._size - self._position)
        self._held = self._storage.read(self._key, start=self._position, length=length)
        self._start = self._position
        if len(self._held) < wanted:
            reason = f"ends after {self._position + len(self._held)} of {self._size} bytes"
            raise TruncatedError(self._storage.uri_of(self._key), reason)
