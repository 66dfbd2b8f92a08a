"""Normalised surface Dice: against DeepMind's surface-distance and MONAI, by hand, and where a class is absent."""

from __future__ import annotations

import warnings
from math import isnan, sqrt

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate, gaussian_filter
from surface_distance import compute_surface_dice_at_tolerance, compute_surface_distances
from surface_distance import lookup_tables as deepmind
from torch import Tensor

from neurotrain.metrics.functional import bitplanes, normalized_surface_dice, surface_dice_from_areas, surface_overlap
from neurotrain.metrics.functional import surface as surface_module
from neurotrain.metrics.functional.bitplanes import BitPlanes, pack_bits
from neurotrain.metrics.functional.boundaries import surfel_codes
from neurotrain.metrics.functional.surfels import surfel_areas

SPACINGS = [(1.0, 1.0, 1.0), (0.3, 1.7, 0.9), (0.1, 0.1, 0.1)]


def blobs(shape: tuple[int, ...], seed: int) -> Tensor:
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5, mode="nearest")
    return torch.from_numpy(noise > 0.1)


def by_deepmind(preds: Tensor, target: Tensor, tolerance: float, spacing: tuple[float, ...]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it uses old scipy namespaces
        distances = compute_surface_distances(target.bool().numpy(), preds.bool().numpy(), spacing)
    return float(compute_surface_dice_at_tolerance(distances, tolerance))


def box(shape: tuple[int, ...], *ranges: tuple[int, int]) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.long)
    mask[tuple(slice(*edge) for edge in ranges)] = 1
    return mask


HARD_MASKS = {
    "one voxel each, neighbours": (box((5, 6), (2, 3), (2, 3)), box((5, 6), (2, 3), (3, 4))),
    "one voxel each, opposite corners": (box((5, 6), (0, 1), (0, 1)), box((5, 6), (4, 5), (5, 6))),
    "full": (torch.ones(4, 5), torch.ones(4, 5)),
    "full and one voxel": (torch.ones(4, 5), box((4, 5), (3, 4), (0, 1))),
    "touching the border": (box((6, 6), (0, 4), (2, 6)), box((6, 6), (0, 3), (3, 6))),
    "one row": (torch.ones(1, 7), box((1, 7), (0, 1), (2, 5))),
    "diagonal pair": (torch.eye(2), torch.eye(2).flip(0)),
    "full volume and slab": (torch.ones(4, 3, 5), box((4, 3, 5), (1, 2), (0, 3), (0, 5))),
    "voxel in a volume": (box((3, 3, 3), (1, 2), (1, 2), (1, 2)), box((3, 3, 3), (0, 1), (2, 3), (1, 2))),
}


