"""One file of a cache: a safetensors file that is written once, whole or not at all, and says itself what it holds.

Its header names every tensor ``<key>/<name>`` and holds each entry's checksum, so the files alone are the cache: there
is no other record that could disagree with them after a crash. Any reader of safetensors can open one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neurotrain.data.cache.keys import KEY_BYTES
from neurotrain.data.cache.layout import ALIGNMENT, DTYPES, PADDING, EntrySpec, TensorSpec, checksum, unpack
from neurotrain.data.cache.locks import try_hold
from neurotrain.documents import parse_json

FORMAT = "neurotrain-cache-2"
SUFFIX = ".safetensors"
UNFINISHED = ".part"
MOST_HEADER_BYTES = 512 * 2**20
_SHARD_NAME = re.compile(r"([0-9a-f]{16})-[0-9a-f]{8}-[0-9a-f]{6,}\.safetensors")
_KEY = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CacheFormatError(ValueError):
    """A file of a cache is damaged, or not one that a cache wrote."""


class CacheFullError(OSError):
    """There is no room for more; what was stored before is kept."""


class Entry(NamedTuple):
    """One entry on its way to a file.

    Attributes:
        key: 16 bytes.
        spec: its layout.
        checksum: over key, layout and payload.
        payload: its bytes.
    """

    key: bytes
    spec: EntrySpec
    checksum: int
    payload: bytearray | memoryview


class Located(NamedTuple):
    """One entry in a file.

    Attributes:
        key: 16 bytes.
        spec: its layout.
        checksum: that its bytes must have.
        start: byte of the file at which it begins.
    """

    key: bytes
    spec: EntrySpec
    checksum: int
    start: int


@dataclass(frozen=True)
class ShardInfo:
    """What a folder knows of one file.

    Attributes:
        name: of the file; later names sort behind earlier ones.
        nbytes: size of the file.
        entries: number of entries in it.
    """

    name: str
    nbytes: int
    entries: int

    @property
    def written(self) -> int:
        """Nanoseconds since 1970 at which it was begun."""
        return shard_time(self.name)


def is_shard(name: str) -> bool:
    """Whether a file name is one that a cache gives."""
    return _SHARD_NAME.fullmatch(name) is not None


def shard_time(name: str) -> int:
    """Nanoseconds since 1970 in a shard's name."""
    return int(name[:16], 16)


@dataclass
class ShardNames:
    """Names for new files: no two processes make the same, and a later one sorts behind.

    Attributes:
        last: time in the newest name that is known; clocks of several machines differ.
    """

    last: int = 0

    def __post_init__(self) -> None:
        """Draw this writer's own part of the name."""
        self._writer = secrets.token_hex(4)
        self._count = 0

    def next(self) -> str:
        """A new name."""
        self.last = max(time.time_ns(), self.last + 1)
        self._count += 1
        return f"{self.last:016x}-{self._writer}-{self._count:06x}{SUFFIX}"


