"""Image files to arrays, through Pillow: the only place that opens one.

Nothing that a file says is trusted: formats that run programs (EPS, PDF) are not opened, a picture above
``PIL.Image.MAX_IMAGE_PIXELS`` and a gzip that unpacks above ``GZIP_LIMIT`` are refused, and whatever a decoder raises
comes out as one :class:`~neurotrain.data.datasets.problems.DatasetError` that names the file.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from neurotrain.data.datasets.problems import DatasetError

if TYPE_CHECKING:
    from PIL.Image import Image

GZIP_LIMIT = 64 * 2**20
"""Bytes that a ``.gz`` may unpack to; an image of STARE has 1.3 MB."""

FORMATS = (
    "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
"""Pillow's raster decoders that neither start a program nor load another file."""

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("bmp", "dib", "gif", "jpg", "jpeg", "jp2", "j2k", "mpo", "pcx", "png"),
        *("ppm", "pgm", "pbm", "pnm", "sgi", "tga", "tif", "tiff", "webp"),
    )
)
"""File name endings (lower case) that count as an image."""

DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error)
"""What Pillow's decoders raise at bytes that they cannot make sense of."""


class PixelError(ValueError):
    """The pixels of a picture cannot mean what they should."""


def image_size(path: Path) -> tuple[int, int]:
    """Height and width out of the header, without decoding the pixels.

    Args:
        path: an image file; ``.gz`` is unpacked.

    Returns:
        ``(height, width)`` in pixels.

    Raises:
        DatasetError: if the file is missing, is no image or is too large.
    """
    with _opened(path) as image:
        return image.height, image.width


def read_image(path: Path, *, channels: Literal[1, 3] = 3) -> Tensor:
    """Decode a picture.

    The stored orientation is kept (an EXIF rotation is not applied): masks are drawn on the stored pixels.

    Args:
        path: an image file of 8 bits a channel, or 16-bit greyscale.
        channels: 3 for RGB (greyscale is repeated), 1 for luminance.

    Returns:
        float32 ``(channels, H, W)`` in [0, 1].

    Raises:
        DatasetError: if the file cannot be decoded, or stores numbers of unknown range (32-bit integers, floats).
    """
    with _opened(path) as image:
        try:
            return intensities_of(image, channels=channels)
        except PixelError as error:
            raise DatasetError.single("unreadable", path, str(error)) from error


def read_values(path: Path) -> Tensor:
    """Decode the stored values of a label picture, without interpreting them.

    A palette picture gives its grey values where its whole palette is grey (GIF masks), else its indices (PASCAL VOC).
    An RGB picture must have three equal channels; an alpha channel is left out.

    Args:
        path: an image file of whole numbers.

    Returns:
        int64 ``(H, W)``.

    Raises:
        DatasetError: if the file cannot be decoded or is coloured.
    """
    with _opened(path) as image:
        try:
            return values_of(image)
        except PixelError as error:
            raise DatasetError.single("invalid labels", path, str(error)) from error


def read_binary(path: Path) -> Tensor:
    """Decode a picture of two values.

    Args:
        path: an image file that holds 0 and 1, or 0 and 255.

    Returns:
        bool ``(H, W)``.

    Raises:
        DatasetError: if the file cannot be decoded or holds another value.
    """
    values = read_values(path)
    try:
        return binary_of(values)
    except PixelError as error:
        raise DatasetError.single("invalid labels", path, str(error)) from error


def intensities_of(image: Image, *, channels: Literal[1, 3]) -> Tensor:
    """Pixels of an opened picture; see :func:`read_image`.

    Raises:
        PixelError: if it stores numbers of unknown range.
    """
    if image.mode in ("I", "F"):
        raise PixelError(f"pixels of mode {image.mode} have no known range")
    if image.mode.startswith("I;16"):
        pixels, full_scale = np.array(image)[..., None].astype(np.float32), 65535
    else:
        pixels, full_scale = np.array(image.convert("RGB" if channels == 3 else "L")), 255
    image_CHW = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
    return image_CHW.expand(channels, -1, -1).contiguous().float().div_(full_scale)


def values_of(image: Image) -> Tensor:
    """Stored values of an opened label picture; see :func:`read_values`.

    Raises:
        PixelError: if it is coloured.
    """
    if image.mode == "P" and _is_grey(image.getpalette("RGB") or []):
        values = np.array(image.convert("L"))
    elif image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16"):
        values = np.array(image)
    elif image.mode in ("LA", "PA"):
        values = np.array(image)[..., 0]
    elif image.mode in ("RGB", "RGBA"):
        values = np.array(image)[..., :3]
        if not bool((values == values[..., :1]).all()):
            raise PixelError("is a colour picture, expected one value a pixel")
        values = values[..., 0]
    else:
        raise PixelError(f"has mode {image.mode}, expected whole numbers")
    return torch.from_numpy(values.astype(np.int64))


def binary_of(values: Tensor) -> Tensor:
    """Two values as bool; see :func:`read_binary`.

    Raises:
        PixelError: if there is another value than 0 and 255, or 0 and 1.
    """
    high = max(int(values.max()), 1)
    on = values == high
    if high not in (1, 255) or not bool((on | (values == 0)).all()):
        found = ", ".join(str(int(value)) for value in values.unique()[:8])
        raise PixelError(f"is not binary: holds {found}, expected 0 and 255 (or 0 and 1)")
    return on


def _is_grey(palette: list[int]) -> bool:
    return bool(palette) and palette[0::3] == palette[1::3] == palette[2::3]


def _unpacked(path: Path) -> BytesIO:
    with gzip.open(path) as stream:
        content = stream.read(GZIP_LIMIT + 1)
    if len(content) > GZIP_LIMIT:
        raise DatasetError.single("unreadable", path, f"unpacks to more than {GZIP_LIMIT >> 20} MiB")
    return BytesIO(content)


@contextmanager
def _opened(path: Path) -> Generator[Image]:
    from PIL import Image

    try:
        source = _unpacked(path) if path.suffix.lower() == ".gz" else path
        with Image.open(source, formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            yield image
    except DatasetError:
        raise
    except FileNotFoundError as error:
        raise DatasetError.single("missing", path, "no such file") from error
    # Pillow itself warns above the limit and raises only above twice of it: here both are refusals.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        detail = f"is larger than PIL.Image.MAX_IMAGE_PIXELS allows ({error}): refused as a decompression bomb"
        raise DatasetError.single("unreadable", path, detail) from error
    except DECODER_ERRORS as error:
        raise DatasetError.single("unreadable", path, f"cannot be decoded ({type(error).__name__}: {error})") from error
