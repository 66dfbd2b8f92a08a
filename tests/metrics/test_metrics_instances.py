"""Instances in label maps: against a plain double loop and every possible matching, by hand, and empty."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from neurotrain.metrics import InstanceScores
from neurotrain.metrics.functional import instance_counts, instance_f1, instance_precision, label_instances

THRESHOLDS = (0.1, 0.3, 0.5, 0.6, 0.9)


def maps(seed: int, size: int = 24) -> tuple[Tensor, Tensor]:
    """Few rectangles, drawn over each other, and the same moved."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.zeros(size, size, dtype=torch.long)
    for number in range(1, 6):
        row, column = torch.randint(size - 6, (2,), generator=generator).tolist()
        target[row : row + 6, column : column + 8] = 10 * number
    preds = target.roll((1, 2), (0, 1))
    preds[preds == 20] = 10  # two of them merged
    return preds, target


def by_trying_all(preds: Tensor, target: Tensor, threshold: float) -> tuple[int, int, int]:
    masks = [[labels == number for number in labels.unique() if number] for labels in (preds, target)]
    iou = [[float((p & t).sum() / (p | t).sum()) for t in masks[1]] for p in masks[0]]
    small, large = sorted((len(masks[0]), len(masks[1])))
    best = 0
    for order in permutations(range(large), small):
        pairs = enumerate(order) if len(masks[0]) == small else ((p, t) for t, p in enumerate(order))
        best = max(best, sum(iou[p][t] >= threshold for p, t in pairs))
    return best, len(masks[0]) - best, len(masks[1]) - best


@pytest.mark.parametrize("seed", range(4))
def test_counts_equal_the_best_of_all_matchings(seed: int) -> None:
    preds, target = maps(seed)
    found = instance_counts(preds, target, thresholds=THRESHOLDS).tolist()
    assert found == [list(by_trying_all(preds, target, threshold)) for threshold in THRESHOLDS]


def test_half_of_an_overlap_is_given_to_one_only() -> None:
    target = torch.tensor([[1, 1, 1, 1]])
    preds = torch.tensor([[1, 1, 2, 2]])
    assert instance_counts(preds, target, thresholds=(0.5,)).tolist() == [[1, 1, 0]]


def test_more_pairs_come_before_greater_overlap() -> None:
    # alone the middle pair has the greatest overlap, but without it two pairs reach the threshold
    target = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2, 2, 2]])
    preds = torch.tensor([[7, 7, 8, 8, 8, 8, 8, 8, 0, 0]])
    assert instance_counts(preds, target, thresholds=(0.2,)).tolist() == [[2, 0, 0]]


def test_scores_and_empty_maps() -> None:
    empty, one = torch.zeros(1, 4).long(), torch.tensor([[0, 3, 3, 0]])
    assert instance_counts(empty, empty, thresholds=(0.5,)).tolist() == [[0, 0, 0]]
    assert instance_precision(instance_counts(empty, empty)).isnan().all()
    assert instance_f1(instance_counts(empty, empty)).isnan().all()
    assert instance_counts(one, empty, thresholds=(0.5,)).tolist() == [[0, 1, 0]]
    assert instance_counts(empty, one, thresholds=(0.5,)).tolist() == [[0, 0, 1]]
    assert instance_precision(torch.tensor([3, 1, 2])).item() == 0.5
    assert instance_f1(torch.tensor([3, 1, 2])).item() == pytest.approx(6 / 9)
    everywhere = torch.ones(2, 2).long()
    assert instance_counts(everywhere, everywhere, thresholds=(1.0,)).tolist() == [[1, 0, 0]]


def test_what_is_not_valid_counts_nowhere() -> None:
    preds, target = maps(0)
    valid = torch.zeros_like(preds).bool()
    valid[3:20, 4:22] = True
    cut = instance_counts(preds[3:20, 4:22], target[3:20, 4:22])
    assert torch.equal(instance_counts(preds, target, valid=valid), cut)


def test_connected_parts_are_instances() -> None:
    mask = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1]]).bool()
    assert label_instances(mask).tolist() == [[1, 0, 0, 2], [0, 1, 0, 2]]


def test_running_scores_pool_counts_or_average_samples() -> None:
    cases = [maps(seed) for seed in range(3)]
    counts = torch.stack([instance_counts(*case, thresholds=THRESHOLDS) for case in cases])
    pooled, sample = (InstanceScores(thresholds=THRESHOLDS, average=average) for average in ("pooled", "sample"))
    for preds, target in cases:
        pooled.update(preds[None], target[None])
        sample.update(preds[None], target[None])
    assert pooled.compute()["map"] == instance_precision(counts.sum(0)).mean()
    assert pooled.compute()["f1/0.6"] == instance_f1(counts.sum(0))[3]
    assert sample.compute()["mf1"].item() == pytest.approx(instance_f1(counts).mean().item())


def test_wrong_input_is_named() -> None:
    one = torch.ones(1, 3).long()
    with pytest.raises(ValueError, match="holds the instance number -1"):
        instance_counts(-one, one)
    with pytest.raises(ValueError, match="they must be equal"):
        instance_counts(one, one[:, :2])
    with pytest.raises(ValueError, match=r"not torch\.float32"):
        instance_counts(one.float(), one)
    for thresholds in ((), (0.0,), (1.5,)):
        with pytest.raises(ValueError, match="thresholds="):
            InstanceScores(thresholds=thresholds)
