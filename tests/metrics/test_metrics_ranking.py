"""Area under the ROC curve: against scikit-learn, by hand, with ties, signs and missing classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from neurotrain.metrics.functional import auroc, auroc_from_histogram, score_histogram
from neurotrain.metrics.functional.ranking import histogram_thresholds


def random_case(seed: int, size: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(size, generator=generator) < 0.2
    return torch.randn(size, generator=generator) + target, target


def test_case_worked_by_hand() -> None:
    # pairs (positive, negative): 2>1, 2>0, 1=1, 1>0 -> 3.5 of 4
    assert auroc(torch.tensor([2.0, 1.0, 1.0, 0.0]), torch.tensor([1, 1, 0, 0])).item() == 3.5 / 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("levels", [None, 1, 3])
def test_equals_scikit_learn(dtype: torch.dtype, levels: int | None) -> None:
    scores, target = random_case(seed=levels or 0)
    scores = (scores if levels is None else (scores * levels).round() / levels).to(dtype)
    expected = roc_auc_score(target.numpy(), scores.double().numpy())
    assert auroc(scores, target).item() == pytest.approx(expected, abs=1e-12)
    assert auroc(scores.sigmoid().view(20, 25), target.long().view(20, 25)).item() == pytest.approx(
        roc_auc_score(target.numpy(), scores.sigmoid().double().numpy()), abs=1e-12
    )


def test_float64_scores_are_not_rounded() -> None:
    scores = torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64)
    assert auroc(scores, torch.tensor([False, True])) == 1.0
    assert auroc(scores.float(), torch.tensor([False, True])) == 0.5


def test_zeros_of_both_signs_and_infinities_are_ordered() -> None:
    scores = torch.tensor([-float("inf"), -0.0, 0.0, float("inf")])
    assert auroc(scores, torch.tensor([0, 1, 0, 1])).item() == (1 + 0.5 + 1 + 1) / 4
    assert auroc(scores.double(), torch.tensor([0, 1, 0, 1])).item() == (1 + 0.5 + 1 + 1) / 4


def test_extremes() -> None:
    scores, target = torch.tensor([0.1, 0.2, 0.8, 0.9]), torch.tensor([0, 0, 1, 1])
    assert auroc(scores, target) == 1
    assert auroc(scores, 1 - target) == 0
    assert auroc(torch.full((4,), 0.5), target) == 0.5


@pytest.mark.parametrize("target", [torch.zeros(3), torch.ones(3), torch.zeros(0)])
def test_missing_class_is_nan(target: torch.Tensor) -> None:
    for dtype in (torch.float32, torch.float64):
        assert auroc(torch.rand(len(target), dtype=dtype), target.long()).isnan()


def test_invalid_elements_may_be_anything() -> None:
    scores, target = random_case(seed=3)
    valid = torch.arange(len(scores)) % 3 > 0
    spoiled = scores.masked_fill(~valid, float("nan"))
    marked = target.long().masked_fill(~valid, 255)
    assert torch.equal(auroc(spoiled, marked, valid=valid), auroc(scores[valid], target[valid]))


def test_wrong_input_is_named() -> None:
    scores, target = random_case(seed=1)
    with pytest.raises(ValueError, match="NaN"):
        auroc(scores.masked_fill(target, float("nan")), target)
    with pytest.raises(ValueError, match="labels 0 and 1 only"):
        auroc(scores, target.long() * 255)
    with pytest.raises(ValueError, match="must be equal"):
        auroc(scores, target[1:])
    with pytest.raises(ValueError, match="floating point"):
        auroc(target, target)


def test_large_counts_do_not_overflow() -> None:
    many, none = torch.tensor([10**9, 10**9]), torch.tensor([0, 0])
    assert auroc_from_histogram(many, many).item() == 0.5
    upper, lower = torch.tensor([0, 2 * 10**9]), torch.tensor([2 * 10**9, 0])
    assert auroc_from_histogram(upper, lower).item() == 1
    assert auroc_from_histogram(many, none).isnan()


@pytest.mark.parametrize("bins", [1, 7, 1000])
def test_histogram_cells_agree_with_strict_comparison(bins: int) -> None:
    thresholds = histogram_thresholds(bins)
    # the thresholds themselves and their neighbours in float32 are the hard cases
    scores = torch.cat([thresholds, torch.nextafter(thresholds, torch.tensor(1.0)), torch.tensor([0.0, 1.0])])
    positive = torch.arange(len(scores)) % 2 == 0
    histogram = score_histogram(scores, positive, bins=bins)
    above = histogram.flip(-1).cumsum(-1).flip(-1)[:, 1:]
    for k in range(bins):
        chosen = scores > k / bins
        assert above[:, k].tolist() == [int((chosen & ~positive).sum()), int((chosen & positive).sum())]


def test_histogram_area_is_that_of_the_binned_scores() -> None:
    scores, target = random_case(seed=2)
    scores = scores.sigmoid()
    negatives, positives = score_histogram(scores, target, bins=64)
    cells = np.searchsorted(histogram_thresholds(64).numpy(), scores.numpy())
    assert auroc_from_histogram(positives, negatives).item() == pytest.approx(roc_auc_score(target.numpy(), cells))


def test_histogram_needs_a_bin() -> None:
    with pytest.raises(ValueError, match="bins=0"):
        score_histogram(torch.zeros(2), torch.zeros(2).bool(), bins=0)
