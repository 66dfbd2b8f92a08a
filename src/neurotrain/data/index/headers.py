"""Size, number of frames and orientation of an image out of its header, without decoding a pixel."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from neurotrain.data.datasets.decoding import FORMATS

_FIRST = 64 * 2**10
"""Bytes that hold the header of nearly every JPEG, PNG, GIF and WebP."""

_TRANSPOSED = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap width and height."""

_ORIENTATION = 0x0112
_WALKED = re.compile(rb"GIF8|II[*+]\0|MM\0[*+]|RIFF....WEBP", re.DOTALL)
"""Formats whose frames are counted by walking through the file; a TIFF's directory may stand at its end."""


class HeaderError(ValueError):
    """The bytes do not begin like an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What the first bytes of an image say.

    Attributes:
        format: Pillow's name of it (``JPEG``, ``PNG``, ...).
        width: pixels, as it is shown: after the orientation that it states is applied.
        height: likewise.
        frames: 1 for a still picture.
    """

    format: str
    width: int
    height: int
    frames: int


def read_header(read: Callable[[int | None], bytes]) -> ImageHeader:
    """Read an image's header.

    Args:
        read: gives the first so many bytes of the file, or all of it for None; called a second time only where the
            first 64 KiB do not tell.

    Returns:
        What it says.

    Raises:
        HeaderError: if the whole file is no image of a known format.

    Example:
        >>> from PIL import Image
        >>> stream = BytesIO()
        >>> Image.new("RGB", (8, 6)).save(stream, "PNG")
        >>> read_header(lambda length: stream.getvalue()[:length])
        ImageHeader(format='PNG', width=8, height=6, frames=1)
    """
    start = read(_FIRST)
    if len(start) < _FIRST:
        return _parsed(start)
    if _WALKED.match(start):
        return _parsed(read(None))
    try:
        return _parsed(start)
    except HeaderError:
        return _parsed(read(None))


def _parsed(data: bytes) -> ImageHeader:
    from PIL import Image

    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            name = image.format or ""
            # Not on Pillow's base class.
            frames = int(getattr(image, "n_frames")) if name in ("GIF", "TIFF", "WEBP") else 1  # noqa: B009
            width, height = image.size
            # Asked for its EXIF, a PNG without any decodes all of its pixels to look behind them.
            states_it = name in ("JPEG", "MPO", "WEBP") or "exif" in image.info
            if states_it and image.getexif().get(_ORIENTATION) in _TRANSPOSED:
                width, height = height, width
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise HeaderError(str(error)) from error
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, struct.error, zlib.error) as error:
        raise HeaderError(f"no image: {type(error).__name__}: {error}") from error
    return ImageHeader(format=name, width=width, height=height, frames=frames)
