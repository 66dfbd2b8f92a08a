"""Test-time augmentation: the groups, exact inverses, equivariance."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.inference import FullImage, SlidingWindow, TestTimeAugmentation
from neurotrain.inference.tta import symmetries

Group = Literal["none", "flips", "d4"]
CASES: list[tuple[Group, int, int]] = [
    ("none", 2, 1),
    ("flips", 2, 4),
    ("d4", 2, 8),
    ("none", 3, 1),
    ("flips", 3, 8),
]


def lopsided(x: Tensor) -> Tensor:
    """A filter without any symmetry."""
    dims = x.ndim - 2
    weight = torch.arange(1.0, 1 + 3**dims).reshape(1, 1, *[3] * dims) / 100
    conv = F.conv2d if dims == 2 else F.conv3d
    return conv(x, weight.to(x), padding=1)


@pytest.mark.parametrize(("group", "dims", "count"), CASES)
def test_group_elements_differ_and_are_undone_exactly(group: Group, dims: int, count: int) -> None:
    elements = symmetries(group, dims=dims)
    image = torch.randn(1, 2, *(5, 4, 3)[:dims])
    assert torch.equal(elements[0].apply(image), image)
    for element in elements:
        assert torch.equal(element.undo(element.apply(image)), image)
    cube = torch.arange(4.0**dims).reshape(1, 1, *[4] * dims)
    assert len({tuple(element.apply(cube).flatten().tolist()) for element in elements}) == count


def test_d4_is_closed_under_composition() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    elements = symmetries("d4", dims=2)
    single = {tuple(a.apply(image).flatten().tolist()) for a in elements}
    double = {tuple(a.apply(b.apply(image)).flatten().tolist()) for a, b in itertools.product(elements, elements)}
    assert single == double


def test_flips_are_identity_horizontal_vertical_and_both() -> None:
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    found = {tuple(element.apply(image).flatten().tolist()) for element in symmetries("flips", dims=2)}
    assert found == {(1, 2, 3, 4), (2, 1, 4, 3), (3, 4, 1, 2), (4, 3, 2, 1)}


@pytest.mark.parametrize(("group", "dims", "count"), CASES)
def test_identity_predictor_returns_the_image(group: Group, dims: int, count: int) -> None:
    calls: list[int] = []
    image = torch.randn(2, 3, *(13, 10, 7)[:dims])
    infer = TestTimeAugmentation(inferer=FullImage(divisor=4), group=group)
    found = infer(lambda x: calls.append(1) or x, image)
    torch.testing.assert_close(found, image, rtol=0, atol=1e-6)
    assert len(calls) == count


@pytest.mark.parametrize(("group", "dims", "count"), CASES)
def test_mean_of_the_predictions_mapped_back(group: Group, dims: int, count: int) -> None:
    image = torch.randn(1, 1, *(6, 8, 5)[:dims])
    found = TestTimeAugmentation(inferer=FullImage(divisor=1), group=group)(lopsided, image)
    # A flipped image under the filter is the image under the flipped filter: average those instead.
    kernel = torch.arange(1.0, 1 + 3**dims).reshape(1, 1, *[3] * dims) / 100
    axes = range(2, 2 + dims)
    kernels = [kernel]
    if group != "none":
        sets = itertools.chain.from_iterable(itertools.combinations(axes, n) for n in range(dims + 1))
        kernels = [kernel.flip(chosen) for chosen in sets]
    if group == "d4":
        kernels += [k.transpose(2, 3) for k in kernels]
    assert len(kernels) == count
    conv = F.conv2d if dims == 2 else F.conv3d
    expected = conv(image, torch.stack(kernels).mean(0), padding=1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("inferer", [FullImage(divisor=2), SlidingWindow(window=(8, 8))])
def test_equivariant_predictor_is_unchanged(inferer: FullImage | SlidingWindow) -> None:
    def equivariant(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, stride=1, padding=1).sigmoid()

    # Window positions of this size are symmetric too.
    image = torch.randn(1, 2, 12, 16)
    plain = inferer(equivariant, image)
    for group in ("none", "flips", "d4"):
        found = TestTimeAugmentation(inferer=inferer, group=group)(equivariant, image)
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-6)


def test_result_is_equivariant_whatever_the_predictor() -> None:
    image = torch.randn(1, 1, 6, 6)
    infer = TestTimeAugmentation(inferer=FullImage(divisor=1))
    expected = torch.rot90(infer(lopsided, image), 1, (2, 3))
    torch.testing.assert_close(infer(lopsided, torch.rot90(image, 1, (2, 3))), expected)


def test_half_precision_is_averaged_in_float32() -> None:
    values = iter([1.0, 1.0078125, 1.0, 1.0078125])
    infer = TestTimeAugmentation(inferer=FullImage(divisor=1), group="flips")
    found = infer(lambda x: torch.full_like(x, next(values)), torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16))
    assert found.dtype == torch.float32
    assert found.unique().tolist() == [1.00390625]


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'flips'"):
        TestTimeAugmentation(inferer=FullImage(), group="flip")  # type: ignore[arg-type]
    infer = TestTimeAugmentation(inferer=FullImage())
    with pytest.raises(ValueError, match=r"group='d4'.*use 'flips'"):
        infer(lambda x: x, torch.zeros(1, 1, 8, 8, 8))


def test_scales_are_averaged_at_the_images_own_size() -> None:
    image = torch.rand(1, 1, 12, 10, generator=torch.Generator().manual_seed(0))
    infer = TestTimeAugmentation(inferer=FullImage(divisor=1), group="none", scales=(1.0, 2.0))

    def by_size(x: Tensor) -> Tensor:
        return torch.full_like(x, float(x.shape[-1]))

    torch.testing.assert_close(infer(by_size, image), torch.full_like(image, (10 + 20) / 2))


def test_a_smooth_image_survives_the_scales() -> None:
    rows = torch.linspace(0, 1, 24).view(1, 1, 24, 1).expand(1, 1, 24, 20)
    infer = TestTimeAugmentation(inferer=FullImage(divisor=1), group="d4", scales=(0.75, 1.0, 1.5))
    torch.testing.assert_close(infer(lambda x: x, rows)[..., 3:-3, :], rows[..., 3:-3, :], atol=0.01, rtol=0)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0)])
def test_impossible_scales_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scales"):
        TestTimeAugmentation(inferer=FullImage(), scales=scales)
