"""Classification against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from neurotrain.metrics.functional import (
    average_precision,
    figure_at_threshold,
    threshold_at_precision,
    threshold_at_recall,
    top_k_scores,
)


def problem(seed: int = 0, *, classes: int = 6, size: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores with ties, and labels of which the last class has none."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes - 1, (size,), generator=generator)
    scores = torch.randn(size, classes, generator=generator) + 1.5 * torch.nn.functional.one_hot(target, classes)
    return (scores * 4).round() / 4, target


@pytest.mark.parametrize("k", [1, 2, 6])
@pytest.mark.parametrize("average", ["micro", "macro", "weighted", "none"])
@pytest.mark.parametrize("several", [False, True])
def test_top_k_scores(k: int, average: str, several: bool) -> None:
    scores, target = problem()
    one_hot = torch.nn.functional.one_hot(target, 6)
    if several:
        one_hot = one_hot | (torch.rand(one_hot.shape, generator=torch.Generator().manual_seed(1)) < 0.2).long()
    best = np.argsort(-scores.numpy(), axis=1, kind="stable")[:, :k]
    guesses = np.zeros(scores.shape, dtype=int)
    np.put_along_axis(guesses, best, 1, axis=1)
    found = top_k_scores(scores, one_hot if several else target, k=k, average=average)
    for name, reference in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        options = {"average": None if average == "none" else average, "zero_division": np.nan}
        expected = reference(one_hot.numpy(), guesses, **options)
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_figures_at_thresholds(dtype: torch.dtype) -> None:
    scores, target = problem()
    scores, labels = scores[:, 0].sigmoid().to(dtype), (target == 0).long()
    references = {
        "accuracy": sk.accuracy_score,
        "balanced_accuracy": sk.balanced_accuracy_score,
        "f1": sk.f1_score,
        "iou": sk.jaccard_score,
        "mcc": sk.matthews_corrcoef,
        "precision": sk.precision_score,
        "recall": sk.recall_score,
        "specificity": lambda y, p: sk.recall_score(1 - y, 1 - p),
        "npv": lambda y, p: sk.precision_score(1 - y, 1 - p),
    }
    thresholds = scores.sort().values[[30, 100, 200]].double()
    for figure, reference in references.items():
        found = figure_at_threshold(scores, labels, figure=figure, thresholds=thresholds)
        for threshold, value in zip(thresholds, found.tolist(), strict=True):
            expected = reference(labels.numpy(), (scores.double() >= threshold).long().numpy())
            assert value == pytest.approx(expected, abs=1e-12), figure


def test_average_precision() -> None:
    scores, target = problem()
    one_hot = torch.nn.functional.one_hot(target, 6)
    found = average_precision(scores, one_hot)
    expected = sk.average_precision_score(one_hot[:, :5].numpy(), scores[:, :5].numpy(), average=None)
    np.testing.assert_allclose(found[:5].numpy(), expected, rtol=0, atol=1e-12)
    assert found[5].isnan()
    assert average_precision(scores[:, 2], one_hot[:, 2]).item() == pytest.approx(expected[2], abs=1e-12)


@pytest.mark.parametrize("wanted", [0.05, 0.5, 0.8, 1.0])
def test_operating_points(wanted: float) -> None:
    scores, target = problem()
    scores, labels = scores[:, 0], (target == 0).long()
    precision, recall, thresholds = sk.precision_recall_curve(labels.numpy(), scores.numpy())
    point = threshold_at_recall(scores, labels, recall=wanted)
    chosen = np.flatnonzero(recall[:-1] >= wanted)[-1]
    assert point.threshold.item() == thresholds[chosen]
    assert point.precision.item() == pytest.approx(precision[chosen], abs=1e-12)
    assert point.recall.item() == pytest.approx(recall[chosen], abs=1e-12)
    point = threshold_at_precision(scores, labels, precision=wanted)
    reached = np.flatnonzero((precision[:-1] >= wanted) & (recall[:-1] > 0))
    if len(reached):
        assert point.threshold.item() == thresholds[reached[0]]
        assert point.recall.item() == pytest.approx(recall[reached[0]], abs=1e-12)
    else:
        assert point.threshold.isnan()
