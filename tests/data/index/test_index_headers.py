"""Headers of images, out of as few bytes as may be."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from neurotrain.data.index import HeaderError, ImageHeader, read_header


def encoded(form: str, *, frames: int = 1, orientation: int | None = None, size: tuple[int, int] = (300, 200)) -> bytes:
    noise = np.random.default_rng(0)
    images = [Image.fromarray(noise.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(frames)]
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    stream = BytesIO()
    more = {"save_all": True, "append_images": images[1:]} if frames > 1 else {}
    images[0].save(stream, form, **more, **({"exif": exif} if orientation is not None else {}))
    return stream.getvalue()


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[int | None] = []

    def __call__(self, length: int | None) -> bytes:
        self.asked.append(length)
        return self.data[:length]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_still_pictures_from_their_beginning(form: str) -> None:
    reader = Reader(encoded(form))
    assert len(reader.data) > 65_536 or form == "JPEG"
    assert read_header(reader) == ImageHeader(format=form, width=300, height=200, frames=1)
    assert reader.asked == [65_536]


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF"])
def test_frames_are_counted(form: str) -> None:
    found = read_header(Reader(encoded(form, frames=3, size=(30, 20))))
    assert found == ImageHeader(format=form, width=30, height=20, frames=3)
    assert read_header(Reader(encoded(form, size=(30, 20)))).frames == 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (300, 200)), (3, (300, 200)), (6, (200, 300)), (8, (200, 300))])
def test_the_size_is_as_it_is_seen(form: str, orientation: int, size: tuple[int, int]) -> None:
    header = read_header(Reader(encoded(form, orientation=orientation)))
    assert (header.width, header.height) == size


def test_a_long_header_is_read_whole() -> None:
    data = encoded("JPEG")
    comment = b"\xff\xfe\xff\xff" + bytes(65_533)
    reader = Reader(data[:2] + comment + comment + data[2:])
    assert read_header(reader).width == 300
    assert reader.asked == [65_536, None]


@pytest.mark.parametrize("data", [b"", b"no image", bytes(100_000), encoded("PNG")[:20]])
def test_no_image(data: bytes) -> None:
    with pytest.raises(HeaderError):
        read_header(Reader(data))
