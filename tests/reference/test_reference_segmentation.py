"""Surface metrics against DeepMind's surface-distance and MONAI, overlap and ranking against scikit-learn.

On random masks, on those that break implementations (empty, full, one voxel, touching the border, anisotropic voxels,
tolerances that are met exactly) and on DRIVE's vessels.
"""

from __future__ import annotations

import warnings
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, recall_score, roc_auc_score
from surface_distance import (
    compute_average_surface_distance,
    compute_robust_hausdorff,
    compute_surface_dice_at_tolerance,
    compute_surface_distances,
)
from torch import Tensor

from neurotrain.metrics.functional import (
    auroc,
    average_surface_distance,
    dice_score,
    hausdorff_distance,
    iou_score,
    normalized_surface_dice,
    sensitivity,
    specificity,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*may result in nan/inf distance.*:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:monai"),
]


def blob(shape: tuple[int, ...], seed: int) -> Tensor:
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5, mode="nearest")
    return torch.from_numpy(noise > 0.1)


def box(shape: tuple[int, ...], *ranges: tuple[int, int]) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(slice(*edge) for edge in ranges)] = True
    return mask


PAIRS = {
    "random": (blob((21, 19), 0), blob((21, 19), 1)),
    "random volume": (blob((10, 9, 12), 0), blob((10, 9, 12), 1)),
    "one voxel each": (box((9, 10), (2, 3), (2, 3)), box((9, 10), (4, 5), (3, 4))),
    "one voxel each in a volume": (box((5, 6, 9), (0, 1), (2, 3), (8, 9)), box((5, 6, 9), (2, 3), (3, 4), (8, 9))),
    "full": (torch.ones(6, 7).bool(), torch.ones(6, 7).bool()),
    "full and one voxel": (torch.ones(6, 7).bool(), box((6, 7), (5, 6), (0, 1))),
    "touching the border": (box((16, 17), (0, 9), (8, 17)), box((16, 17), (0, 7), (9, 17))),
    "touching all borders": (box((6, 7, 8), (0, 6), (0, 7), (3, 5)), box((6, 7, 8), (0, 6), (2, 4), (0, 8))),
    "the same": (blob((21, 19), 2), blob((21, 19), 2)),
    "far apart": (box((40, 9), (0, 2), (0, 2)), box((40, 9), (38, 40), (7, 9))),
}
SPACINGS = [(1.0, 1.0, 1.0), (3.0, 0.7, 0.7), (0.5, 2.0, 1.0)]
# the ties of unit and half steps, of diagonals, and of one step of 0.7
TOLERANCES = [0.0, 0.5, 0.7, 1.0, sqrt(2), 2.0, sqrt(5), 3.0, 50.0]


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    return PAIRS[request.param]


@pytest.fixture(params=SPACINGS, ids=str)
def spacing(request: pytest.FixtureRequest, pair: tuple[Tensor, Tensor]) -> tuple[float, ...]:
    return request.param[: pair[0].ndim]


def deepmind(preds: Tensor, target: Tensor, spacing: tuple[float, ...]) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it uses old scipy namespaces
        return compute_surface_distances(target.numpy(), preds.numpy(), spacing)


def test_weighted_metrics_equal_surface_distance(pair: tuple[Tensor, Tensor], spacing: tuple[float, ...]) -> None:
    preds, target = (mask[None] for mask in pair)
    found = deepmind(*pair, spacing)
    for tolerance in TOLERANCES:
        expected = compute_surface_dice_at_tolerance(found, tolerance)
        ours = normalized_surface_dice(preds, target, tolerance=tolerance, spacing=spacing)
        assert ours.item() == pytest.approx(expected, abs=1e-9), tolerance
    # at shares that areas meet exactly (half of a square's) the reference depends on how its sum is rounded
    for percentile in (51.3, 93.7, 95, 100):
        expected = compute_robust_hausdorff(found, percentile)
        ours = hausdorff_distance(preds, target, spacing=spacing, percentile=percentile)
        assert ours.item() == pytest.approx(expected, abs=1e-9), percentile
    for direction, expected in zip(
        ("target_to_preds", "preds_to_target"), compute_average_surface_distance(found), strict=True
    ):
        ours = average_surface_distance(preds, target, spacing=spacing, direction=direction)
        assert ours.item() == pytest.approx(expected, abs=1e-9)
    distances, sizes = (
        np.concatenate([found[f"{part}{side}"] for side in sides])
        for part, sides in (("distances_", ("gt_to_pred", "pred_to_gt")), ("surfel_areas_", ("gt", "pred")))
    )
    symmetric = average_surface_distance(preds, target, spacing=spacing).item()
    assert symmetric == pytest.approx((distances * sizes).sum() / sizes.sum(), abs=1e-9)


