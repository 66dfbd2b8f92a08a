"""How one entry, a dictionary of tensors, lies in bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import torch
import xxhash
from torch import Tensor

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names of dtypes in the safetensors format."""

CODES: Mapping[torch.dtype, str] = {dtype: code for code, dtype in DTYPES.items()}

ALIGNMENT = 64
"""Every entry starts at a multiple of it, so every tensor of the file may be viewed where it lies."""

PADDING = "~"
"""Name of the bytes that fill an entry up: the format allows no holes."""

MOST_DIMENSIONS = 16
MOST_BYTES = 2**40
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


class TensorSpec(NamedTuple):
    """One tensor of an entry.

    Attributes:
        name: in the dictionary.
        code: dtype as safetensors writes it.
        shape: sizes.
    """

    name: str
    code: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return prod(self.shape) * DTYPES[self.code].itemsize


class Place(NamedTuple):
    """Where a tensor lies within an entry, ready for ``as_strided``."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    itemsize: int


@dataclass(frozen=True)
class EntrySpec:
    """Names, dtypes and shapes of an entry, in the order in which they lie: widest elements first, then by name.

    Raises:
        ValueError: if a name, dtype or shape cannot be stored, or there is nothing to store.
    """

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        """Check what came from a caller or from a file."""
        if not self.tensors:
            raise ValueError("an entry needs at least one tensor")
        for tensor in self.tensors:
            _check(tensor)
        if tuple(sorted(self.tensors, key=_order)) != self.tensors or len({t.name for t in self.tensors}) < len(
            self.tensors
        ):
            raise ValueError(f"tensors {[t.name for t in self.tensors]} are out of order or named twice")
        if self.nbytes > MOST_BYTES:
            raise ValueError(f"{self.nbytes} bytes in one entry")

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> EntrySpec:
        """The layout of a dictionary of tensors."""
        for name, tensor in tensors.items():
            if tensor.dtype not in CODES:
                raise ValueError(f"{name}: {tensor.dtype} cannot be stored; use one of {', '.join(map(str, CODES))}")
        specs = (TensorSpec(name, CODES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items())
        return cls.sorted(specs)

    @classmethod
    def sorted(cls, tensors: Iterable[TensorSpec]) -> EntrySpec:
        """The layout of tensors in any order."""
        return cls(tuple(sorted(tensors, key=_order)))

    @cached_property
    def content_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the entry, filled up to the alignment."""
        return -(-self.content_bytes // ALIGNMENT) * ALIGNMENT

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Where each tensor lies."""
        found: list[Place] = []
        start = 0
        for name, code, shape in self.tensors:
            dtype = DTYPES[code]
            found.append(Place(name, dtype, shape, _strides(shape), start, dtype.itemsize))
            start += prod(shape) * dtype.itemsize
        return tuple(found)

    @cached_property
    def seed(self) -> int:
        """What the checksum starts from: names, dtypes and shapes belong to the content."""
        return xxhash.xxh3_64_intdigest(repr([tuple(tensor) for tensor in self.tensors]).encode())


def checksum(key: bytes, spec: EntrySpec, payload: bytes | bytearray | memoryview) -> int:
    """32 bits of XXH3 over layout, key and bytes of an entry: against accidents, not against forgery."""
    return xxhash.xxh3_64_intdigest(payload, xxhash.xxh3_64_intdigest(key, spec.seed)) & 0xFFFFFFFF


def pack(spec: EntrySpec, tensors: Mapping[str, Tensor]) -> bytearray:
    """Copy tensors into the bytes of an entry; later changes to them do not reach it."""
    payload = bytearray(spec.nbytes)
    for place in spec.places:
        tensor = tensors[place.name].detach()
        if tensor.numel():
            flat = torch.frombuffer(payload, dtype=place.dtype, count=tensor.numel(), offset=place.start)
            flat.copy_(tensor.reshape(-1))
    return payload


def unpack(spec: EntrySpec, typed: Mapping[torch.dtype, Tensor], start: int) -> dict[str, Tensor]:
    """Views of an entry's tensors.

    Args:
        spec: its layout.
        typed: the same memory as a flat tensor of each dtype that the entry has.
        start: byte in that memory at which the entry begins, a multiple of the alignment.
    """
    return {
        place.name: typed[place.dtype].as_strided(place.shape, place.stride, (start + place.start) // place.itemsize)
        for place in spec.places
    }


def _check(tensor: TensorSpec) -> None:
    if _NAME.fullmatch(tensor.name) is None:
        raise ValueError(f"tensor name {tensor.name!r}: 1 to 64 letters, digits, '_', '.' or '-'")
    if tensor.code not in DTYPES:
        raise ValueError(f"{tensor.name}: dtype {tensor.code!r} is none of {', '.join(DTYPES)}")
    sizes = tensor.shape
    if len(sizes) > MOST_DIMENSIONS or any(type(size) is not int or not 0 <= size <= MOST_BYTES for size in sizes):
        raise ValueError(f"{tensor.name}: shape {sizes} is not one of a tensor")


def _order(tensor: TensorSpec) -> tuple[int, str]:
    dtype = DTYPES.get(tensor.code)
    return (-dtype.itemsize if dtype is not None else 0, tensor.name)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
