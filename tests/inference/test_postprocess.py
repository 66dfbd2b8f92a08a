"""Clean-up of masks: hand-worked cases, a flood fill and max-pooling as independent references."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.inference import closing, fill_holes, largest_component, opening, remove_small_components, threshold

Operation = Callable[..., Tensor]
OPERATIONS: list[Operation] = [
    lambda mask, **kw: remove_small_components(mask, min_size=3, **kw),
    largest_component,
    fill_holes,
    opening,
    closing,
]


def random_mask(*shape: int, labels: int = 1, density: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(1, labels + 1, shape, generator=generator)
    return mask * (torch.rand(shape, generator=generator) < density)


def flood_components(mask: Tensor, connectivity: int) -> list[set[tuple[int, ...]]]:
    """Connected components of a binary mask by flood fill, in memory order."""
    left = {tuple(pixel) for pixel in mask.nonzero().tolist()}
    steps = [s for s in itertools.product((-1, 0, 1), repeat=mask.ndim) if 0 < sum(map(abs, s)) <= connectivity]
    components = []
    while left:
        seed = min(left)
        left.remove(seed)
        component, border = {seed}, [seed]
        while border:
            pixel = border.pop()
            near = {tuple(a + b for a, b in zip(pixel, step, strict=True)) for step in steps} & left
            left -= near
            component |= near
            border += near
        components.append(component)
    return components


def draw(components: list[set[tuple[int, ...]]], like: Tensor) -> Tensor:
    mask = torch.zeros_like(like)
    for pixel in set().union(*components):
        mask[pixel] = 1
    return mask


@pytest.mark.parametrize(
    ("shape", "connectivity", "density"),
    [((12, 14), 1, 0.45), ((12, 14), 2, 0.3), ((6, 7, 5), 1, 0.3), ((6, 7, 5), 3, 0.12)],
)
def test_components_against_flood_fill(shape: tuple[int, ...], connectivity: int, density: float) -> None:
    masks = random_mask(3, *shape, density=density)
    small = remove_small_components(masks, min_size=4, connectivity=connectivity)
    largest = largest_component(masks, connectivity=connectivity)
    for mask, found_small, found_largest in zip(masks, small, largest, strict=True):
        components = flood_components(mask, connectivity)
        assert {len(c) >= 4 for c in components} == {True, False}
        assert torch.equal(found_small, draw([c for c in components if len(c) >= 4], mask))
        assert torch.equal(found_largest, draw([max(components, key=len)], mask))


@pytest.mark.parametrize("connectivity", [1, 2])
def test_fill_holes_against_flood_fill(connectivity: int) -> None:
    masks = random_mask(3, 12, 14, density=0.6)
    for mask, found in zip(masks, fill_holes(masks, connectivity=connectivity), strict=True):
        outside = [
            component
            for component in flood_components(mask == 0, connectivity)
            if any(row in (0, 11) or column in (0, 13) for row, column in component)
        ]
        assert torch.equal(found, 1 - draw(outside, mask))
        if connectivity == 1:
            assert not torch.equal(found, mask)


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("shape", [(15, 13), (8, 9, 10)])
def test_opening_and_closing_against_max_pooling(shape: tuple[int, ...], radius: int) -> None:
    pool = F.max_pool2d if len(shape) == 2 else F.max_pool3d
    density = 0.9 if radius == 1 else 0.98
    mask = random_mask(2, *shape, density=density)
    x = mask[:, None].float()

    def dilate(x: Tensor) -> Tensor:
        return pool(x, 2 * radius + 1, stride=1, padding=radius)

    def erode(x: Tensor) -> Tensor:
        return -dilate(-x)

    opened = opening(mask, radius=radius, connectivity=len(shape))
    assert torch.equal(opened, dilate(erode(x))[:, 0].long())
    assert 0 < opened.sum() < mask.sum()
    sparse = 1 - mask
    closed = closing(sparse, radius=radius, connectivity=len(shape))
    assert torch.equal(closed, erode(dilate(1 - x))[:, 0].long())
    assert torch.equal(closed, 1 - opened)


def test_opening_and_closing_by_hand() -> None:
    mask = torch.tensor(
        [
            [0, 1, 0, 0, 0],
            [1, 1, 1, 0, 1],
            [0, 1, 0, 0, 0],
            [0, 0, 0, 0, 0],
        ]
    )[None]
    plus = mask.clone()
    plus[0, 1, 4] = 0
    assert torch.equal(opening(mask), plus)
    ring = torch.zeros(1, 5, 5, dtype=torch.int64)
    ring[0, [1, 2, 2, 3], [2, 1, 3, 2]] = 1
    disk = ring.clone()
    disk[0, 2, 2] = 1
    assert torch.equal(closing(ring), disk)


def test_labels_are_processed_one_by_one() -> None:
    mask = torch.tensor([[[1, 1, 2, 0, 2], [1, 0, 2, 2, 2], [0, 3, 0, 0, 1]]])
    assert remove_small_components(mask, min_size=2).tolist() == [[[1, 1, 2, 0, 2], [1, 0, 2, 2, 2], [0, 0, 0, 0, 0]]]
    assert largest_component(mask).tolist() == [[[1, 1, 2, 0, 2], [1, 0, 2, 2, 2], [0, 3, 0, 0, 0]]]


def test_samples_are_processed_one_by_one() -> None:
    single = torch.zeros(1, 4, 4, dtype=torch.int64)
    single[0, 1, 1] = 1
    stacked = single.repeat(3, 1, 1)
    assert torch.equal(largest_component(stacked), stacked)
    assert remove_small_components(stacked, min_size=2).sum() == 0


def test_holes_keep_other_labels_and_go_to_the_innermost() -> None:
    mask = torch.ones(7, 7, dtype=torch.int64)
    mask[1:6, 1:6] = 0
    mask[2:5, 2:5] = 2
    mask[3, 3] = 0
    filled = fill_holes(mask[None])[0]
    expected = torch.ones(7, 7, dtype=torch.int64)
    expected[2:5, 2:5] = 2
    assert torch.equal(filled, expected)


def test_of_equal_components_the_first_stays() -> None:
    assert largest_component(torch.tensor([[[1, 1, 0, 1, 1]]])).tolist() == [[[1, 1, 0, 0, 0]]]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_dtype_stays_and_the_input_is_left_alone(operation: Operation, dtype: torch.dtype) -> None:
    mask = random_mask(2, 9, 8).to(dtype)
    before = mask.clone()
    found = operation(mask)
    assert found.dtype == dtype
    assert found.shape == mask.shape
    assert torch.equal(mask, before)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("shape", [(2, 5, 4), (1, 3, 4, 5), (0, 5, 4)])
def test_empty_and_full_masks_stay(operation: Operation, shape: tuple[int, ...]) -> None:
    for value in (0, 1):
        mask = torch.full(shape, value)
        assert torch.equal(operation(mask), mask)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_are_idempotent_and_change_only_background_and_own_label(operation: Operation) -> None:
    mask = random_mask(2, 16, 16, labels=2, density=0.7)
    found = operation(mask)
    changed = found != mask
    assert changed.any()
    assert ((found == 0) | (mask == 0))[changed].all()
    binary = (mask > 0).long()
    assert torch.equal(operation(operation(binary)), operation(binary))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_bad_masks_are_refused(operation: Operation) -> None:
    with pytest.raises(ValueError, match="expected bool or integer labels"):
        operation(torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="expected bool or integer labels"):
        operation(torch.zeros(4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"connectivity=3 must be in \[1, 2\]"):
        operation(torch.zeros(1, 4, 4, dtype=torch.int64), connectivity=3)


def test_settings_out_of_range_are_refused() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="min_size=0"):
        remove_small_components(mask, min_size=0)
    for operation in (opening, closing):
        with pytest.raises(ValueError, match="radius=0"):
            operation(mask, radius=0)


def test_threshold() -> None:
    probabilities = torch.tensor([[0.0, 0.3, 0.30001], [0.5, 0.9, 1.0]])
    found = threshold(probabilities, value=0.3)
    assert found.dtype == torch.int64
    assert found.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert threshold(torch.zeros(0, 1, 4, 4)).shape == (0, 1, 4, 4)
    with pytest.raises(ValueError, match="NaN"):
        threshold(torch.tensor([0.1, float("nan")]))
    for value in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="value="):
            threshold(probabilities, value=value)
