"""Confusion counts and their scores: against torchmetrics, MONAI and nnU-Net's formula, by hand, and empty."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_stat_scores,
    multiclass_stat_scores,
    multilabel_stat_scores,
)

from neurotrain.metrics.functional import (
    accuracy,
    accuracy_from_counts,
    confusion_counts,
    dice_from_counts,
    dice_score,
    iou_from_counts,
    iou_score,
    overlap,
    sensitivity,
    sensitivity_from_counts,
    specificity,
    specificity_from_counts,
)
from neurotrain.metrics.functional.labels import check_choice, check_probabilities, predict_labels


def labels(*shape: int, levels: int = 2, seed: int = 0) -> Tensor:
    return torch.randint(levels, shape, generator=torch.Generator().manual_seed(seed))


def as_torchmetrics(counts: Tensor) -> Tensor:
    """TP, FP, TN, FN as torchmetrics orders them."""
    return counts[..., [0, 1, 3, 2]]


@pytest.mark.parametrize("spatial", [(7,), (5, 6), (3, 4, 5)])
def test_binary_counts_equal_torchmetrics(spatial: tuple[int, ...]) -> None:
    preds, target = labels(3, *spatial), labels(3, *spatial, seed=1)
    expected = binary_stat_scores(preds, target, multidim_average="samplewise")[:, None, :4]
    assert torch.equal(as_torchmetrics(confusion_counts(preds, target)), expected)


def test_multiclass_counts_equal_torchmetrics() -> None:
    preds, target = labels(3, 6, 7, levels=5), labels(3, 6, 7, levels=5, seed=1)
    expected = multiclass_stat_scores(preds, target, 5, average="none", multidim_average="samplewise")[..., :4]
    assert torch.equal(as_torchmetrics(confusion_counts(preds, target, mode="multiclass", num_classes=5)), expected)


def test_multilabel_counts_equal_torchmetrics() -> None:
    preds, target = labels(2, 3, 6, 7), labels(2, 3, 6, 7, seed=1)
    expected = multilabel_stat_scores(preds, target, 3, average="none", multidim_average="samplewise")[..., :4]
    assert torch.equal(as_torchmetrics(confusion_counts(preds, target, mode="multilabel", num_classes=3)), expected)


@pytest.mark.parametrize(("mode", "classes"), [("binary", 1), ("multiclass", 4), ("multilabel", 3)])
def test_what_is_not_valid_counts_nowhere(mode: str, classes: int) -> None:
    levels = classes if mode == "multiclass" else 2
    shape = (2, 3, 9, 8) if mode == "multilabel" else (2, 9, 8)
    preds, target = labels(*shape, levels=levels), labels(*shape, levels=levels, seed=1)
    valid = labels(2, 9, 8, seed=2).bool()
    outside = (~valid).unsqueeze(1).expand(shape) if mode == "multilabel" else ~valid
    counts = confusion_counts(
        preds.masked_fill(outside, -7), target.masked_fill(outside, 255), mode=mode, num_classes=classes, valid=valid
    )
    for image in range(2):
        keep = valid[image]
        flat = [x[image][..., keep].unsqueeze(0) for x in (preds, target)]
        assert torch.equal(counts[image], confusion_counts(*flat, mode=mode, num_classes=classes)[0])
    assert torch.equal(counts.sum(-1), valid.sum((1, 2)).unsqueeze(1).expand(2, classes))


def test_types_of_labels_do_not_matter() -> None:
    preds, target = labels(2, 5, 5), labels(2, 5, 5, seed=1)
    expected = confusion_counts(preds, target)
    for dtype in (torch.bool, torch.uint8, torch.int32):
        assert torch.equal(confusion_counts(preds.to(dtype), target.to(dtype)), expected)


def test_scores_of_a_case_worked_by_hand() -> None:
    # TP 3, FP 1, FN 2, TN 4
    preds = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0, 0, 0]])
    target = torch.tensor([[1, 1, 1, 0, 1, 1, 0, 0, 0, 0]])
    assert confusion_counts(preds, target).tolist() == [[[3, 1, 2, 4]]]
    assert dice_score(preds, target).item() == pytest.approx(6 / 9)
    assert iou_score(preds, target).item() == pytest.approx(3 / 6)
    assert sensitivity(preds, target).item() == pytest.approx(3 / 5)
    assert specificity(preds, target).item() == pytest.approx(4 / 5)
    assert accuracy(preds, target).item() == pytest.approx(7 / 10)


@pytest.mark.parametrize(
    ("score", "counts"),
    [
        (dice_from_counts, [0, 0, 0, 9]),
        (iou_from_counts, [0, 0, 0, 9]),
        (sensitivity_from_counts, [0, 4, 0, 5]),
        (specificity_from_counts, [6, 0, 3, 0]),
        (accuracy_from_counts, [0, 0, 0, 0]),
    ],
)
def test_empty_denominator_follows_the_convention(score, counts) -> None:  # noqa: ANN001
    counts = torch.tensor(counts)
    assert score(counts).isnan()
    assert score(counts, empty="one") == 1
    assert score(counts, empty="zero") == 0
    with pytest.raises(ValueError, match="did you mean 'zero'"):
        score(counts, empty="zeros")


def test_class_absent_from_one_of_both_scores_zero_under_every_convention() -> None:
    empty, full = torch.zeros(1, 4, 4, dtype=torch.long), torch.ones(1, 4, 4, dtype=torch.long)
    for convention in ("nan", "one", "zero"):
        assert dice_score(empty, full, empty=convention) == 0
        assert iou_score(full, empty, empty=convention) == 0


def test_dice_counts_beyond_float32_are_exact() -> None:
    counts = torch.tensor([2**30, 1, 0, 0])
    assert dice_from_counts(counts).item() == 2**31 / (2**31 + 1)


def test_wrong_input_is_named() -> None:
    preds, target = labels(2, 4, 4), labels(2, 4, 4, seed=1)
    with pytest.raises(ValueError, match=r"preds has shape \(2, 4, 4\), target \(2, 4\)"):
        confusion_counts(preds, target[:, 0])
    with pytest.raises(ValueError, match=r"integer labels, not torch\.float32"):
        confusion_counts(preds.float(), target)
    with pytest.raises(ValueError, match="label 2 inside the valid region"):
        confusion_counts(preds, target + 1)
    with pytest.raises(ValueError, match="label -1 inside"):
        confusion_counts(preds - 1, target)
    with pytest.raises(ValueError, match="valid must be bool"):
        confusion_counts(preds, target, valid=target)
    with pytest.raises(ValueError, match=r"valid has shape \(2, 4\)"):
        confusion_counts(preds, target, valid=target[:, 0].bool())
    with pytest.raises(ValueError, match="did you mean 'multiclass'"):
        confusion_counts(preds, target, mode="multi_class", num_classes=3)  # pyright: ignore
    with pytest.raises(ValueError, match="num_classes=3"):
        confusion_counts(preds, target, num_classes=3)
    with pytest.raises(ValueError, match="needs at least 2"):
        confusion_counts(preds, target, mode="multiclass")
    with pytest.raises(ValueError, match="4 labels on axis 1"):
        confusion_counts(preds, target, mode="multilabel", num_classes=3)
    with pytest.raises(ValueError, match="no spatial axis"):
        confusion_counts(preds[:, 0, 0], target[:, 0, 0])
    with pytest.raises(ValueError, match="TP, FP, FN, TN"):
        dice_from_counts(torch.zeros(3))
    with pytest.raises(ValueError, match=r"'a', 'b'$"):
        check_choice("key", "zzz", ("a", "b"))


def test_labels_follow_from_probabilities_strictly_above_the_threshold() -> None:
    probabilities = torch.tensor([[[0.3, 0.5, 0.7]], [[0.6, 0.5, 0.2]], [[0.1, 0.6, 0.1]]]).unsqueeze(0)
    assert predict_labels(probabilities, mode="multiclass", threshold=0.9).tolist() == [[[1, 2, 0]]]
    assert predict_labels(probabilities[:, :1], mode="binary", threshold=0.5).tolist() == [[[False, False, True]]]
    assert predict_labels(probabilities, mode="multilabel", threshold=0.5)[0, 1].tolist() == [[True, False, False]]
    rounded = probabilities[:, :1].bfloat16()  # 0.3 in bfloat16 is 0.30078
    assert predict_labels(rounded, mode="binary", threshold=0.3005).all()


def test_probabilities_are_checked() -> None:
    target = torch.zeros(1, 2, 2, dtype=torch.long)
    for wrong in (torch.full((1, 1, 2, 2), 1.5), torch.full((1, 1, 2, 2), float("nan"))):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            check_probabilities(wrong, target, mode="binary", num_classes=1)
    with pytest.raises(ValueError, match=r"expected \(1, 1, 2, 2\)"):
        check_probabilities(torch.zeros(1, 2, 2), target, mode="binary", num_classes=1)
    with pytest.raises(ValueError, match="floating point"):
        check_probabilities(target.unsqueeze(1), target, mode="binary", num_classes=1)


@pytest.mark.parametrize("voxels", [2047, 5000])
@pytest.mark.parametrize(("mode", "classes", "dtype"), [("binary", 1, torch.bool), ("multiclass", 4, torch.int64)])
def test_counting_in_pairs_equals_counting_at_once(
    mode: str, classes: int, dtype: torch.dtype, voxels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = max(2, classes)
    preds, target = (labels(3, voxels, levels=levels, seed=seed).to(dtype) for seed in range(2))
    calls: list[int] = []
    in_pairs = overlap._count_in_pairs
    monkeypatch.setattr(overlap, "_count_in_pairs", lambda *given: calls.append(1) or in_pairs(*given))
    valid = labels(3, voxels, seed=2).bool()
    for keep in (None, valid):
        many = confusion_counts(preds, target, mode=mode, num_classes=classes, valid=keep)
        assert bool(calls) == (voxels >= 256 * levels**2)
        keep = torch.ones_like(valid) if keep is None else keep
        for index in range(classes):
            own = 1 if mode == "binary" else index
            hit = [((a == own) & (b == own) & keep).sum(1) for a, b in ((preds, target), (preds, preds))]
            assert torch.equal(many[:, index, 0], hit[0])
            assert torch.equal(many[:, index, 1], hit[1] - hit[0])


def test_target_that_lacks_a_class_is_skipped_as_monai_does() -> None:
    empty, some = torch.zeros(1, 4, 4, dtype=torch.long), torch.zeros(1, 4, 4, dtype=torch.long)
    some[0, 1:3] = 1
    for score in (dice_score, iou_score, sensitivity, specificity, accuracy):
        assert score(some, empty, empty="nan_target").isnan()
        assert score(empty, some, empty="nan_target").item() == score(empty, some, empty="zero").item()


@pytest.mark.filterwarnings("ignore")
def test_dice_equals_monai() -> None:
    from monai.metrics import DiceHelper

    preds, target = labels(3, 8, 8, levels=3), labels(3, 8, 8, levels=3, seed=1)
    target[0][target[0] == 2] = 0
    target[1][target[1] == 2] = 0
    preds[0][preds[0] == 2] = 1
    one_hot = [torch.nn.functional.one_hot(x, 3).movedim(-1, 1) for x in (preds, target)]
    for ignore_empty, convention in ((True, "nan_target"), (False, "one")):
        helper = DiceHelper(
            include_background=True, reduction="none", get_not_nans=False, ignore_empty=ignore_empty, num_classes=3
        )
        ours = dice_score(preds, target, mode="multiclass", num_classes=3, empty=convention)
        torch.testing.assert_close(ours.float(), helper(*one_hot), equal_nan=True)
