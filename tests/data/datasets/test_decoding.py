"""Pictures of every mode and size, good and bad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from neurotrain.data.datasets import DatasetError
from neurotrain.data.datasets.decoding import EXTENSIONS, FORMATS, image_size, read_binary, read_image, read_values

Write = Callable[[Path, np.ndarray], Path]


def test_formats_are_pillows() -> None:
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)
    by_extension = {Image.registered_extensions().get(extension) for extension in EXTENSIONS - {".mpo"}}
    assert by_extension <= set(FORMATS)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_colour_or_grey(tmp_path: Path, mode: str) -> None:
    stored = 255 if mode == "1" else 204  # a level of Pillow's web palette
    picture = Image.fromarray(np.full((4, 6, 3), stored, dtype=np.uint8)).convert(mode)
    picture.save(tmp_path / "a.tif")
    for channels in (1, 3):
        image = read_image(tmp_path / "a.tif", channels=channels)
        torch.testing.assert_close(image, torch.full((channels, 4, 6), stored / 255))
    assert image_size(tmp_path / "a.tif") == (4, 6)


def test_sixteen_bits_keep_their_precision(tmp_path: Path, write: Write) -> None:
    values = np.array([[0, 1], [32768, 65535]], dtype=np.uint16)
    write(tmp_path / "a.png", values)
    image = read_image(tmp_path / "a.png", channels=1)
    torch.testing.assert_close(image[0], torch.tensor([[0, 1 / 65535], [32768 / 65535, 1]]))
    assert read_values(tmp_path / "a.png").tolist() == values.tolist()


def test_unknown_range_is_refused(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "a.tif", np.ones((2, 2), dtype=np.float32))
    with pytest.raises(DatasetError, match=r"a\.tif: pixels of mode F have no known range"):
        read_image(tmp_path / "a.tif")
    with pytest.raises(DatasetError, match="mode F, expected whole numbers"):
        read_values(tmp_path / "a.tif")


@pytest.mark.parametrize("high", [1, 255])
def test_binary(tmp_path: Path, write: Write, high: int) -> None:
    on = np.eye(5, dtype=bool)
    for name in ("a.png", "a.gif", "a.bmp"):
        assert torch.equal(read_binary(write(tmp_path / name, on.astype(np.uint8) * high)), torch.from_numpy(on))
    assert torch.equal(read_binary(write(tmp_path / "b.png", on)), torch.from_numpy(on))
    assert not bool(read_binary(write(tmp_path / "c.png", np.zeros((3, 3), dtype=np.uint8))).any())


def test_jpeg_noise_and_colour_are_no_labels(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "a.png", np.array([[0, 3], [252, 255]], dtype=np.uint8))
    with pytest.raises(DatasetError, match=r"a\.png: is not binary: holds 0, 3, 252, 255"):
        read_binary(tmp_path / "a.png")
    write(tmp_path / "b.png", np.array([[[255, 0, 0]]], dtype=np.uint8))
    with pytest.raises(DatasetError, match="is a colour picture"):
        read_binary(tmp_path / "b.png")


def test_decompression_bomb(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.png", np.zeros((10, 10), dtype=np.uint8))
    for limit in (99, 20):  # Pillow by itself would warn at the first and raise at the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for reader in (image_size, read_image, read_values):
            with pytest.raises(DatasetError, match=r"a\.png: is larger than PIL\.Image\.MAX_IMAGE_PIXELS"):
                reader(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert image_size(path) == (10, 10)


def test_truncated_and_foreign_files(tmp_path: Path, write: Write) -> None:
    whole = write(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    whole.write_bytes(whole.read_bytes()[:900])
    with pytest.raises(DatasetError, match=r"a\.png: cannot be decoded"):
        read_image(whole)
    # A PostScript file would start Ghostscript.
    (tmp_path / "b.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(DatasetError, match=r"b\.png: cannot be decoded"):
        read_image(tmp_path / "b.png")
    with pytest.raises(DatasetError, match="no such file"):
        read_image(tmp_path / "c.png")
