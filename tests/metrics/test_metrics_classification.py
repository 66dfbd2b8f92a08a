"""Classification metrics: by hand, missing classes, calibration, states, and what is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from neurotrain.metrics import CalibrationError, FigureAtThreshold, MultilabelMAP, ThresholdAt, TopKScores
from neurotrain.metrics.functional import (
    average_precision,
    calibration_error,
    figure_at_threshold,
    threshold_at_precision,
    threshold_at_recall,
    threshold_counts,
    top_k_scores,
)
from neurotrain.metrics.functional.classification import figure_from_counts


def batch(seed: int = 0, size: int = 60) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities of four classes, one class a sample, and several labels a sample."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.randn(size, 4, generator=generator).softmax(1)
    several = torch.rand(size, 4, generator=generator) < 0.3
    return probabilities, torch.randint(0, 4, (size,), generator=generator), several.long()


def test_every_guess_counts() -> None:
    scores = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    found = top_k_scores(scores, torch.tensor([1, 0]), k=2, average="none")
    # guesses: 0 and 1, 1 and 2
    assert found["precision"].tolist() == [0, 0.5, 0]
    assert found["recall"][:2].tolist() == [0, 1]
    assert found["recall"][2].isnan()
    assert found["f1"].tolist() == [0, pytest.approx(2 / 3), 0]


def test_of_equal_scores_the_lower_class_is_guessed() -> None:
    found = top_k_scores(torch.full((3, 5), 0.2), torch.tensor([0, 1, 4]), k=2, average="micro")
    assert found["recall"].item() == pytest.approx(2 / 3)


def test_a_score_at_the_threshold_is_positive() -> None:
    scores = torch.tensor([0.3, 0.5, 0.7])
    counts = threshold_counts(scores, torch.tensor([0, 1, 1]), torch.tensor([0.0, 0.5, 0.7, 0.71]))
    assert counts.tolist() == [[2, 1, 0, 0], [2, 0, 0, 1], [1, 0, 1, 1], [0, 0, 2, 1]]
    assert figure_at_threshold(scores, torch.tensor([0, 1, 1]), figure="precision", thresholds=0.9).isnan()


def test_counts_of_a_large_data_set_keep_their_digits() -> None:
    counts = torch.tensor([10**9, 10**9, 10**9, 10**9])
    assert figure_from_counts(counts, figure="mcc").item() == 0
    assert figure_from_counts(torch.tensor([10**9, 0, 0, 10**9]), figure="mcc").item() == pytest.approx(1, abs=1e-12)


def test_missing_classes_are_undefined() -> None:
    scores = torch.tensor([0.1, 0.9])
    assert average_precision(scores, torch.zeros(2).long()).isnan()
    assert average_precision(scores[:0], torch.zeros(0).long()).isnan()
    assert threshold_at_recall(scores, torch.zeros(2).long(), recall=0.5).threshold.isnan()
    assert threshold_at_precision(scores, torch.tensor([1, 0]), precision=0.9).recall.isnan()
    assert calibration_error(scores[:0], torch.zeros(0).long()).isnan()


def test_calibration_worked_by_hand() -> None:
    # bins (0, 0.5] and (0.5, 1]: 0.5 belongs to the first, 1 to the last
    wide, target = torch.tensor([[0.25, 0.5, 0.75, 1.0]] * 2, dtype=torch.float64).T, torch.tensor([0, 1, 1, 1])
    probabilities = wide[:, 0]  # a column of a larger array
    gaps = [abs(0.75 - 1) / 2, abs(1.75 - 2) / 2]
    assert calibration_error(probabilities, target, bins=2).item() == pytest.approx(sum(gaps) / 2, abs=1e-15)
    assert calibration_error(probabilities, target, bins=2, norm="max").item() == pytest.approx(0.125, abs=1e-15)
    assert calibration_error(probabilities, target, bins=2, norm="l2").item() == pytest.approx(0.125, abs=1e-15)
    assert calibration_error(torch.zeros(1), torch.tensor([1]), bins=3).item() == 1


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_calibration_equals_torchmetrics_away_from_the_edges_of_bins(norm: str) -> None:
    probabilities, target, _ = batch()
    expected = multiclass_calibration_error(probabilities, target, num_classes=4, n_bins=10, norm=norm)
    assert calibration_error(probabilities, target, bins=10, norm=norm).item() == pytest.approx(
        float(expected), abs=1e-6
    )
    positive = (target == 0).long()
    expected = binary_calibration_error(probabilities[:, 0].contiguous(), positive, n_bins=10, norm=norm)
    found = calibration_error(probabilities[:, 0], positive, bins=10, norm=norm)
    assert found.item() == pytest.approx(float(expected), abs=1e-6)


def test_classes_accumulate() -> None:
    probabilities, target, several = batch()
    positive = (target == 0).long()
    cases = [
        (TopKScores(num_classes=4, k=2), (probabilities, target), top_k_scores(probabilities, target, k=2)),
        (
            FigureAtThreshold(figure="mcc", threshold=0.3),
            (probabilities[:, 0], positive),
            figure_at_threshold(probabilities[:, 0], positive, figure="mcc", thresholds=0.3),
        ),
        (MultilabelMAP(num_labels=4), (probabilities, several), average_precision(probabilities, several).mean()),
        (MultilabelMAP(), (probabilities[:, 0], positive), average_precision(probabilities[:, 0], positive)),
        (
            ThresholdAt(figure="recall", value=0.7),
            (probabilities[:, 0], positive),
            threshold_at_recall(probabilities[:, 0].double(), positive, recall=0.7)._asdict(),
        ),
        (
            ThresholdAt(figure="precision", value=0.2),
            (probabilities[:, 0], positive),
            threshold_at_precision(probabilities[:, 0].double(), positive, precision=0.2)._asdict(),
        ),
        (CalibrationError(bins=7), (probabilities, target), calibration_error(probabilities, target, bins=7)),
    ]
    for metric, data, expected in cases:
        metric.update(*(part[:11] for part in data))
        clone = pickle.loads(pickle.dumps(copy.deepcopy(metric.clone())))
        for each in (metric, clone):
            torch.nn.ModuleList([each]).to(torch.bfloat16)
            each.update(*(part[11:] for part in data))
            found = each.compute()
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)
        metric.reset()
        metric.update(*data)
        torch.testing.assert_close(metric.compute(), expected, rtol=0, atol=1e-15)


SCORES, LABELS = torch.rand(3), torch.tensor([0, 1, 1])
REFUSED = [
    (lambda: top_k_scores(torch.rand(2, 3), torch.tensor([0, 3]), k=1), "from 0 to 2"),
    (lambda: top_k_scores(torch.rand(2, 3), torch.tensor([0, 1]), k=4), "k=4"),
    (lambda: top_k_scores(torch.full((2, 3), torch.nan), torch.tensor([0, 1]), k=1), "NaN"),
    (lambda: top_k_scores(torch.rand(2, 3), torch.tensor([0, 1]), k=1, average="mirco"), "did you mean 'micro'"),
    (lambda: figure_at_threshold(SCORES, LABELS, figure="presicion"), "did you mean 'precision'"),
    (lambda: figure_at_threshold(SCORES, 2 * LABELS, figure="f1"), "labels 0 and 1"),
    (lambda: average_precision(SCORES, LABELS[:2]), "must be equal"),
    (lambda: threshold_at_recall(SCORES, LABELS, recall=0.0), "recall=0.0"),
    (lambda: ThresholdAt(value=1.5), "value=1.5"),
    (lambda: calibration_error(SCORES + 1, LABELS), "give softmax or sigmoid"),
    (lambda: calibration_error(SCORES, LABELS, bins=0), "bins=0"),
    (lambda: TopKScores(num_classes=3, k=5), "k=5"),
    (lambda: FigureAtThreshold(figure="f2"), "is not one of"),
    (lambda: CalibrationError(norm="l3"), "did you mean"),
    (lambda: MultilabelMAP(num_labels=2).update(torch.rand(3, 3), torch.zeros(3, 3).long()), "must be"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_wrong_input_is_named(call, message: str) -> None:  # noqa: ANN001 - a function
    with pytest.raises(ValueError, match=message):
        call()
