"""Running scores: both averages, classes, batches, casts, pickling."""

from __future__ import annotations

import pickle

import pytest
import torch
from metrics_cases import binary_case, multiclass_case
from torchmetrics import Metric

from neurotrain.metrics import DiceScore, IoUScore, NormalizedSurfaceDice, Sensitivity, Specificity
from neurotrain.metrics.functional import (
    confusion_counts,
    dice_from_counts,
    dice_score,
    iou_from_counts,
    iou_score,
    normalized_surface_dice,
    sensitivity,
    sensitivity_from_counts,
    specificity,
    specificity_from_counts,
)

SCORES = {
    DiceScore: dice_score,
    IoUScore: iou_score,
    NormalizedSurfaceDice: normalized_surface_dice,
    Sensitivity: sensitivity,
    Specificity: specificity,
}
SETTINGS = {"mode": "multiclass", "num_classes": 4}


def multiclass_labels() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    case = multiclass_case()
    preds = case.probabilities.argmax(1)
    preds[1][preds[1] == 3] = 0
    return preds, case.target, case.valid


@pytest.mark.parametrize("metric", SCORES)
def test_sample_average_is_the_mean_of_the_function(metric: type[Metric]) -> None:
    preds, target, valid = multiclass_labels()
    tolerance = {"tolerance": 1.0} if metric is NormalizedSurfaceDice else {}
    scores = SCORES[metric](preds, target, valid=valid, **SETTINGS, **tolerance)
    assert scores[1, 3].isnan() or metric is Specificity
    for reduction, background, expected in (
        ("none", False, scores.nanmean(0)),
        ("mean", False, scores[:, 1:].nanmean(1).mean()),
        ("mean", True, scores.nanmean(1).mean()),
    ):
        running = metric(**SETTINGS, reduction=reduction, include_background=background)
        for row in range(4):
            running.update(preds[row : row + 1], target[row : row + 1], valid[row : row + 1])
        assert torch.equal(running.compute(), expected)


def test_pooled_average_is_the_score_of_all_voxels() -> None:
    preds, target, valid = multiclass_labels()
    counts = confusion_counts(preds, target, valid=valid, **SETTINGS).sum(0)
    pairs = (
        (DiceScore, dice_from_counts),
        (IoUScore, iou_from_counts),
        (Sensitivity, sensitivity_from_counts),
        (Specificity, specificity_from_counts),
    )
    for metric, score in pairs:
        running = metric(**SETTINGS, average="pooled", reduction="none")
        running.update(preds[:3], target[:3], valid[:3])
        running.update(preds[3:], target[3:], valid[3:])
        assert torch.equal(running.compute(), score(counts))


def test_pooled_surface_dice_weighs_by_area() -> None:
    # 4 of 8 corners near, and 12 of 12 of a larger square: lengths are summed before the division
    preds, target = torch.zeros(2, 2, 9, 9, dtype=torch.long)
    preds[0, 4, 4] = target[0, 4, 5] = 1
    preds[1, 2:7, 2:7] = target[1, 2:7, 2:7] = 1
    running = NormalizedSurfaceDice(tolerance=0.0, average="pooled")
    running.update(preds, target)
    corner = 0.5**0.5
    whole = 2 * (16 + 4 * corner)
    assert running.compute().item() == pytest.approx((4 * corner + whole) / (8 * corner + whole))
    sample = NormalizedSurfaceDice(tolerance=0.0)
    sample.update(preds, target)
    assert sample.compute().item() == pytest.approx(0.75)


def test_convention_for_empty_masks() -> None:
    empty, one = torch.zeros(1, 3, 3).long(), torch.ones(1, 3, 3).long()
    for convention, expected in (("nan", 1.0), ("one", 1.0), ("zero", 0.5)):
        metric = DiceScore(empty=convention)
        metric.update(torch.cat([empty, one]), torch.cat([empty, one]))
        assert metric.compute() == expected
    metric = NormalizedSurfaceDice()
    metric.update(empty, empty)
    assert metric.compute().isnan()
    metric.update(empty, one)
    assert metric.compute() == 0
    for convention, expected in (("one", 1.0), ("zero", 0.0)):
        metric = NormalizedSurfaceDice(empty=convention)
        metric.update(empty, empty)
        assert metric.compute() == expected


def test_surface_dice_counts_what_it_is_told() -> None:
    case = binary_case()
    preds = (case.probabilities[:, 0] > 0.5).long()
    for boundary in ("surfels", "voxels"):
        metric = NormalizedSurfaceDice(tolerance=1.0, boundary=boundary)
        metric.update(preds, case.target)
        expected = normalized_surface_dice(preds, case.target, tolerance=1.0, boundary=boundary).nanmean()
        assert metric.compute().item() == pytest.approx(expected.item(), abs=1e-15)


@pytest.mark.parametrize("metric", SCORES)
def test_pickle_clone_reset_and_forward(metric: type[Metric]) -> None:
    case = binary_case()
    preds = (case.probabilities[:, 0] > 0.5).long()
    whole = metric()
    whole.update(preds, case.target, case.valid)
    expected = whole.compute()
    running = metric()
    running(preds[:2], case.target[:2], case.valid[:2])
    running.to(torch.bfloat16).to(torch.float32)
    for copy in (pickle.loads(pickle.dumps(running)), running.clone()):
        copy.update(preds[2:], case.target[2:], case.valid[2:])
        assert torch.equal(copy.compute(), expected)
    running.reset()
    running.update(preds, case.target, case.valid)
    assert torch.equal(running.compute(), expected)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'pooled'"):
        DiceScore(average="pool")  # pyright: ignore
    with pytest.raises(ValueError, match="did you mean 'mean'"):
        IoUScore(reduction="means")  # pyright: ignore
    with pytest.raises(ValueError, match="empty='NaN'"):
        DiceScore(empty="NaN")  # pyright: ignore
    with pytest.raises(ValueError, match="did you mean 'surfels'"):
        NormalizedSurfaceDice(boundary="surfel")  # pyright: ignore
    with pytest.raises(ValueError, match="empty='nan_target'"):
        NormalizedSurfaceDice(empty="nan_target")  # pyright: ignore
    with pytest.raises(ValueError, match="tolerance=-1"):
        NormalizedSurfaceDice(tolerance=-1)
    with pytest.raises(ValueError, match="no background class"):
        DiceScore(include_background=True)
    with pytest.raises(ValueError, match="returns every class"):
        DiceScore(mode="multiclass", num_classes=3, reduction="none", include_background=True)
