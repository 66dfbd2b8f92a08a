"""Threshold search: against trying every threshold, ties, empty images, ids."""

from __future__ import annotations

import pickle

import pytest
import torch
from metrics_cases import Case, binary_case, multilabel_case

from neurotrain.metrics import SegmentationReport, ThresholdSearch


def search(case: Case, **settings: object) -> ThresholdSearch:
    metric = ThresholdSearch(**settings)
    metric.update(*case[:3], ids=case.ids)
    return metric


def line_case(scores: list[list[float]], target: list[list[int]]) -> Case:
    images, width = len(scores), len(scores[0])
    return Case(
        torch.tensor(scores).view(images, 1, 1, width),
        torch.tensor(target).view(images, 1, width),
        torch.ones(images, 1, width).bool(),
        [str(row) for row in range(images)],
    )


@pytest.mark.parametrize("mode", ["binary", "multilabel"])
def test_equals_trying_every_threshold(mode: str) -> None:
    case = binary_case() if mode == "binary" else multilabel_case()
    classes = case.probabilities.shape[1]
    threshold, dice = search(case, mode=mode, num_classes=classes, bins=40).compute()
    tried: dict[float, float] = {}
    for step in range(40):
        report = SegmentationReport(mode=mode, num_classes=classes, surface=False, auc=False)
        report.update(*case[:3], ids=case.ids, threshold=step / 40)
        tried[step / 40] = report.compute()["dice"].item()
    best = max(tried.values())
    assert dice.item() == pytest.approx(best, abs=1e-12)
    assert tried[round(threshold.item(), 6)] == pytest.approx(best, abs=1e-12)


def test_of_equal_thresholds_the_one_nearest_to_half_is_taken() -> None:
    low = line_case([[0.05, 0.35]], [[0, 1]])  # 0.1, 0.2, 0.3 are equal
    assert search(low, bins=10).compute()[0].item() == pytest.approx(0.3)
    high = line_case([[0.65, 0.95]], [[0, 1]])
    assert search(high, bins=10).compute()[0].item() == pytest.approx(0.7)
    wide = line_case([[0.05, 0.95]], [[0, 1]])
    assert search(wide, bins=10).compute()[0].item() == 0.5
    assert search(wide, bins=5).compute()[0].item() == pytest.approx(0.4)  # 0.4 and 0.6 are as near


def test_threshold_is_strict() -> None:
    case = line_case([[0.5, 0.75]], [[0, 1]])
    threshold, dice = search(case, bins=4).compute()
    assert (threshold.item(), dice.item()) == (0.5, 1.0)


def test_empty_reference_counts_as_zero_until_nothing_is_predicted() -> None:
    # Dice by threshold: image 0 is best below 0.3; image 1, empty, is skipped from 0.6 on and 0 below
    case = line_case([[0.3, 0.7, 0.1, 0.1], [0.6, 0.1, 0.1, 0.1]], [[1, 1, 0, 0], [0, 0, 0, 0]])
    threshold, dice = search(case, bins=10).compute()
    assert threshold.item() == pytest.approx(0.6)
    assert dice.item() == pytest.approx(2 / 3)


def test_without_any_defined_dice() -> None:
    threshold, dice = search(line_case([[0.0, 0.0]], [[0, 0]]), bins=10).compute()
    assert threshold == 0.5
    assert dice.isnan()
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        threshold, dice = ThresholdSearch().compute()
    assert threshold == 0.5
    assert dice.isnan()


def test_batches_repeats_pickle_clone_and_reset() -> None:
    case = binary_case()
    expected = search(case).compute()
    running = ThresholdSearch()
    for rows in ([1, 0], [2], [0, 4, 3]):
        part = case.part(rows)
        running.update(*part[:3], ids=part.ids)
        running = pickle.loads(pickle.dumps(running)).clone()
    assert torch.equal(
        torch.stack([x.double() for x in running.compute()]), torch.stack([x.double() for x in expected])
    )
    running.reset()
    part = case.part([0])
    running.update(*part[:3], ids=part.ids)
    assert running.compute()[1] == search(part).compute()[1]


def test_wrong_input_is_named() -> None:
    case = binary_case()
    with pytest.raises(ValueError, match="'multiclass' is not one of 'binary', 'multilabel'"):
        ThresholdSearch(mode="multiclass", num_classes=3)  # pyright: ignore
    with pytest.raises(ValueError, match="bins=0"):
        ThresholdSearch(bins=0)
    with pytest.raises(ValueError, match="must lie in"):
        search(case._replace(probabilities=-case.probabilities))
    with pytest.raises(ValueError, match="two different images"):
        search(case._replace(ids=["a"] * 5)).compute()