def test_surface_dice_equals_monai(pair: tuple[Tensor, Tensor], spacing: tuple[float, ...]) -> None:
    from monai.metrics import compute_surface_dice

    preds, target = (mask[None] for mask in pair)
    for tolerance in TOLERANCES:
        for subvoxels, boundary in ((True, "surfels"), (False, "voxels")):
            expected = compute_surface_dice(
                preds[None].float(),
                target[None].float(),
                class_thresholds=[tolerance],
                include_background=True,
                spacing=list(spacing),
                use_subvoxels=subvoxels,
            )
            ours = normalized_surface_dice(preds, target, tolerance=tolerance, spacing=spacing, boundary=boundary)
            assert ours.item() == pytest.approx(expected.item(), abs=1e-6), (tolerance, boundary)


def test_voxel_distances_equal_monai(pair: tuple[Tensor, Tensor], spacing: tuple[float, ...]) -> None:
    from monai.metrics import compute_average_surface_distance as monai_average
    from monai.metrics import compute_hausdorff_distance

    preds, target = (mask[None] for mask in pair)
    one_hot = [mask[None].float() for mask in (preds, target)]
    settings = {"include_background": True, "spacing": list(spacing)}
    for percentile in (50.0, 95.0, 100.0):
        expected = compute_hausdorff_distance(*one_hot, percentile=percentile, **settings)
        ours = hausdorff_distance(preds, target, percentile=percentile, spacing=spacing, boundary="voxels")
        assert ours.item() == pytest.approx(expected.item(), rel=1e-6), percentile
    for symmetric, direction in ((True, "both"), (False, "preds_to_target")):
        expected = monai_average(*one_hot, symmetric=symmetric, **settings)
        ours = average_surface_distance(preds, target, spacing=spacing, boundary="voxels", direction=direction)
        assert ours.item() == pytest.approx(expected.item(), rel=1e-6), direction


def test_empty_masks_are_scored_as_by_monai() -> None:
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    empty, some = torch.zeros(1, 6, 7).long(), box((6, 7), (2, 4), (3, 5)).long()[None]
    for preds, target in ((empty, empty), (empty, some), (some, empty)):
        one_hot = [labels[None].float() for labels in (preds, target)]
        expected = compute_surface_dice(*one_hot, class_thresholds=[1.0], include_background=True)
        ours = normalized_surface_dice(preds, target, tolerance=1.0)
        torch.testing.assert_close(ours.float(), expected, equal_nan=True)
        expected = compute_hausdorff_distance(*one_hot, include_background=True)
        ours = hausdorff_distance(preds, target, boundary="voxels")
        torch.testing.assert_close(ours.float(), expected, equal_nan=True)


@pytest.mark.parametrize("classes", [2, 5, 12])
def test_overlap_equals_scikit_learn(classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    preds, target = (torch.randint(classes, (2, 90, 91), generator=generator) for _ in range(2))
    settings = {"mode": "multiclass", "num_classes": classes}
    every = range(classes)
    for image in range(2):
        flat = (target[image].flatten().numpy(), preds[image].flatten().numpy())
        for score, reference in ((dice_score, f1_score), (iou_score, jaccard_score), (sensitivity, recall_score)):
            expected = reference(*flat, labels=list(every), average=None)
            np.testing.assert_allclose(score(preds, target, **settings)[image].numpy(), expected, atol=1e-12)
        table = confusion_matrix(*flat, labels=list(every))
        negatives = table.sum() - table.sum(1)
        expected = (negatives - table.sum(0) + table.diagonal()) / negatives
        np.testing.assert_allclose(specificity(preds, target, **settings)[image].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_auc_of_any_precision_equals_scikit_learn(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(5000, generator=generator).to(dtype)  # half precision makes ties
    target = torch.rand(5000, generator=generator) < scores.float()
    expected = roc_auc_score(target.numpy(), scores.double().numpy())
    assert auroc(scores, target).item() == pytest.approx(expected, abs=1e-12)


def test_vessels_of_drive(shared_data: Path) -> None:
    from PIL import Image

    masks: list[Tensor] = []
    for folder, name in (("2nd_manual", "01_manual2.gif"), ("1st_manual", "01_manual1.gif")):
        path = shared_data / "DRIVE" / "test" / folder / name
        if not path.is_file():
            pytest.skip(f"DRIVE's second observer is not there: {path.name}")
        with Image.open(path) as image:
            masks.append(torch.from_numpy(np.array(image)) > 0)
    preds, target = masks
    found = deepmind(preds, target, (1.0, 1.0))
    expected = compute_surface_dice_at_tolerance(found, 1.0)
    assert normalized_surface_dice(preds[None], target[None], tolerance=1.0).item() == pytest.approx(expected, abs=1e-9)
    expected = compute_robust_hausdorff(found, 95)
    assert hausdorff_distance(preds[None], target[None], percentile=95).item() == pytest.approx(expected, abs=1e-9)
