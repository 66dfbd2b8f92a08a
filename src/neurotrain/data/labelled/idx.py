"""The idx format of MNIST: a header of magic number and sizes, then bytes; plain or gzip-compressed."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.sources.base import SampleFormatError

_UNSIGNED_BYTES = 0x08  # the third byte of the magic number; official MNIST files hold nothing else


def read_idx(data: bytes, *, uri: str, dimensions: int, max_bytes: int) -> NDArray[np.uint8]:
    """Read an array of unsigned bytes.

    Args:
        data: the whole file, as it lies or compressed by gzip.
        uri: of it, for messages.
        dimensions: axes that are expected: 3 for images, 1 for labels.
        max_bytes: elements that the header may promise; nothing more is ever unpacked.

    Returns:
        uint8 of the header's shape.

    Raises:
        SampleFormatError: if the header is no idx header of that kind, promises more than ``max_bytes``, or not what
            the file holds.

    Reference:
        LeCun, Cortes and Burges, "The MNIST database of handwritten digits", section "File formats".

    Example:
        >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), uri="labels", dimensions=1, max_bytes=10)
        array([7, 9], dtype=uint8)
    """
    length = 4 + 4 * dimensions
    header = _unpacked(data, limit=length, uri=uri)
    if len(header) < length:
        raise SampleFormatError(f"{uri}: {len(header)} bytes are no idx file of {dimensions} axes")
    magic = tuple(header[:4])
    if magic != (0, 0, _UNSIGNED_BYTES, dimensions):
        raise SampleFormatError(
            f"{uri}: begins with {header[:4].hex()}, an idx file of bytes with {dimensions} axes with "
            f"{bytes([0, 0, _UNSIGNED_BYTES, dimensions]).hex()}"
        )
    shape = struct.unpack(f">{dimensions}I", header[4:])
    count = math.prod(shape)
    if count > max_bytes:
        raise SampleFormatError(f"{uri}: the header promises {count} bytes, at most {max_bytes} are read")
    # One byte more than is wanted tells a file that goes on.
    body = _unpacked(data, limit=length + count + 1, uri=uri)
    if len(body) != length + count:
        have = f"more than {count}" if len(body) > length + count else len(body) - length
        raise SampleFormatError(f"{uri}: the header promises {count} bytes {shape}, the file has {have}")
    return np.frombuffer(body, np.uint8, offset=length).reshape(shape)


def _unpacked(data: bytes, *, limit: int, uri: str) -> bytes:
    """The first ``limit`` bytes: a file of a few bytes may unpack to more than there is memory."""
    if data[:2] != b"\x1f\x8b":
        return data[:limit]
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        body = unpacker.decompress(data, limit)
    except zlib.error as error:
        raise SampleFormatError(f"{uri}: gzip: {error}") from error
    if len(body) < limit and not unpacker.eof:
        raise SampleFormatError(f"{uri}: the gzip data are cut off")
    return body
