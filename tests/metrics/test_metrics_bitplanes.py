"""Packed masks: both ways to pack and to count, shifts across bytes, dilation against distances, coordinates."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from neurotrain.metrics.functional import bitplanes
from neurotrain.metrics.functional.bitplanes import BitPlanes, ball_rows, bounding_box, pack_bits, unpack_bits
from neurotrain.metrics.functional.nearest import nearest_distances


def masks(*shape: int, share: float = 0.5, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def laid_out(found: Tensor, like: Tensor) -> Tensor:
    """Without the margins."""
    return found[tuple(slice(size) for size in like.shape)]


@pytest.mark.parametrize("width", [1, 7, 8, 9, 64, 65])
def test_both_ways_to_pack_agree_and_are_undone(width: int) -> None:
    mask = masks(3, 5, width)
    packed = pack_bits(mask)
    assert packed.shape == (3, 5, -(-width // 8))
    assert torch.equal(bitplanes._pack_by_product(mask), packed)
    assert torch.equal(unpack_bits(packed)[..., :width], mask)
    assert not unpack_bits(packed)[..., width:].any()


def test_both_ways_to_count_agree() -> None:
    words = torch.randint(-(2**63), 2**63 - 1, (99,), generator=torch.Generator().manual_seed(0))
    words = torch.cat([words, torch.tensor([0, -1, -(2**63), 2**63 - 1])])
    expected = [bin(int(word) & (2**64 - 1)).count("1") for word in words]
    assert bitplanes._ones_by_numpy(words).tolist() == expected
    assert bitplanes._ones_by_sums(words).tolist() == expected


def test_counts_are_per_mask() -> None:
    mask = masks(4, 5, 3, 11)
    mask[2] = False
    planes = BitPlanes.of(pack_bits(mask), margins=(1, 2, 3))
    assert torch.equal(planes.counts(), mask.sum((1, 2, 3)))


@pytest.mark.parametrize("amount", [1, 7, 8, 9, 23])
def test_shifts_along_the_last_axis(amount: int) -> None:
    mask = masks(2, 4, 30)
    bits = BitPlanes.of(pack_bits(mask), margins=(0, amount)).bits
    flat = unpack_bits(bits)
    zeros = torch.zeros(amount, dtype=torch.bool)
    assert torch.equal(unpack_bits(bitplanes.voxel_before(bits, amount)), torch.cat([zeros, flat[:-amount]]))
    assert torch.equal(unpack_bits(bitplanes.voxel_after(bits, amount)), torch.cat([flat[amount:], zeros]))


@pytest.mark.parametrize("shape", [(23, 30), (7, 6, 21)])
@pytest.mark.parametrize("radius", [0.0, 1.0, 1.5, 3.0, 11.0])
def test_dilation_equals_a_distance_transform(shape: tuple[int, ...], radius: float) -> None:
    steps = (1.0, 0.5, 0.7)[-len(shape) :]
    mask = masks(3, *shape, share=0.01)
    mask[1] = False
    mask[2] = False
    mask[(2, *(0 for _ in shape))] = mask[(2, *(-1 for _ in shape))] = True  # both ends of the array
    packed = pack_bits(mask)
    limits = (*packed.shape[1:-1], 8 * packed.shape[-1])
    margins = bitplanes.ball_reach(radius, steps, limits)
    planes = BitPlanes.of(packed, margins=margins)
    near = planes.dilated(ball_rows(radius, steps, limits)).bits.reshape(-1, *planes.shape)
    for found, plane in zip(unpack_bits(near), mask, strict=True):
        expected = torch.zeros_like(plane)
        if plane.any():
            expected = torch.from_numpy(distance_transform_edt(~plane.numpy(), sampling=steps) <= radius)
        assert torch.equal(laid_out(found, plane), expected)


def test_coordinates_are_those_of_the_mask() -> None:
    mask = masks(3, 4, 5, 13, share=0.2)
    planes = BitPlanes.of(pack_bits(mask), margins=(1, 3, 9))
    index, points = planes.coordinates()
    assert torch.equal(points, mask.nonzero())
    assert torch.equal(unpack_bits(planes.bits).nonzero().flatten(), index)


def test_bounding_box_is_tight_and_none_without_voxels() -> None:
    mask = torch.zeros(2, 6, 7, 40, dtype=torch.bool)
    assert bounding_box(pack_bits(mask)) is None
    mask[0, 2, 3, 17] = mask[1, 4, 3, 8] = True
    assert bounding_box(pack_bits(mask)) == (slice(2, 5), slice(3, 4), slice(1, 3))


def test_nearest_distances_equal_all_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    points, others = (torch.randint(30, (n, 3), generator=generator) for n in (50, 40))
    steps = torch.tensor([1.0, 0.3, 2.0], dtype=torch.float64)
    expected = ((points[:, None] - others[None]) * steps).square().sum(-1).sqrt().amin(1)
    torch.testing.assert_close(nearest_distances(points, others, steps=steps.tolist()), expected)
    limited = nearest_distances(points, others, steps=steps.tolist(), farthest=3.0)
    assert torch.equal(limited.isinf(), expected > 3.0)
    assert 0 < limited.isinf().sum() < 50
    assert nearest_distances(points, others[:0], steps=steps.tolist()).isinf().all()


def test_what_lies_exactly_at_the_limit_is_found() -> None:
    # three steps of 0.1 are 0.30000000000000004, and the tree's own rounding of 0.7 - 0.4 would be less
    points, others = torch.tensor([[7]]), torch.tensor([[4]])
    assert nearest_distances(points, others, steps=(0.1,), farthest=0.3).item() > 0.3
    assert nearest_distances(points, others, steps=(0.5,), farthest=1.5).item() == 1.5