def write_shard(folder: Path, name: str, entries: Sequence[Entry]) -> tuple[ShardInfo, list[Located]]:
    """Write a file; under its name it is complete and on the disk.

    Args:
        folder: of the files.
        name: from :class:`ShardNames`.
        entries: at least one.

    Returns:
        The file, and where its entries lie.

    Raises:
        CacheFullError: if there is no room; nothing is left behind.
        OSError: if it cannot be written for another reason.
    """
    header, located = _header(entries)
    temporary = folder / f".{name}{UNFINISHED}"
    try:
        for attempt in (1, 2):
            try:
                _write(temporary, header, entries)
                temporary.rename(folder / name)
                break
            except FileNotFoundError:  # a collector took it for a dead writer's in the moment before it was locked
                if attempt == 2:
                    raise
        _sync(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in _FULL:
            size = len(header) + sum(len(entry.payload) for entry in entries)
            what = f"no room for {size} bytes ({len(entries)} entries) in {folder}: {error.strerror}"
            raise CacheFullError(error.errno, what) from error
        raise
    last = located[-1]
    return ShardInfo(name, last.start + last.spec.nbytes, len(located)), located


def read_header(folder: Path, name: str) -> tuple[ShardInfo, list[Located]]:
    """Read what a file holds, believing nothing: sizes, places and order must be those that a cache writes.

    Raises:
        CacheFormatError: says what is wrong.
        FileNotFoundError: if another process has removed it.
    """
    if not is_shard(name):
        raise CacheFormatError(f"{name!r} is not the name of a shard")
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CacheFormatError(f"{name} is a link: a cache has none") from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CacheFormatError(f"{name} is no file")
        length = int.from_bytes(file.read(8), "little")
        if length > min(status.st_size - 8, MOST_HEADER_BYTES) or (8 + length) % ALIGNMENT:
            raise CacheFormatError(f"{name}: a header of {length} bytes in a file of {status.st_size}")
        text = file.read(length)
    try:
        located = list(_parse(parse_json(text), data_start=8 + length, size=status.st_size))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CacheFormatError(f"{name}: {type(error).__name__}: {error}") from error
    return ShardInfo(name, status.st_size, len(located)), located


class MappedShard:
    """A file in memory: private pages, read when they are touched, shared between processes until one writes.

    Args:
        folder: of the files.
        info: what is known of the file; its size must be that.

    Raises:
        FileNotFoundError: if it is gone.
        CacheFormatError: if it is another file than before.
    """

    def __init__(self, folder: Path, info: ShardInfo) -> None:
        path = folder / info.name
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size != info.nbytes:
            raise CacheFormatError(f"{info.name}: {status.st_size} bytes on disk, {info.nbytes} expected")
        try:
            # Unlike mmap.mmap it keeps no descriptor open: a cache may have more files than a process may open.
            self.raw = torch.from_file(str(path), shared=False, size=info.nbytes, dtype=torch.uint8)
        except RuntimeError as error:
            raise FileNotFoundError(errno.ENOENT, f"cannot map {path}: {error}") from error
        self.typed = _TypedViews(self.raw)

    @cached_property
    def memory(self) -> memoryview:
        """All bytes of the file."""
        content: Any = self.raw.numpy()
        return memoryview(content)

    def payload(self, spec: EntrySpec, start: int) -> memoryview:
        """The bytes of one entry."""
        return self.memory[start : start + spec.nbytes]

    def is_sound(self, entry: Located) -> bool:
        """Whether an entry's bytes have their checksum."""
        return checksum(entry.key, entry.spec, self.payload(entry.spec, entry.start)) == entry.checksum

    def tensors(self, spec: EntrySpec, start: int) -> dict[str, Tensor]:
        """Views of one entry."""
        return unpack(spec, self.typed, start)


class _TypedViews(dict[torch.dtype, Tensor]):
    """The same memory as a flat tensor of each dtype, made when first asked for."""

    def __init__(self, raw: Tensor) -> None:
        super().__init__()
        self._raw = raw

    def __missing__(self, dtype: torch.dtype) -> Tensor:
        self[dtype] = self._raw.view(dtype)
        return self[dtype]


def _header(entries: Sequence[Entry]) -> tuple[bytes, list[Located]]:
    described: dict[str, Any] = {
        "__metadata__": {"format": FORMAT, **{entry.key.hex(): f"{entry.checksum:08x}" for entry in entries}}
    }
    start, starts = 0, list[int]()
    for entry in entries:
        starts.append(start)
        for place, tensor in zip(entry.spec.places, entry.spec.tensors, strict=True):
            first = start + place.start
            described[f"{entry.key.hex()}/{tensor.name}"] = _described(tensor, first)
        filled = entry.spec.nbytes - entry.spec.content_bytes
        if filled:
            padding = TensorSpec(PADDING, "U8", (filled,))
            described[f"{entry.key.hex()}/{PADDING}"] = _described(padding, start + entry.spec.content_bytes)
        start += entry.spec.nbytes
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    located = [
        Located(entry.key, entry.spec, entry.checksum, len(header) + begin)
        for entry, begin in zip(entries, starts, strict=True)
    ]
    return header, located


def _described(tensor: TensorSpec, start: int) -> dict[str, Any]:
    return {"dtype": tensor.code, "shape": list(tensor.shape), "data_offsets": [start, start + tensor.nbytes]}


def _parse(described: dict[str, Any], *, data_start: int, size: int) -> list[Located]:
    checksums = described.pop("__metadata__")
    if checksums.pop("format") != FORMAT:
        raise ValueError(f"not of the format {FORMAT}")
    located: list[Located] = []
    start = data_start
    for text, members in groupby(described.items(), key=lambda item: item[0].partition("/")[0]):
        if _KEY.fullmatch(text) is None:
            raise ValueError(f"{text!r} is no key")
        spec, padding = _spec([(name.partition("/")[2], tensor) for name, tensor in members], start - data_start)
        if padding != spec.nbytes - spec.content_bytes:
            raise ValueError(f"{text} is not filled up to {ALIGNMENT} bytes")
        located.append(Located(bytes.fromhex(text), spec, int(checksums.pop(text), 16), start))
        start += spec.nbytes
    if not located or checksums or start != size:
        raise ValueError(f"it describes {start} bytes, has {size}; {len(checksums)} checksums without an entry")
    return located


def _spec(members: list[tuple[str, Any]], start: int) -> tuple[EntrySpec, int]:
    tensors: list[TensorSpec] = []
    padding = 0
    for name, described in members:
        if padding or not isinstance(described["shape"], list):
            raise ValueError(f"{name!r} lies where no tensor may")
        tensor = TensorSpec(name, described["dtype"], tuple(described["shape"]))
        if tensor.code not in DTYPES or any(type(length) is not int or length < 0 for length in tensor.shape):
            raise ValueError(f"{name!r} has the dtype {tensor.code!r} and the shape {tensor.shape}")
        if described["data_offsets"] != [start, start + tensor.nbytes]:
            raise ValueError(f"{name!r} lies at {described['data_offsets']}, not at {start}")
        start += tensor.nbytes
        if name == PADDING:
            padding = tensor.nbytes
        else:
            tensors.append(tensor)
    return _interned(tuple(tensors)), padding


@lru_cache(maxsize=4096)
def _interned(tensors: tuple[TensorSpec, ...]) -> EntrySpec:
    return EntrySpec(tensors)  # a million entries have a handful of layouts


def _write(path: Path, header: bytes, entries: Sequence[Entry]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        # Held while this process lives: a collector leaves the file alone.
        try_hold(descriptor)
        for piece in (header, *(entry.payload for entry in entries)):
            _write_all(descriptor, memoryview(piece))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(descriptor, piece) :]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
