"""Images with labels: as the datasets read them, and told apart where they are wrong."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from neurotrain.data.datasets import ImageMaskFolder
from neurotrain.data.decoders import SegmentationDecoder
from neurotrain.data.sources import FolderSource, RawSample, SampleFormatError
from neurotrain.storage import LocalStorage

NOISE = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 4, (20, 30), dtype=np.uint8)


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def decode(decoder: SegmentationDecoder, **fields: Any) -> Any:  # noqa: ANN401
    named = {name.replace("__", "/"): value for name, value in fields.items()}
    entry = RawSample(id="7", source="toy", uri="7.png", fields={"image": encoded(NOISE), **named})
    return decoder(entry, torch.Generator())


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("grey", [False, True])
def test_equal_to_the_folder_dataset(tmp_path: Path, form: str, channels: Any, *, grey: bool) -> None:  # noqa: ANN401
    ending = form.lower()
    for folder, data, end in (
        ("images", encoded(NOISE[..., 0] if grey else NOISE, form), ending),
        ("masks", encoded(LABELS), "png"),
        ("valid", encoded((LABELS > 0).astype(np.uint8) * 255), "png"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"a.{end}").write_bytes(data)
    settings: dict[str, Any] = {
        "mode": "multiclass", "num_classes": 3, "label_map": {3: 2}, "ignore_value": 1, "channels": channels
    }  # fmt: skip
    dataset = ImageMaskFolder(root=tmp_path, valid="valid", **settings)
    source = FolderSource(
        name="folder", storage=LocalStorage(root=tmp_path), image="images", mask="masks", valid="valid"
    )
    source.setup()
    expected = dataset.read(dataset.records("train")[0])
    found = SegmentationDecoder(**settings)(source.read(0), torch.Generator())
    assert (found["id"], found["source"]) == (expected["id"], expected["source"])
    for part in ("image", "mask", "valid"):
        assert torch.equal(found[part], expected[part])
        assert found[part].dtype == expected[part].dtype


def test_multilabel_masks_are_stacked() -> None:
    decoder = SegmentationDecoder(mode="multilabel", num_classes=2, class_names=("liver", "spleen"), ignore_value=9)
    liver, spleen = (LABELS == 1) * np.uint8(255), (LABELS == 2).astype(np.uint8)
    spleen[0, 0] = 9
    sample = decode(decoder, mask__liver=encoded(liver), mask__spleen=encoded(spleen))
    assert sample["mask"].shape == (2, 20, 30)
    assert torch.equal(sample["mask"][0], torch.from_numpy(liver // 255).long())
    assert sample["mask"][1, 0, 0] == 0
    assert (~sample["valid"]).nonzero().tolist() == [[0, 0]]


def test_no_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = BytesIO()
    Image.fromarray(NOISE).save(stream, "JPEG", exif=exif)
    sample = decode(SegmentationDecoder(), image=stream.getvalue(), mask=encoded((LABELS > 1) * np.uint8(255)))
    assert sample["image"].shape == (3, 20, 30)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "7.png: has no field 'mask', only 'image'"),
        ({"mask": 3}, r"7.png \(mask\): holds int, expected an encoded file"),
        ({"mask": b"xyz"}, r"7.png \(mask\): 3 bytes cannot be decoded"),
        ({"mask": encoded(LABELS)}, r"7.png \(mask\): is not binary: holds 0, 1, 2, 3"),
        ({"mask": encoded(NOISE)}, r"7.png \(mask\): is a colour picture"),
        ({"mask": encoded(np.zeros((20, 29), np.uint8))}, r"7.png \(mask\): has 20 x 29 pixels, the image 20 x 30"),
        (
            {"mask": encoded(np.zeros((20, 30), np.uint8)), "valid": encoded(np.zeros((9, 30), np.uint8))},
            r"7.png \(valid\): has 9 x 30 pixels",
        ),
        ({"mask": encoded(np.zeros((20, 30), np.uint8)), "valid": encoded(LABELS)}, r"\(valid\): is not binary"),
        ({"mask": encoded(LABELS), "image": encoded(NOISE)[:200]}, "^7.png: 200 bytes cannot be decoded"),
    ],
)
def test_errors_name_uri_and_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SampleFormatError, match=message):
        decode(SegmentationDecoder(), **fields)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="num_classes=3"):
        SegmentationDecoder(num_classes=3)
    with pytest.raises(ValueError, match="class_names=None"):
        SegmentationDecoder(mode="multilabel", num_classes=2)
    with pytest.raises(SampleFormatError, match="at most 599"):
        decode(SegmentationDecoder(max_pixels=599), mask=encoded(LABELS))
