"""The picture of an encoder against the picture of a loader; a bound of area."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from neurotrain.data.cached import CroppedPicture
from neurotrain.data.decoders import AreaPreparation, ImageDecoder, ImagePreparation
from neurotrain.data.sources import RawSample, SampleFormatError


def _raw(width: int, height: int) -> RawSample:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return RawSample(id="a", source="toy", uri="toy://a", fields={"image": stream.getvalue()})


@pytest.mark.parametrize(
    "preparation",
    [
        ImagePreparation(resolution=16),
        ImagePreparation(resolution=16, aspect="preserve"),
        ImagePreparation(resolution=0.0004, resolution_type="area", aspect="buckets", aspect_buckets=(0.5, 2.0)),
        ImagePreparation(resolution=24, resolution_type="pixel_area", crop="corner", interpolation="bilinear"),
    ],
)
def test_has_the_pixels_that_a_decoder_gives(preparation: ImagePreparation) -> None:
    raw = _raw(50, 40)
    image = ImageDecoder(preparation=preparation)(raw, torch.Generator())["image"]
    picture = CroppedPicture(preparation=preparation)(raw)
    assert picture.is_contiguous()
    torch.testing.assert_close(picture, image.float() / 127.5 - 1, rtol=0, atol=1e-6)


def test_every_setting_is_part_of_the_key() -> None:
    first = CroppedPicture(preparation=ImagePreparation(resolution=16)).settings()
    assert first == CroppedPicture(preparation=ImagePreparation(resolution=16)).settings()
    others = [
        ImagePreparation(resolution=17),
        ImagePreparation(resolution=16, aspect="preserve"),
        ImagePreparation(resolution=16, crop="corner"),
        ImagePreparation(resolution=16, multiple=4),
        ImagePreparation(resolution=16, interpolation="bilinear"),
        AreaPreparation(resolution=16, min_area=0.1),
    ]
    told = [CroppedPicture(preparation=other).settings() for other in others]
    assert all(one != first for one in told)
    assert CroppedPicture(preparation=ImagePreparation(resolution=16), background=(0, 0, 0)).settings() != first


def test_a_sample_without_a_picture_is_told_with_what_it_has() -> None:
    sample = RawSample(id="0", source="s", uri="mem://0", fields={"caption": "x"})
    with pytest.raises(SampleFormatError, match=r"mem://0.*'image'"):
        CroppedPicture(preparation=ImagePreparation(resolution=8))(sample)


def test_refuses_random_crops_and_small_areas() -> None:
    with pytest.raises(ValueError, match="crop='random'"):
        CroppedPicture(preparation=ImagePreparation(crop="random"))
    bounded = AreaPreparation(resolution=16, min_area=0.0025)
    with pytest.raises(SampleFormatError, match=r"area 0\.002 below min_area=0\.0025"):
        CroppedPicture(preparation=bounded)(_raw(50, 40))
    assert CroppedPicture(preparation=bounded)(_raw(50, 50)).shape == (3, 16, 16)
    with pytest.raises(ValueError, match="min_area=0: must be above 0"):
        AreaPreparation(min_area=0)
