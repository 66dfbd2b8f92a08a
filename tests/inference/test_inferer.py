"""Whole images and sliding windows: parity with MONAI, exact identity, corners."""

from __future__ import annotations

import itertools
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.inference import FullImage, Inferer, SlidingWindow
from neurotrain.inference.sliding_window import window_slices, window_weights


def conv_predictor(dims: int, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Depends on the position in the window through its zero padding, as a network does."""
    torch.manual_seed(0)
    layer = nn.Conv2d if dims == 2 else nn.Conv3d
    return nn.Sequential(layer(2, 3, 5, padding=2, dtype=dtype), nn.Sigmoid()).requires_grad_(False)


SIZES = [
    ((50, 37), (16, 16)),
    ((64, 48), (32, 16)),
    ((16, 33), (16, 32)),
    ((10, 40), (16, 16)),
    ((9, 7), (16, 12)),
    ((12, 21, 17), (8, 16, 16)),
    ((6, 9, 20), (8, 8, 8)),
]


@pytest.mark.parametrize(("size", "window"), SIZES)
@pytest.mark.parametrize("blending", ["gaussian", "constant"])
@pytest.mark.parametrize(("overlap", "batch_size"), [(0.0, 1), (0.25, 3), (0.5, 4), (0.7, 64)])
def test_parity_with_monai(
    size: tuple[int, ...], window: tuple[int, ...], blending: str, overlap: float, batch_size: int
) -> None:
    inferers = pytest.importorskip("monai.inferers")
    predictor = conv_predictor(len(size))
    image = torch.randn(2, 2, *size)
    expected = inferers.sliding_window_inference(
        image, window, batch_size, predictor, overlap=overlap, mode=blending, sigma_scale=0.125
    )
    infer = SlidingWindow(window=window, overlap=overlap, blending=blending, batch_size=batch_size)
    torch.testing.assert_close(infer(predictor, image), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigma_scale", [0.05, 0.3])
def test_sigma_scale_as_in_monai(sigma_scale: float) -> None:
    utils = pytest.importorskip("monai.data.utils")
    expected = utils.compute_importance_map((9, 16, 5), mode="gaussian", sigma_scale=sigma_scale)
    torch.testing.assert_close(window_weights((9, 16, 5), "gaussian", sigma_scale), expected)


def test_window_weights_by_hand() -> None:
    # exp(-1 / (2 * 0.6^2)) one pixel off the middle of three
    edge = 0.2493522
    expected = torch.tensor([[edge * edge, edge, edge * edge], [edge, 1.0, edge], [edge * edge, edge, edge * edge]])
    torch.testing.assert_close(window_weights((3, 3), "gaussian", 0.2), expected)
    assert torch.equal(window_weights((3, 2), "constant", 0.2), torch.ones(3, 2))
    assert window_weights((64, 64), "gaussian", 0.125).min() == pytest.approx(1e-3)


def test_blending_by_hand() -> None:
    # Windows of 4 on a row of 6 start at 0 and 2; each predicts its own number.
    numbers = iter([1.0, 3.0])
    infer = SlidingWindow(window=(1, 4), overlap=0.5, blending="constant", batch_size=1)
    found = infer(lambda x: torch.full_like(x, next(numbers)), torch.zeros(1, 1, 1, 6))
    assert found.flatten().tolist() == [1, 1, 2, 2, 3, 3]


def test_window_slices_cover_and_stay_inside() -> None:
    for length, edge, overlap in itertools.product(range(4, 20), (1, 3, 4), (0.0, 0.3, 0.5, 0.9)):
        places = [place[0] for place in window_slices((length,), (edge,), overlap)]
        assert {pixel for place in places for pixel in range(place.start, place.stop)} == set(range(length))
        assert all(place.stop - place.start == edge for place in places)
        assert len({place.start for place in places}) == len(places)


@pytest.mark.parametrize("infer", [FullImage(divisor=16), SlidingWindow(window=(16, 24))])
@pytest.mark.parametrize("size", [(40, 33), (31, 64)])
def test_identity_is_exact(infer: Inferer, size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size)
    torch.testing.assert_close(infer(lambda x: x, image), image, rtol=0, atol=1e-6)
    assert pickle.loads(pickle.dumps(infer)) == infer


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_batches_of_windows_are_bounded(batch_size: int) -> None:
    sizes: list[tuple[int, ...]] = []

    def record(x: Tensor) -> Tensor:
        sizes.append(tuple(x.shape))
        return x

    SlidingWindow(window=(8, 8), batch_size=batch_size)(record, torch.zeros(2, 1, 20, 12))
    assert {size[1:] for size in sizes} == {(1, 8, 8)}
    assert max(size[0] for size in sizes) == batch_size
    assert sum(size[0] for size in sizes) == 2 * 4 * 2


def test_half_precision_is_accumulated_in_float32() -> None:
    image = torch.rand(1, 1, 40, 40).to(torch.bfloat16)
    found = SlidingWindow(window=(8, 8), overlap=0.75)(lambda x: x, image)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, image.float(), rtol=0, atol=1e-6)
    assert SlidingWindow(window=(8, 8))(lambda x: x, image.double()).dtype == torch.float64


@pytest.mark.parametrize("infer", [FullImage(divisor=4), SlidingWindow(window=(4, 4))])
def test_gradient_reaches_the_image(infer: Inferer) -> None:
    predictor = conv_predictor(2, dtype=torch.float64)
    image = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: infer(predictor, x), (image,))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "constant"])
@pytest.mark.parametrize("size", [(13, 16), (9, 14, 11)])
def test_full_image_pads_both_sides_and_crops(mode: str, size: tuple[int, ...]) -> None:
    image = torch.randn(1, 2, *size)
    predictor = conv_predictor(len(size))
    missing = [-length % 8 for length in size]
    before = [amount // 2 for amount in missing]
    sides = [side for b, m in zip(before[::-1], missing[::-1], strict=True) for side in (b, m - b)]
    padded = predictor(F.pad(image, sides, mode=mode))
    for axis, (start, length) in enumerate(zip(before, size, strict=True), start=2):
        padded = padded.narrow(axis, start, length)
    assert torch.equal(FullImage(divisor=8, padding_mode=mode)(predictor, image), padded)


def test_full_image_that_fits_is_not_padded() -> None:
    image = torch.randn(1, 1, 32, 16)
    seen: list[Tensor] = []
    FullImage()(lambda x: seen.append(x) or x, image)
    assert seen[0] is image


def test_image_too_small_to_mirror_names_replicate() -> None:
    image = torch.randn(1, 1, 5, 16)
    with pytest.raises(ValueError, match="padding_mode='replicate'"):
        FullImage(divisor=16)(lambda x: x, image)
    assert torch.equal(FullImage(divisor=16, padding_mode="replicate")(lambda x: x, image), image)
    # Five pixels on either side of six: the most that a mirror can give.
    just_fits = torch.randn(1, 1, 6, 16)
    assert torch.equal(FullImage(divisor=16)(lambda x: x, just_fits), just_fits)


@pytest.mark.parametrize("infer", [FullImage(), SlidingWindow(window=(16, 16))])
@pytest.mark.parametrize("predictor", [lambda x: x[..., ::2], lambda x: x[:0], lambda x: x[:, :, 0]])
def test_predictor_that_changes_the_size_is_refused(infer: Inferer, predictor: object) -> None:
    with pytest.raises(ValueError, match="batch and spatial size must stay"):
        infer(predictor, torch.zeros(1, 1, 32, 32))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (FullImage, {"divisor": 0}, "divisor=0"),
        (FullImage, {"padding_mode": "reflekt"}, "did you mean 'reflect'"),
        (SlidingWindow, {"window": ()}, "window"),
        (SlidingWindow, {"window": (8, 0)}, "window"),
        (SlidingWindow, {"window": (8, 8), "overlap": 1.0}, "overlap=1.0"),
        (SlidingWindow, {"window": (8, 8), "overlap": float("nan")}, "overlap=nan"),
        (SlidingWindow, {"window": (8, 8), "blending": "gauss"}, "did you mean 'gaussian'"),
        (SlidingWindow, {"window": (8, 8), "sigma_scale": 0.0}, "sigma_scale=0.0"),
        (SlidingWindow, {"window": (8, 8), "sigma_scale": 0.2, "blending": "constant"}, "no effect"),
        (SlidingWindow, {"window": (8, 8), "batch_size": 0}, "batch_size=0"),
    ],
)
def test_settings_out_of_range_are_refused(cls: type[Inferer], settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**settings)


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="has 3 axes"):
        SlidingWindow(window=(8, 8, 8))(lambda x: x, torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="2 or 3 axes"):
        FullImage()(lambda x: x, torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="is empty"):
        SlidingWindow(window=(8, 8))(lambda x: x, torch.zeros(0, 1, 8, 8))


def test_base_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Inferer()  # type: ignore[abstract]
