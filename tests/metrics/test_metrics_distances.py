"""Hausdorff and average surface distance: by hand, conventions, classes; parity is in tests/reference."""

from __future__ import annotations

import pickle
from math import inf, isinf, isnan, nan, sqrt

import pytest
import torch
from metrics_cases import multiclass_case
from torch import Tensor

from neurotrain.metrics import AverageSurfaceDistance, HausdorffDistance
from neurotrain.metrics.functional import average_surface_distance, hausdorff_distance

BOTH = (hausdorff_distance, average_surface_distance)


def squares() -> tuple[Tensor, Tensor]:
    """One pixel, and the same with a second one three rows below."""
    target = torch.zeros(1, 9, 9, dtype=torch.long)
    target[0, 2, 2] = 1
    preds = target.clone()
    preds[0, 5, 2] = 1
    return preds, target


def test_case_worked_by_hand() -> None:
    preds, target = squares()
    assert hausdorff_distance(preds, target, boundary="voxels").item() == 3
    assert hausdorff_distance(preds, target, boundary="voxels", spacing=(0.5, 9.0)).item() == 1.5
    assert hausdorff_distance(preds, target, boundary="voxels", direction="target_to_preds").item() == 0
    assert average_surface_distance(preds, target, boundary="voxels").item() == 1  # 0, 3 and, back, 0
    assert average_surface_distance(preds, target, boundary="voxels", direction="preds_to_target").item() == 1.5
    # the second pixel's corners are 2, 2, 3 and 3 away from those of the first, all eight of length sqrt(1/2)
    assert hausdorff_distance(preds, target).item() == 3
    assert average_surface_distance(preds, target).item() == pytest.approx((2 + 2 + 3 + 3) / 12)


def test_percentiles() -> None:
    preds, target = squares()
    # voxels are interpolated between 0 and 3; of eight equal corners the fifth is the first that lies 2 away
    assert hausdorff_distance(preds, target, boundary="voxels", percentile=95).item() == pytest.approx(0.95 * 3)
    assert hausdorff_distance(preds, target, percentile=50).item() == 0
    assert hausdorff_distance(preds, target, percentile=51).item() == 2
    assert hausdorff_distance(preds, target, percentile=75).item() == 2
    assert hausdorff_distance(preds, target, percentile=76).item() == 3


@pytest.mark.parametrize("distance", BOTH)
def test_absent_class(distance) -> None:  # noqa: ANN001
    empty, full = torch.zeros(1, 4, 4).long(), torch.ones(1, 4, 4).long()
    assert isnan(distance(empty, empty).item())
    assert distance(empty, empty, empty="zero").item() == 0
    for pair in ((empty, full), (full, empty)):
        assert isinf(distance(*pair).item())
        assert distance(*pair, missing=374.0).item() == 374
        assert isnan(distance(*pair, missing=nan).item())
    assert distance(full, full).item() == 0


@pytest.mark.parametrize("distance", BOTH)
def test_classes_images_and_validity_are_apart(distance) -> None:  # noqa: ANN001
    case = multiclass_case(size=12)
    preds = case.probabilities.argmax(1)
    settings = {"mode": "multiclass", "num_classes": 4}
    together = distance(preds, case.target, valid=case.valid, **settings)
    for image in range(4):
        for index in range(4):
            pair = [(labels[image] == index) & case.valid[image] for labels in (preds, case.target)]
            alone = distance(pair[0][None], pair[1][None]).squeeze()
            torch.testing.assert_close(together[image, index], alone, rtol=1e-12, atol=0.0, equal_nan=True)
    stacked = [torch.stack([labels == index for index in range(4)], dim=1) for labels in (preds, case.target)]
    apart = distance(*stacked, valid=case.valid, mode="multilabel", num_classes=4)
    torch.testing.assert_close(apart, together, equal_nan=True)


@pytest.mark.parametrize("metric", [HausdorffDistance(percentile=95), AverageSurfaceDistance()])
def test_running_mean_over_samples(metric: HausdorffDistance | AverageSurfaceDistance) -> None:
    case = multiclass_case(size=12)
    preds = case.probabilities.argmax(1)
    settings = {"mode": "multiclass", "num_classes": 4, "missing": nan}
    if isinstance(metric, HausdorffDistance):
        running, scores = HausdorffDistance(percentile=95, **settings), hausdorff_distance
        values = scores(preds, case.target, percentile=95, **settings)
    else:
        running, values = AverageSurfaceDistance(**settings), average_surface_distance(preds, case.target, **settings)
    running.update(preds[:1], case.target[:1])
    running = pickle.loads(pickle.dumps(running.to(torch.bfloat16)))
    running.update(preds[1:], case.target[1:])
    assert torch.equal(running.compute(), values[:, 1:].nanmean(1).nanmean())
    assert not running.higher_is_better


def test_diagonal_of_a_volume() -> None:
    preds, target = torch.zeros(2, 1, 5, 5, 5, dtype=torch.bool)
    preds[0, 0, 0, 0] = target[0, 3, 2, 1] = True
    found = hausdorff_distance(preds, target, boundary="voxels", spacing=(1.0, 2.0, 3.0))
    assert found.item() == pytest.approx(sqrt(9 + 16 + 9))


def test_wrong_input_is_named() -> None:
    mask = torch.ones(1, 4, 4).long()
    for percentile in (0.0, 101.0, nan):
        with pytest.raises(ValueError, match="percentile="):
            hausdorff_distance(mask, mask, percentile=percentile)
        with pytest.raises(ValueError, match="percentile="):
            HausdorffDistance(percentile=percentile)
    with pytest.raises(ValueError, match="did you mean 'voxels'"):
        hausdorff_distance(mask, mask, boundary="voxel")  # pyright: ignore
    with pytest.raises(ValueError, match="did you mean 'both'"):
        average_surface_distance(mask, mask, direction="bot")  # pyright: ignore
    with pytest.raises(ValueError, match="empty='inf'"):
        AverageSurfaceDistance(empty="inf")  # pyright: ignore
    with pytest.raises(ValueError, match="one positive number"):
        average_surface_distance(mask, mask, spacing=(1.0, -1.0))
    assert average_surface_distance(mask, mask * 0).item() == inf