@pytest.fixture(params=["chosen", "dilation", "search"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to find near points, and the choice between them."""
    if request.param != "chosen":
        monkeypatch.setattr(surface_module, "_ROWS_AT_MOST", 10**9 if request.param == "dilation" else 1)
    return request.param


def test_surfels_equal_deepmind() -> None:
    for spacing in SPACINGS:
        lengths = deepmind.create_table_neighbour_code_to_contour_length(spacing[:2])
        areas = deepmind.create_table_neighbour_code_to_surface_area(spacing)
        np.testing.assert_allclose(surfel_areas(spacing[:2]), lengths, rtol=1e-14)
        np.testing.assert_allclose(surfel_areas(spacing), areas, rtol=1e-14)


@pytest.mark.parametrize("shape", [(5, 7), (4, 5, 6)])
def test_neighbour_codes_equal_deepmind(shape: tuple[int, ...]) -> None:
    masks = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)) < 0.5
    kernel = deepmind.ENCODE_NEIGHBOURHOOD_2D_KERNEL if len(shape) == 2 else deepmind.ENCODE_NEIGHBOURHOOD_3D_KERNEL
    planes = BitPlanes.of(pack_bits(masks), margins=[1] * len(shape))
    codes = surfel_codes(planes, torch.arange(len(planes.bits))).reshape(2, *planes.shape[:-1], 8 * planes.shape[-1])
    for mask, found in zip(masks, codes, strict=True):
        expected = correlate(np.pad(mask.numpy().astype(np.uint8), (0, 1)), kernel, mode="constant", cval=0)
        assert np.array_equal(found.numpy()[tuple(slice(size) for size in expected.shape)], expected)


@pytest.mark.parametrize("shape", [(15, 14), (7, 8, 6)])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_equals_deepmind_on_random_masks(shape: tuple[int, ...], spacing: tuple[float, ...], way: str) -> None:
    spacing = spacing[: len(shape)]
    for seed in range(2):
        preds, target = blobs(shape, seed), blobs(shape, seed + 100)
        # 0.3 and 2.5 are exactly reached by some spacings, where rounding decides
        for tolerance in (0.0, 0.3, 1.0, 2.5, 40.0):
            ours = normalized_surface_dice(preds[None], target[None], tolerance=tolerance, spacing=spacing).item()
            assert ours == pytest.approx(by_deepmind(preds, target, tolerance, spacing), abs=1e-9)


@pytest.mark.parametrize("name", HARD_MASKS)
def test_equals_deepmind_on_hard_masks(name: str, way: str) -> None:
    preds, target = (mask.long() for mask in HARD_MASKS[name])
    spacing = (0.5, 2.0, 1.0)[: preds.ndim]
    for tolerance in (0.0, 0.5, 1.0, 2.0, 5.0):
        ours = normalized_surface_dice(preds[None], target[None], tolerance=tolerance, spacing=spacing).item()
        assert ours == pytest.approx(by_deepmind(preds, target, tolerance, spacing), abs=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(12, 14), (7, 9, 8)])
def test_equals_monai(shape: tuple[int, ...]) -> None:
    from monai.metrics import compute_surface_dice

    generator = torch.Generator().manual_seed(0)
    preds, target = (torch.randint(3, (2, *shape), generator=generator) for _ in range(2))
    one_hot = [torch.nn.functional.one_hot(x, 3).movedim(-1, 1) for x in (preds, target)]
    spacing = (1.0, 2.0, 1.5)[: len(shape)]
    expected = compute_surface_dice(
        *one_hot, class_thresholds=[1.0] * 3, include_background=True, spacing=list(spacing), use_subvoxels=True
    )
    ours = normalized_surface_dice(preds, target, tolerance=1.0, spacing=spacing, mode="multiclass", num_classes=3)
    torch.testing.assert_close(ours.float(), expected.float())


def test_case_worked_by_hand() -> None:
    # a pixel has four corners of length sqrt(2)/2; neighbours share two of them
    preds, target = (mask[None] for mask in HARD_MASKS["one voxel each, neighbours"])
    areas = surface_overlap(preds, target, tolerance=0.0)
    assert areas.flatten().tolist() == pytest.approx([4 * sqrt(0.5), 8 * sqrt(0.5)])
    assert normalized_surface_dice(preds, target, tolerance=0.0).item() == pytest.approx(0.5)
    assert normalized_surface_dice(preds, target, tolerance=1.0).item() == 1


def test_absent_class() -> None:
    empty, full = torch.zeros(1, 4, 4).long(), torch.ones(1, 4, 4).long()
    assert isnan(normalized_surface_dice(empty, empty, tolerance=1.0).item())
    assert normalized_surface_dice(empty, full, tolerance=9.0).item() == 0
    assert normalized_surface_dice(full, empty, tolerance=9.0).item() == 0
    assert normalized_surface_dice(empty, empty, tolerance=1.0, empty="one").item() == 1
    assert normalized_surface_dice(empty, full, tolerance=1.0, empty="one").item() == 0


def test_labels_of_any_type_and_size_of_batch() -> None:
    """Labels beyond a byte, negative ones, and batches that are worked on in parts."""
    preds, target = (torch.stack([blobs((11, 13), seed + k).long() for k in range(5)]) for seed in (0, 9))
    expected = normalized_surface_dice(preds, target, tolerance=1.0, mode="multiclass", num_classes=3)
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        found = normalized_surface_dice(
            preds.to(dtype), target.to(dtype), tolerance=1.0, mode="multiclass", num_classes=3
        )
        assert torch.equal(found.nan_to_num(-1), expected.nan_to_num(-1))
    for other in (257, -255):  # a byte would hold 1
        moved = torch.where(preds == 0, other, preds)
        alone = normalized_surface_dice(moved, target, tolerance=1.0, mode="multiclass", num_classes=3)
        assert torch.equal(alone[:, 1], expected[:, 1])
        assert (alone[:, 0] == 0).all()


@pytest.mark.parametrize("shape", [(15, 14), (7, 8, 6)])
def test_what_accelerators_run_gives_the_same(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    preds, target = blobs(shape, 0)[None], blobs(shape, 1)[None]
    expected = [surface_overlap(preds, target, tolerance=1.0, boundary=kind) for kind in ("surfels", "voxels")]
    monkeypatch.setattr(bitplanes, "_ones_by_numpy", bitplanes._ones_by_sums)
    monkeypatch.setattr(surface_module, "pack_bits", bitplanes._pack_by_product)
    found = [surface_overlap(preds, target, tolerance=1.0, boundary=kind) for kind in ("surfels", "voxels")]
    assert torch.equal(torch.stack(found), torch.stack(expected))


def test_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    preds, target = (torch.stack([blobs((11, 13), seed + k) for k in range(5)]) for seed in (0, 9))
    expected = normalized_surface_dice(preds, target, tolerance=1.0)
    monkeypatch.setattr(surface_module, "_VOXELS_AT_ONCE", 2 * 11 * 13)
    assert torch.equal(normalized_surface_dice(preds, target, tolerance=1.0), expected)


def test_classes_and_images_are_independent() -> None:
    preds = torch.stack([blobs((9, 9), seed).long() + blobs((9, 9), seed + 5) for seed in range(2)])
    target = torch.stack([blobs((9, 9), seed).long() + blobs((9, 9), seed + 5) for seed in range(10, 12)])
    together = normalized_surface_dice(preds, target, tolerance=1.0, mode="multiclass", num_classes=4)
    assert together[:, 3].isnan().all()
    for index in range(3):
        alone = normalized_surface_dice(preds == index, target == index, tolerance=1.0)
        assert torch.equal(together[:, index : index + 1], alone)
    stacked = [torch.stack([x == 1, x == 2], dim=1) for x in (preds, target)]
    labels = normalized_surface_dice(*stacked, tolerance=1.0, mode="multilabel", num_classes=2)
    assert torch.equal(labels, together[:, 1:3])


def test_outside_valid_is_empty_in_both() -> None:
    preds, target = blobs((15, 15), 0)[None], blobs((15, 15), 1)[None]
    valid = torch.zeros(1, 15, 15).bool()
    valid[:, 2:11, 3:14] = True
    inside = normalized_surface_dice(preds, target, tolerance=1.0, valid=valid)
    cut = normalized_surface_dice(preds[:, 2:11, 3:14], target[:, 2:11, 3:14], tolerance=1.0)
    assert torch.equal(inside, cut)
    assert not torch.equal(inside, normalized_surface_dice(preds, target, tolerance=1.0))


def test_areas_pool() -> None:
    areas = torch.tensor([[1.0, 4.0], [0.0, 0.0], [3.0, 4.0]])
    assert surface_dice_from_areas(areas.sum(0)).item() == 0.5
    assert surface_dice_from_areas(areas)[1].isnan()


def test_wrong_input_is_named() -> None:
    mask = torch.ones(1, 4, 4).long()
    for tolerance in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="tolerance="):
            normalized_surface_dice(mask, mask, tolerance=tolerance)
    for spacing in ((1.0,), (1.0, 0.0), (1.0, float("inf")), (1.0, 1.0, 1.0)):
        with pytest.raises(ValueError, match="one positive number for each of 2 axes"):
            normalized_surface_dice(mask, mask, tolerance=1.0, spacing=spacing)
    with pytest.raises(ValueError, match="two or three spatial axes, not 1"):
        normalized_surface_dice(mask[0], mask[0], tolerance=1.0)
