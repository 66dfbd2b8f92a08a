"""JPEG to pixels through libjpeg-turbo, without Pillow's overhead and with its pixels."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_START = b"\xff\xd8\xff"
_EXIF = b"Exif\0\0"
_APP1, _SOS = 0xE1, 0xDA
_ORIENTATION = 0x0112
_PLAIN = frozenset({"YCbCr", "Gray", "RGB"})
"""Colour spaces that libjpeg-turbo turns into RGB as Pillow does; CMYK and YCCK are Pillow's."""


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes begin like a JPEG."""
    return data[:3] == _START


def jpeg_pixels(data: bytes, *, max_pixels: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8] | None:
    """Decode a JPEG into RGB, as it is stored.

    Args:
        data: the whole file.
        max_pixels: a header that promises more is not decoded.
        out: memory for at least ``height * width * 3`` bytes to decode into; None: new memory.

    Returns:
        uint8 ``(H, W, 3)``, in ``out`` where that is given. None where Pillow has to decide: another colour space, too
        many pixels, a damaged file, ``out`` of another shape.
    """
    import simplejpeg

    try:
        size_y, size_x, space, _ = simplejpeg.decode_jpeg_header(data)
        height, width = int(size_y), int(size_x)
        if space not in _PLAIN or height * width > max_pixels:
            return None
        if out is not None and out.shape != (height, width, 3):
            return None
        return simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    except ValueError:
        # What libjpeg-turbo only warns of is an error here; Pillow tells harmless extra bytes from a truncated file.
        return None


def jpeg_orientation(data: bytes) -> int:
    """EXIF orientation of a JPEG.

    Args:
        data: the file, or its beginning.

    Returns:
        1 to 8; 1 where nothing (sensible) is said.

    Reference:
        JEITA CP-3451 (EXIF 2.32), section 4.6.4; JPEG segments: ITU-T T.81, annex B.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _SOS or length < 2:
            break
        if marker == _APP1 and data[position + 4 : position + 10] == _EXIF:
            return _tiff_orientation(data[position + 10 : position + 2 + length])
        position += 2 + length
    return 1


def turned(pixels_HWC: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Show stored pixels as their EXIF orientation says.

    Args:
        pixels_HWC: as stored.
        orientation: 1 to 8.

    Returns:
        A view.

    Example:
        >>> turned(np.arange(6, dtype=np.uint8).reshape(2, 3, 1), 6)[..., 0]
        array([[3, 0],
               [4, 1],
               [5, 2]], dtype=uint8)
    """
    if orientation >= 5:
        pixels_HWC = pixels_HWC.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels_HWC = pixels_HWC[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels_HWC = pixels_HWC[::-1]
    return pixels_HWC


def _tiff_orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    if directory + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(directory + 2, min(directory + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
        if tag == _ORIENTATION and kind == 3:
            (value,) = struct.unpack_from(f"{order}H", tiff, entry + 8)
            return value if 1 <= value <= 8 else 1
    return 1
