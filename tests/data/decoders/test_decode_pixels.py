"""Images of every format and mode, whole and damaged."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from neurotrain.data.decoders import decode_mask, decode_rgb
from neurotrain.data.decoders.jpeg import jpeg_orientation, jpeg_pixels
from neurotrain.data.sources import SampleFormatError

SMOOTH = np.stack(np.meshgrid(np.linspace(0, 255, 40), np.linspace(255, 0, 30)), -1)
COLOUR = np.concatenate([SMOOTH, 255 - SMOOTH[..., :1]], -1).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:  # noqa: ANN401
    stream = BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def seen(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize("options", [{}, {"quality": 30, "subsampling": 0}, {"progressive": True}, {"optimize": True}])
def test_jpeg_has_pillows_pixels_without_pillow(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(COLOUR), "JPEG", **options)
    expected = seen(data)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow was asked"))
    assert np.array_equal(decode_rgb(data, uri="a.jpg"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_is_applied(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(Image.fromarray(COLOUR), form, exif=exif, **options)
    pixels = decode_rgb(data, uri="a")
    assert pixels.shape == ((30, 40, 3) if orientation < 5 else (40, 30, 3))
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, seen(data))
    if form == "JPEG":
        assert jpeg_orientation(data) == orientation


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_either_byte_order_and_none_and_nonsense(order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0112] = "maker", 6
    data = encoded(Image.fromarray(COLOUR), "JPEG", exif=exif, comment=b"before it")
    assert jpeg_orientation(data) == 6
    assert jpeg_orientation(encoded(Image.fromarray(COLOUR), "JPEG")) == 1
    for cut, byte in itertools.product(range(0, 120, 3), (0, 255)):
        assert 1 <= jpeg_orientation(data[:cut]) <= 8
        assert 1 <= jpeg_orientation(data[:cut] + bytes([byte]) + data[cut + 1 :]) <= 8


def test_grey_is_repeated() -> None:
    grey = COLOUR[..., 0]
    for form in ("PNG", "JPEG"):
        pixels = decode_rgb(encoded(Image.fromarray(grey), form), uri="a")
        assert pixels.shape == (30, 40, 3)
        assert np.array_equal(pixels[..., 0], pixels[..., 2])
    assert np.array_equal(decode_rgb(encoded(Image.fromarray(grey > 99), "PNG"), uri="a")[..., 1], (grey > 99) * 255)


def test_sixteen_bits_are_scaled() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    expected = np.round(values / 257).astype(np.uint8)
    for form in ("PNG", "TIFF"):
        pixels = decode_rgb(encoded(Image.fromarray(values), form), uri="a")
        assert np.array_equal(pixels, np.repeat(expected[..., None], 3, 2))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_of_unknown_range_are_refused(mode: str) -> None:
    data = encoded(Image.new(mode, (4, 4)), "TIFF")
    with pytest.raises(SampleFormatError, match=f"a.tif: pixels of mode {mode} have no known range"):
        decode_rgb(data, uri="a.tif")


def test_a_palette_is_looked_up_and_transparency_shows_the_background() -> None:
    palette = Image.fromarray(COLOUR).quantize(16)
    assert np.array_equal(decode_rgb(encoded(palette, "PNG"), uri="a"), np.asarray(palette.convert("RGB")))
    rgba = np.dstack([COLOUR, np.full((30, 40), 255, np.uint8)])
    rgba[:, :20, 3] = 0
    data = encoded(Image.fromarray(rgba), "PNG")
    pixels = decode_rgb(data, uri="a", background=(10, 20, 30))
    assert np.array_equal(pixels[:, 20:], COLOUR[:, 20:])
    assert np.unique(pixels[:, :20].reshape(-1, 3), axis=0).tolist() == [[10, 20, 30]]
    assert decode_rgb(data, uri="a")[0, 0].tolist() == [255, 255, 255]
    see_through = encoded(palette, "PNG", transparency=int(np.asarray(palette)[0, 0]))
    assert decode_rgb(see_through, uri="a", background=(1, 2, 3))[0, 0].tolist() == [1, 2, 3]


def test_cmyk_is_converted_as_pillow_does() -> None:
    data = encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG")
    assert jpeg_pixels(data, max_pixels=10**6) is None
    assert np.array_equal(decode_rgb(data, uri="a"), seen(data))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95])
def test_truncated_files_are_told_by_their_uri(form: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), form)
    with pytest.raises(SampleFormatError, match=r"^s3://bucket/a: ") as caught:
        decode_rgb(data[: int(len(data) * share)], uri="s3://bucket/a")
    assert " at 0x" not in str(caught.value)


def test_harmless_extra_bytes_are_no_error() -> None:
    data = encoded(Image.fromarray(COLOUR), "JPEG")
    padded = data[:-2] + b"\0" * 20 + data[-2:]
    assert np.array_equal(decode_rgb(padded, uri="a"), seen(data))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_bombs_are_refused_before_they_are_decoded(form: str) -> None:
    data = encoded(Image.fromarray(COLOUR), form)
    with pytest.raises(SampleFormatError, match=r"decompression bomb \(40 x 30 pixels, at most 1199\)"):
        decode_rgb(data, uri="a", max_pixels=1199)
    assert decode_rgb(data, uri="a", max_pixels=1200).shape == (30, 40, 3)
    bomb = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(SampleFormatError, match="a: "):
        decode_rgb(bytes(bomb), uri="a")


@pytest.mark.parametrize("data", [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"%PDF-1.4", b"<svg/>", bytes(1000)])
def test_other_files_are_no_images(data: bytes) -> None:
    with pytest.raises(SampleFormatError, match="cannot be decoded"):
        decode_rgb(data, uri="a")


def test_decodes_into_given_memory() -> None:
    data = encoded(Image.fromarray(COLOUR), "JPEG")
    memory = np.zeros((2, 30, 40, 3), np.uint8)
    pixels = decode_rgb(data, uri="a", out=memory[1])
    assert np.shares_memory(pixels, memory[1])
    assert np.array_equal(memory[1], seen(data))
    assert not memory[0].any()
    wrong = np.zeros((40, 30, 3), np.uint8)
    assert not np.shares_memory(decode_rgb(data, uri="a", out=wrong), wrong)
    assert not wrong.any()


def test_masks_keep_their_values() -> None:
    values = np.random.default_rng(0).integers(0, 5, (8, 9), dtype=np.uint8)
    palette = Image.fromarray(values, "P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    for image in (Image.fromarray(values), palette, Image.fromarray(np.dstack([values] * 3))):
        assert np.array_equal(decode_mask(encoded(image, "PNG"), uri="a"), values)
    with pytest.raises(SampleFormatError, match="a: is a colour picture"):
        decode_mask(encoded(Image.fromarray(COLOUR), "PNG"), uri="a")
    with pytest.raises(SampleFormatError, match="holds 300, labels are at most 255"):
        decode_mask(encoded(Image.fromarray(np.full((2, 2), 300, np.uint16)), "PNG"), uri="a")


def test_threads_do_not_disturb_each_other() -> None:
    images = [np.roll(COLOUR, shift, 0) for shift in range(8)]
    files = [encoded(Image.fromarray(one), form) for one in images for form in ("PNG", "JPEG")] * 10
    alone = [decode_rgb(data, uri="a") for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode_rgb(data, uri="a"), files))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
