"""Encoded images to arrays: every format and colour mode that is met has one stated meaning."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.datasets.decoding import DECODER_ERRORS, FORMATS, PixelError, values_of
from neurotrain.data.decoders.base import MAX_PIXELS
from neurotrain.data.decoders.jpeg import is_jpeg, jpeg_orientation, jpeg_pixels, turned
from neurotrain.data.sources.base import SampleFormatError

if TYPE_CHECKING:
    from PIL.Image import Image

WHITE = (255, 255, 255)


def decode_rgb(
    data: bytes,
    *,
    uri: str,
    max_pixels: int = MAX_PIXELS,
    background: tuple[int, int, int] = WHITE,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Decode an image of any format as it is meant to be seen.

    The EXIF orientation is applied. Grey is repeated; a palette is looked up; what is transparent shows
    ``background``; 16-bit greyscale is scaled to 8 bits and 16-bit colour cut to them; CMYK is converted without a
    profile, as Pillow does it. Of an animation it is the first frame.

    Args:
        data: the whole file.
        uri: of it, for messages.
        max_pixels: a header that promises more is refused before anything is decoded.
        background: colour below transparent pixels.
        out: uint8 ``(H, W, 3)`` memory to decode into; used where the size fits, so look at what is returned.

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        SampleFormatError: if the data is no image, truncated, too large, or stores numbers of unknown range.
    """
    if is_jpeg(data):
        orientation = jpeg_orientation(data)
        pixels = jpeg_pixels(data, max_pixels=max_pixels, out=out if orientation == 1 else None)
        if pixels is not None:
            return np.ascontiguousarray(turned(pixels, orientation))
    with opened(data, uri=uri, max_pixels=max_pixels) as image:
        from PIL import ImageOps

        return rgb_of(ImageOps.exif_transpose(image), uri=uri, background=background)


@contextmanager
def opened(data: bytes, *, uri: str, max_pixels: int = MAX_PIXELS) -> Generator[Image]:
    """Open an image with Pillow; whatever a decoder raises inside comes out as one error.

    Args:
        data: the whole file.
        uri: of it, for messages.
        max_pixels: a header that promises more is refused.

    Yields:
        The image, its pixels not decoded yet.

    Raises:
        SampleFormatError: if the data cannot be decoded or is too large.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, at most {max_pixels}")
            yield image
    except SampleFormatError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SampleFormatError(f"{uri}: refused as a decompression bomb ({error})") from error
    except DECODER_ERRORS as error:
        what = f"{len(data)} bytes cannot be decoded" if data else "is empty"
        raise SampleFormatError(f"{uri}: {what} ({type(error).__name__}: {_plain(error)})") from error


def _plain(error: BaseException) -> str:
    """The message without the address of a buffer, which would differ from run to run."""
    return str(error).partition(" <_io.")[0]


def rgb_of(image: Image, *, uri: str, background: tuple[int, int, int] = WHITE) -> NDArray[np.uint8]:
    """Pixels of an opened image, or of the frame that it stands at; see :func:`decode_rgb`.

    Raises:
        SampleFormatError: if it stores numbers of unknown range.
    """
    from PIL import Image as Pillow

    if image.mode in ("I", "F"):
        raise SampleFormatError(f"{uri}: pixels of mode {image.mode} have no known range")
    if image.mode.startswith("I;16"):
        # Rounded: 257 = 65535 / 255.
        grey = ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        below = Pillow.new("RGBA", image.size, (*background, 255))
        image = Pillow.alpha_composite(below, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def decode_mask(data: bytes, *, uri: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode an image whose pixels are labels: the stored values, up to 255; the EXIF orientation is applied.

    Args:
        data: the whole file.
        uri: of it, for messages.
        max_pixels: a header that promises more is refused.

    Returns:
        uint8 ``(H, W)``.

    Raises:
        SampleFormatError: if it cannot be decoded, is coloured, or holds values above 255.
    """
    with opened(data, uri=uri, max_pixels=max_pixels) as image:
        from PIL import ImageOps

        try:
            values = values_of(ImageOps.exif_transpose(image)).numpy()
        except PixelError as error:
            raise SampleFormatError(f"{uri}: {error}") from error
    if values.max(initial=0) > 255:
        raise SampleFormatError(f"{uri}: holds {values.max()}, labels are at most 255")
    return values.astype(np.uint8)
