"""Keys and fingerprints: equal for equal things, in every process; different for different ones."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from torch import nn

from neurotrain.data.cache import ImagePreparation, weights_fingerprint
from neurotrain.data.cache.keys import cache_key, canonical, owner
from neurotrain.data.cache.preparation import cover
from neurotrain.data.sources import RawSample, SampleFormatError


def network(*, stride: int = 1, activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=stride), nn.BatchNorm2d(4), activation())


def test_a_key_is_the_same_on_every_machine() -> None:
    assert cache_key("latent-1", "ü").hex() == "fe8796ecaf0e169ea8eff4b8d942100e"


def test_settings_in_any_order_are_equal_and_odd_ones_are_refused() -> None:
    assert canonical({"b": 1, "a": {"d": None, "c": True}}) == canonical({"a": {"c": True, "d": None}, "b": 1})
    assert canonical({"a": 1}) != canonical({"a": 1.5})
    for value in (float("nan"), float("inf"), torch.float16, {1, 2}, object()):
        with pytest.raises(ValueError, match="size="):
            canonical({"size": value})  # pyright: ignore[reportArgumentType]


def test_owners_share_evenly() -> None:
    counts = np.bincount([owner(str(number), world_size=4) for number in range(4000)], minlength=4)
    assert counts.min() > 900
    with pytest.raises(ValueError, match="world_size=0"):
        owner("a", world_size=0)


def test_equal_networks_have_equal_fingerprints() -> None:
    assert weights_fingerprint(network()) == weights_fingerprint(network())
    assert weights_fingerprint(network()) == weights_fingerprint(network().requires_grad_(False))


def test_whatever_decides_the_output_changes_the_fingerprint() -> None:
    nudged, counted = network(), network()
    with torch.no_grad():
        next(nudged.parameters()).view(-1)[0] += 1e-6
    buffers = dict(counted.named_buffers())
    buffers["1.running_mean"] += 1
    others = {
        "weights": network(seed=1),
        "one weight": nudged,
        "a buffer": counted,
        "a stride": network(stride=2),
        "an activation": network(activation=nn.SiLU),
        "the dtype": network().half(),
    }
    prints = {name: weights_fingerprint(module) for name, module in others.items()}
    prints["the configuration"] = weights_fingerprint(network(), config={"scaling": 0.18215})
    assert len({weights_fingerprint(network()), *prints.values()}) == len(prints) + 1


def test_addresses_do_not_count() -> None:
    class Odd(nn.Linear):
        def extra_repr(self) -> str:
            return f"hook={object()}"

    def made() -> nn.Module:
        torch.manual_seed(0)
        return Odd(2, 2)

    assert weights_fingerprint(made()) == weights_fingerprint(made())


def png(pixels_HWC: np.ndarray) -> bytes:
    from PIL import Image

    sink = BytesIO()
    Image.fromarray(pixels_HWC).save(sink, "PNG")
    return sink.getvalue()


@pytest.mark.parametrize(("crop", "left"), [("centre", 10), ("corner", 0)])
def test_a_picture_is_scaled_to_cover_and_cropped(crop: str, left: int) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[..., 0] = np.arange(40) * 6
    sample = RawSample(id="0", source="s", uri="mem://0", fields={"image": png(pixels)})
    prepare = ImagePreparation(resolution=20, crop=crop)  # pyright: ignore[reportArgumentType]
    image = prepare(sample)
    assert image.shape == (3, 20, 20)
    torch.testing.assert_close(image[0, 5], (torch.arange(left, left + 20) * 6) / 127.5 - 1)
    smaller = ImagePreparation(resolution=(10, 10), crop=crop)(sample)  # pyright: ignore[reportArgumentType]
    assert smaller.shape == (3, 10, 10)
    assert -1 <= smaller.min() <= smaller.max() <= 1
    larger = ImagePreparation(resolution=(50, 30))(sample)
    assert larger.shape == (3, 50, 30)


def test_covering_never_falls_short_by_rounding() -> None:
    for height, width in [(333, 500), (37, 91), (1, 1000), (640, 427)]:
        image = torch.zeros(3, height, width, dtype=torch.uint8)
        assert cover(image, (31, 67), crop="centre", mode="bilinear").shape == (3, 31, 67)


def test_a_sample_without_a_picture() -> None:
    sample = RawSample(id="0", source="s", uri="mem://0", fields={"caption": "x"})
    with pytest.raises(SampleFormatError, match="no encoded 'image'"):
        ImagePreparation(resolution=8)(sample)
    for settings in (
        {"resolution": 0},
        {"resolution": 8, "crop": "random"},
        {"resolution": 8, "interpolation": "cubic"},
    ):
        with pytest.raises(ValueError, match="="):
            ImagePreparation(**settings)  # pyright: ignore[reportArgumentType]
