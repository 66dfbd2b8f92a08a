"""Samples with images: captions, labels, conditioning, memory of the batch."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from neurotrain.data.decoders import (
    ArrayDecoder,
    ClassificationDecoder,
    ImageDecoder,
    ImagePreparation,
    ImageTextDecoder,
    ScreenedSource,
    decode_rgb,
)
from neurotrain.data.sources import CocoCaptions, FolderSource, RawSample, SampleFormatError, SourceError
from neurotrain.storage import LocalStorage, MemoryStorage

NOISE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def raw(**fields: Any) -> RawSample:  # noqa: ANN401
    named = {name.replace("__", "/"): value for name, value in fields.items()}
    return RawSample(id="7", source="toy", uri="s3://bucket/7.png", fields={"image": encoded(NOISE), **named})


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_an_image_alone() -> None:
    sample = ImageDecoder()(raw(), draw())
    assert (sample["id"], sample["source"], set(sample)) == ("7", "toy", {"image", "id", "source"})
    assert sample["image"].dtype == torch.uint8
    assert torch.equal(sample["image"], torch.from_numpy(NOISE).permute(2, 0, 1))


def test_one_of_several_captions() -> None:
    sample = raw(caption="one\ntwo\nthree")
    assert ImageTextDecoder(choice="first")(sample, draw())["caption"] == "one"
    drawn = [ImageTextDecoder()(sample, draw(seed))["caption"] for seed in range(40)]
    assert set(drawn) == {"one", "two", "three"}
    assert drawn == [ImageTextDecoder()(sample, draw(seed))["caption"] for seed in range(40)]
    assert ImageTextDecoder(choice="first").deterministic
    assert not ImageTextDecoder().deterministic
    assert ImageTextDecoder(choice="all")(sample, draw())["caption"] == "one\ntwo\nthree"
    assert ImageTextDecoder(choice="all").deterministic
    with pytest.raises(SampleFormatError, match=r"s3://bucket/7\.png: has no caption"):
        ImageTextDecoder()(raw(), draw())
    with pytest.raises(ValueError, match="choice='last'"):
        ImageTextDecoder(choice="last")


def test_labels_by_number_and_by_name() -> None:
    named = ClassificationDecoder(class_names=("cat", "fox"))
    assert named(raw(label="fox"), draw())["label"].item() == 1
    label = ClassificationDecoder()(raw(label=3), draw())["label"]
    assert (label.item(), label.dtype, label.shape) == (3, torch.int64, ())
    for decoder, wrong in ((named, "dog"), (named, 2), (ClassificationDecoder(), "fox"), (ClassificationDecoder(), -1)):
        with pytest.raises(SampleFormatError, match=f"7.png: label {wrong!r} is not"):
            decoder(raw(label=wrong), draw())
    with pytest.raises(SampleFormatError, match="label None"):
        named(raw(), draw())


def test_what_steers_an_image_is_cut_like_it() -> None:
    labels = (NOISE[..., 0] > 127).astype(np.uint8) * 9
    decoder = ImageDecoder(
        preparation=ImagePreparation(resolution=32, crop="random", multiple=1),
        conditioning={"control": "image", "region": "mask"},
    )
    fields = {"conditioning__control": encoded(NOISE), "conditioning__region": encoded(labels)}
    sample: Any = decoder(raw(**fields), draw(3))
    assert sample["image"].shape == (3, 32, 32)
    assert torch.equal(sample["image"], sample["conditioning/control"])
    assert sample["conditioning/region"].unique().tolist() == [0, 9]
    preparation = decoder.preparation
    assert preparation is not None
    placement = preparation.place(64, 48, draw(3))
    assert not isinstance(placement, str)
    expected = preparation.apply(labels, placement, nearest=True)
    assert torch.equal(sample["conditioning/region"], torch.from_numpy(expected))
    fields["conditioning__region"] = encoded(labels[:, :-1])
    with pytest.raises(
        SampleFormatError, match=r"7.png \(conditioning/region\): has 63 x 48 pixels, the image 64 x 48"
    ):
        decoder(raw(**fields), draw())
    with pytest.raises(SampleFormatError, match="has no field 'conditioning/control', only 'image'"):
        decoder(raw(), draw())
    with pytest.raises(ValueError, match=r"conditioning\.x='depth'"):
        ImageDecoder(conditioning={"x": "depth"})


def test_an_image_that_should_have_been_left_out() -> None:
    decoder = ImageDecoder(preparation=ImagePreparation(resolution=32, min_size=50))
    with pytest.raises(
        SampleFormatError, match="64 x 48 pixels, shorter edge 48 below min_size=50: it should have been"
    ):
        decoder(raw(), draw())


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_into_memory_of_the_batch(form: str) -> None:
    data = encoded(NOISE, form)
    sample = raw(image=data)
    batch = np.zeros((2, 48, 64, 3), np.uint8)
    place = batch[1].transpose(2, 0, 1)  # (C, H, W), channels last in memory
    found = ImageDecoder().decode_into(sample, draw(), {"image": place})
    assert (found["image"] is place) == (form == "JPEG")
    expected = torch.from_numpy(decode_rgb(data, uri="a")).permute(2, 0, 1)
    assert torch.equal(torch.as_tensor(found["image"]), expected)
    assert batch[1].any() == (form == "JPEG")
    assert not batch[0].any()
    for other in (np.zeros((3, 48, 64), np.uint8), np.zeros((3, 40, 64), np.uint8), np.zeros((48, 64, 3), np.float32)):
        again = ImageDecoder().decode_into(sample, draw(), {"image": other})
        assert torch.equal(again["image"], expected)
        assert not other.any()
    assert torch.equal(ImageDecoder().decode_into(sample, draw(), {})["image"], expected)


def test_decoders_travel_to_workers() -> None:
    for decoder in (
        ImageDecoder(preparation=ImagePreparation(resolution=32)),
        ClassificationDecoder(class_names=("a",)),
    ):
        again = pickle.loads(pickle.dumps(decoder))
        sample = raw(label=0)
        assert torch.equal(again(sample, draw())["image"], decoder(sample, draw())["image"])


def test_coco_with_captions_prepared(shared_data: Path) -> None:
    source = FolderSource(
        name="coco",
        storage=LocalStorage(root=shared_data / "COCO-MINI"),
        image="val2017",
        captions=CocoCaptions(annotations="annotations/captions_val2017.json"),
        dimensions=True,
    )
    preparation = ImagePreparation(resolution=128, aspect="preserve", multiple=32, max_aspect=1.4, crop="random")
    screened = ScreenedSource(source=source, preparation=preparation)
    screened.setup()
    total = sum(screened.left_out.values()) + len(screened)
    assert total == len(source) == 79
    assert len(screened) < total
    decoder = ImageTextDecoder(preparation=preparation)
    table = screened.table()
    for index in range(0, len(screened), 7):
        entry = screened.read(index)
        sample = decoder(entry, draw(index))
        width, height = (table.column(name)[index].as_py() for name in ("width", "height"))
        assert tuple(sample["image"].shape[1:]) == preparation.target(width, height)[::-1]
        assert sample["caption"] in str(entry.fields["caption"]).split("\n")


def test_screening_says_what_is_missing() -> None:
    storage = MemoryStorage(name="screened")
    storage.write("a.png", encoded(NOISE))
    plain = FolderSource(name="toy", storage=storage)
    with pytest.raises(SourceError, match="the index has no 'width': set dimensions=True"):
        ScreenedSource(source=plain, preparation=ImagePreparation()).setup()
    sized = FolderSource(name="toy", storage=storage, dimensions=True)
    screened = ScreenedSource(source=sized, preparation=ImagePreparation(resolution=512))
    with pytest.raises(RuntimeError, match=r"setup\(\) first"):
        len(screened)
    with pytest.raises(SourceError, match=r"all 1 entries are left out.*\n.*upscale above max_upscale=2.0: 1"):
        screened.setup()


def npy(array: np.ndarray) -> bytes:
    stream = BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_arrays() -> None:
    from safetensors.torch import save

    decode = ArrayDecoder()
    for array in (np.arange(6, dtype=">i2").reshape(2, 3), np.asfortranarray(np.eye(3)), np.float32(2.5)):
        found = decode(raw(image=npy(np.asarray(array))), draw())["array"]
        assert np.array_equal(found.numpy(), array)
        found += 1  # writable memory of its own
    latent = torch.randn(4, 3, dtype=torch.bfloat16)
    assert torch.equal(decode(raw(image=save({"x": latent})), draw())["array"], latent)
    two = save({"x": latent, "y": latent + 1})
    assert torch.equal(ArrayDecoder(tensor="y")(raw(image=two), draw())["array"], latent + 1)
    with pytest.raises(SampleFormatError, match="tensor=None: the file holds 'x', 'y'"):
        decode(raw(image=two), draw())


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Call print."""
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(np.zeros(4))[:-1], "has 31 bytes of numbers, its header promises 32"),
        (npy(np.zeros(4)).replace(b"(4,)", b"(9999999999,)"), "7.png: "),
        (npy(np.array(["a"])), "expected numbers"),
        (b"\x93NUMPY\x01\x00", "no npy file"),
        (b"\x93NUMPY\x09\x00" + bytes(200), "no npy file"),
        (b"anything", "neither npy nor safetensors"),
        (b"", "neither npy nor safetensors"),
    ],
)
def test_files_that_are_no_array(data: bytes, message: str) -> None:
    with pytest.raises(SampleFormatError, match=message):
        ArrayDecoder()(raw(image=data), draw())


def test_an_array_runs_no_code(capsys: pytest.CaptureFixture[str]) -> None:
    stream = BytesIO()
    np.save(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(SampleFormatError, match="holds object, expected numbers"):
        ArrayDecoder()(raw(image=stream.getvalue()), draw())
    assert capsys.readouterr().out == ""
