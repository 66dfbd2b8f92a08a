"""Centreline Dice: by the paper's formula over scikit-image's skeletons, by hand, and where a class is absent."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from neurotrain.metrics import CenterlineDice
from neurotrain.metrics.functional import centerline_dice, dice_score

skimage = pytest.importorskip("skimage.morphology")


def blobs(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2.0)
    return torch.from_numpy(noise > 0)


@pytest.mark.parametrize("shape", [(30, 31), (12, 13, 14)])
def test_equals_the_papers_formula(shape: tuple[int, ...]) -> None:
    preds, target = (blobs(shape, seed) for seed in (0, 1))
    skeletons = [skimage.skeletonize(mask.numpy()) > 0 for mask in (preds, target)]
    precision = (skeletons[0] & target.numpy()).sum() / skeletons[0].sum()
    sensitivity = (skeletons[1] & preds.numpy()).sum() / skeletons[1].sum()
    expected = 2 * precision * sensitivity / (precision + sensitivity)
    assert centerline_dice(preds[None], target[None]).item() == pytest.approx(expected, abs=1e-12)


def test_width_does_not_matter_but_a_gap_does() -> None:
    target = torch.zeros(1, 11, 40, dtype=torch.long)
    target[0, 3:8, 2:38] = 1
    thin = torch.zeros_like(target)
    thin[0, 5, 2:38] = 1
    assert dice_score(thin, target).item() == pytest.approx(1 / 3)
    assert centerline_dice(thin, target).item() > 0.95  # thinning leaves a small fork at an end
    broken = target.clone()
    broken[0, :, 15:25] = 0
    assert 0.5 < centerline_dice(broken, target).item() < 0.9


def test_absent_and_invalid() -> None:
    empty, full = torch.zeros(1, 5, 9).long(), torch.ones(1, 5, 9).long()
    assert isnan(centerline_dice(empty, empty).item())
    assert centerline_dice(empty, empty, empty="one").item() == 1
    assert centerline_dice(empty, full).item() == 0
    assert centerline_dice(full, empty).item() == 0
    assert isnan(centerline_dice(full, full, valid=torch.zeros(1, 5, 9).bool()).item())
    with pytest.raises(ValueError, match="two or three spatial axes"):
        centerline_dice(empty[0], empty[0])


def test_running_mean() -> None:
    preds, target = (torch.stack([blobs((20, 20), seed), blobs((20, 20), seed + 1)]) for seed in (0, 2))
    metric = CenterlineDice()
    for row in range(2):
        metric.update(preds[row : row + 1], target[row : row + 1])
    assert metric.compute().item() == pytest.approx(centerline_dice(preds, target).mean().item(), abs=1e-15)
