"""The evaluation of a test set: against scikit-learn and the functions, by hand, NaN, ids, batches, pickling."""

from __future__ import annotations

import pickle
from math import isnan

import pytest
import torch
from metrics_cases import Case, binary_case, multiclass_case, multilabel_case
from sklearn.metrics import f1_score, jaccard_score, recall_score, roc_auc_score
from torch import Tensor

from neurotrain.metrics import SegmentationReport
from neurotrain.metrics.functional import average_surface_distance, hausdorff_distance, normalized_surface_dice
from neurotrain.metrics.records import ID_BYTES, decode_ids, encode_ids

COUNT_KEYS = ["dice", "iou", "sensitivity", "specificity", "accuracy"]
MEAN_KEYS = [*COUNT_KEYS, "auc", "auc_rectangle", "nsd"]


def evaluate(report: SegmentationReport, case: Case, *, size: int = 2) -> SegmentationReport:
    rows = list(range(len(case.ids)))
    for start in range(0, len(rows), size):
        part = case.part(rows[start : start + size])
        report.update(part.probabilities, part.target, part.valid, ids=part.ids, threshold=0.5)
    return report


def test_keys_of_a_binary_report() -> None:
    figures = evaluate(SegmentationReport(), binary_case()).compute()
    pooled = [f"pooled_{key}" for key in [*COUNT_KEYS, "auc"]]
    assert list(figures) == [*MEAN_KEYS, *pooled, "nan/sensitivity", "nan/auc", "nan/auc_rectangle"]
    assert all(value.ndim == 0 and value.dtype == torch.float64 for value in figures.values())


def test_figures_equal_scikit_learn() -> None:
    case = binary_case()
    report = evaluate(SegmentationReport(), case)
    figures, rows = report.compute(), {row["id"]: row for row in report.rows()}
    pixels = [
        (target[valid].numpy(), scores[0][valid].numpy())
        for scores, target, valid in zip(case.probabilities, case.target, case.valid, strict=True)
    ]
    for name, (target, scores) in zip(case.ids, pixels, strict=True):
        preds = scores > 0.5
        assert rows[name]["dice"] == pytest.approx(f1_score(target, preds, zero_division=0))
        assert rows[name]["iou"] == pytest.approx(jaccard_score(target, preds, zero_division=0))
        assert rows[name]["specificity"] == pytest.approx(recall_score(target, preds, pos_label=0))
        assert rows[name]["accuracy"] == pytest.approx((target == preds).mean())
        if target.any():
            assert rows[name]["sensitivity"] == pytest.approx(recall_score(target, preds))
            assert rows[name]["auc"] == pytest.approx(roc_auc_score(target, scores))
    every_target, every_score = (torch.cat([torch.from_numpy(pair[k]) for pair in pixels]).numpy() for k in (0, 1))
    assert figures["pooled_auc"].item() == pytest.approx(roc_auc_score(every_target, every_score), abs=1e-12)
    assert figures["pooled_dice"].item() == pytest.approx(f1_score(every_target, every_score > 0.5))
    assert figures["pooled_sensitivity"].item() == pytest.approx(recall_score(every_target, every_score > 0.5))


def test_rectangle_counts_the_outside_as_predicted_background_and_nsd_leaves_it_out() -> None:
    case = binary_case().part([0])
    row = evaluate(SegmentationReport(tolerance=1.0), case).rows()[0]
    target, scores = case.target[0].flatten(), (case.probabilities[0] * case.valid[0]).flatten()
    assert row["auc_rectangle"] == pytest.approx(roc_auc_score(target, scores))
    assert row["auc_rectangle"] != row["auc"]
    labels = case.probabilities[:, 0] > 0.5
    assert row["nsd"] == normalized_surface_dice(labels, case.target, tolerance=1.0, valid=case.valid).item()


def test_means_worked_by_hand_skip_nan_and_count_it() -> None:
    # Dice: 2/3; absent from both: NaN; absent from the reference: 0
    scores = torch.tensor([[0.9, 0.9, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1]]).view(3, 1, 1, 4)
    target = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]).view(3, 1, 4)
    report = SegmentationReport(surface=False)
    report.update(scores, target, torch.ones(3, 1, 4).bool(), ids=["b", "c", "a"], threshold=0.5)
    figures = report.compute()
    assert figures["dice"].item() == pytest.approx((2 / 3 + 0) / 2)
    assert figures["nan/dice"] == 1
    assert figures["nan/auc"] == 2
    assert "nan/accuracy" not in figures
    assert figures["pooled_dice"].item() == pytest.approx(2 / (2 + 2))
    rows = report.rows()
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert rows[0]["dice"] == 0
    assert isnan(rows[2]["dice"])


def test_classes_are_reported_and_the_background_left_out() -> None:
    case, names = multiclass_case(), ("background", "liver", "spleen", "kidney")
    report = evaluate(SegmentationReport(mode="multiclass", num_classes=4, class_names=names), case)
    figures, rows = report.compute(), report.rows()
    first = [rows[1][f"dice/{name}"] for name in names[1:]]
    assert rows[1]["dice"] == pytest.approx(torch.tensor(first).nanmean().item())
    assert figures["dice"].item() == pytest.approx(sum(row["dice"] for row in rows) / len(rows))
    for index, name in enumerate(names):
        values = torch.tensor([row[f"auc/{name}"] for row in rows])
        assert figures[f"auc/{name}"].item() == pytest.approx(values.nanmean().item())
        target = (case.target == index)[case.valid]
        expected = roc_auc_score(target, case.probabilities[:, index][case.valid])
        assert figures[f"pooled_auc/{name}"].item() == pytest.approx(expected, abs=1e-12)
    assert figures["nan/auc/kidney"] == 1
    assert "nan/auc" not in figures
    settings = {"mode": "multiclass", "num_classes": 4, "class_names": names}
    included = evaluate(SegmentationReport(include_background=True, **settings), case).compute()
    every = [included[f"pooled_dice/{name}"].item() for name in names]
    assert included["pooled_dice"].item() == pytest.approx(sum(every) / 4)
    assert figures["pooled_dice"].item() == pytest.approx(sum(every[1:]) / 3)


def test_labels_of_a_multilabel_problem_are_binary_problems() -> None:
    case = multilabel_case()
    rows = evaluate(SegmentationReport(mode="multilabel", num_classes=2), case).rows()
    for label in range(2):
        alone = Case(case.probabilities[:, label : label + 1], case.target[:, label], case.valid, case.ids)
        expected = evaluate(SegmentationReport(), alone).rows()
        for key in MEAN_KEYS:
            assert [row[f"{key}/class_{label}"] for row in rows] == [row[key] for row in expected]


def test_batches_do_not_matter() -> None:
    case = multiclass_case()
    whole, split = (evaluate(SegmentationReport(mode="multiclass", num_classes=4), case, size=size) for size in (4, 1))
    assert_same(whole.compute(), split.compute())
    assert str(whole.rows()) == str(split.rows())


def test_image_evaluated_twice_counts_once() -> None:
    case = binary_case()
    for settings in ({}, {"pooled_auc_bins": 50}):
        once = evaluate(SegmentationReport(**settings), case)
        twice = evaluate(SegmentationReport(**settings), case.part([0, 1, 2, 1, 3, 4, 0]))
        assert_same(once.compute(), twice.compute())
        assert str(once.rows()) == str(twice.rows())


def test_one_id_for_two_images_is_refused() -> None:
    case = binary_case()
    report = evaluate(SegmentationReport(), case._replace(ids=["a", "b", "c", "a", "d"]))
    with pytest.raises(ValueError, match="'a' was given to two different images"):
        report.compute()


def test_histogram_approaches_the_exact_pooled_area() -> None:
    case = multiclass_case()
    settings = {"mode": "multiclass", "num_classes": 4, "surface": False}
    exact = evaluate(SegmentationReport(**settings), case).compute()
    binned = evaluate(SegmentationReport(pooled_auc_bins=2000, **settings), case).compute()
    assert exact.keys() == binned.keys()
    for key, value in exact.items():
        tolerance = 2e-3 if key.startswith("pooled_auc") else 0.0
        assert binned[key].item() == pytest.approx(value.item(), abs=tolerance, nan_ok=True)
    assert binned["pooled_auc"] != exact["pooled_auc"]


def test_what_is_switched_off_is_not_reported() -> None:
    report = evaluate(SegmentationReport(surface=False, auc=False), binary_case())
    assert list(report.compute()) == [*COUNT_KEYS, *(f"pooled_{key}" for key in COUNT_KEYS), "nan/sensitivity"]
    assert list(report.rows()[0]) == ["id", *COUNT_KEYS]


def test_distances_are_measured_on_demand() -> None:
    case = multiclass_case()
    settings = {"mode": "multiclass", "num_classes": 4}
    report = evaluate(
        SegmentationReport(**settings, surface=False, auc=False, distances=True, spacing=(2.0, 1.0)), case
    )
    labels = case.probabilities.argmax(1)
    scored = {"spacing": (2.0, 1.0), "valid": case.valid, **settings}
    expected = {
        "hd95": hausdorff_distance(labels, case.target, percentile=95, **scored),
        "assd": average_surface_distance(labels, case.target, **scored),
    }
    rows = report.rows()
    for key, values in expected.items():
        for row, value in zip(rows, values, strict=True):
            assert row[f"{key}/class_2"] == value[2].item()
            assert row[key] == pytest.approx(value[1:].nanmean().item(), nan_ok=True)
    assert "nsd" not in rows[0]
    assert "hd95" not in evaluate(SegmentationReport(), binary_case()).rows()[0]


def test_volumes() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(2, (2, 4, 5, 6), generator=generator)
    report = SegmentationReport(spacing=(2.0, 1.0, 1.0))
    valid = torch.ones(2, 4, 5, 6).bool()
    report.update(target[:, None].float(), target, valid, ids=["a", "b"], threshold=0.5)
    assert all(report.compute()[key] == 1 for key in (*MEAN_KEYS, "pooled_auc"))


def test_low_precision_input_and_module_cast_do_not_round() -> None:
    case = binary_case()
    rounded = case._replace(probabilities=case.probabilities.bfloat16())
    expected = evaluate(SegmentationReport(), case._replace(probabilities=rounded.probabilities.float()))
    cast = evaluate(SegmentationReport(), rounded.part([0, 1]))
    cast.to(torch.bfloat16).to(torch.float32)
    assert_same(evaluate(cast, rounded.part([2, 3, 4])).compute(), expected.compute())


def test_pickle_clone_reset_and_repeated_compute() -> None:
    case = binary_case()
    report = evaluate(SegmentationReport(), case.part([0, 1, 2]))
    report.compute()
    for copy in (pickle.loads(pickle.dumps(report)), report.clone()):
        copy = evaluate(copy, case.part([3, 4]))
        assert_same(copy.compute(), evaluate(SegmentationReport(), case).compute())
        assert len(copy.rows()) == 5
    assert len(report.rows()) == 3
    report.reset()
    assert report.rows() == []
    assert_same(evaluate(report, case).compute(), evaluate(SegmentationReport(), case).compute())


def test_forward_gives_the_batch_and_keeps_the_whole() -> None:
    case = binary_case()
    report = SegmentationReport()
    for row in range(5):
        part = case.part([row])
        value = report(part.probabilities, part.target, part.valid, ids=part.ids, threshold=0.5)
        assert_same(value, evaluate(SegmentationReport(), part).compute())
    assert len(report.rows()) == 5
    assert_same(report.compute(), evaluate(SegmentationReport(), case).compute())


def test_without_images_everything_is_nan() -> None:
    report = SegmentationReport()
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        figures = report.compute()
    assert all(value.isnan() for value in figures.values())
    assert report.rows() == []


def test_ids_survive_as_bytes() -> None:
    names = ["a", "ä" * (ID_BYTES // 2), "x/y z"]
    assert decode_ids(encode_ids(names)) == names
    for wrong in ("", "a\0", "ä" * ID_BYTES):
        with pytest.raises(ValueError, match="an id is 1 to 256 bytes"):
            encode_ids([wrong])


def test_wrong_settings_and_input_are_named() -> None:
    with pytest.raises(ValueError, match="pooled_auc_bins=9 has no effect"):
        SegmentationReport(auc=False, pooled_auc_bins=9)
    with pytest.raises(ValueError, match="bins=0"):
        SegmentationReport(pooled_auc_bins=0)
    with pytest.raises(ValueError, match="has no effect with surface=False"):
        SegmentationReport(surface=False, spacing=(1.0, 1.0))
    with pytest.raises(ValueError, match="include_background=True has no effect"):
        SegmentationReport(include_background=True)
    with pytest.raises(ValueError, match="2 different names"):
        SegmentationReport(mode="multiclass", num_classes=2, class_names=("a", "a"))
    case = binary_case()
    with pytest.raises(ValueError, match="4 ids were given for 5 images"):
        SegmentationReport().update(*case[:3], ids=case.ids[1:], threshold=0.5)
    with pytest.raises(ValueError, match="must lie in"):
        SegmentationReport().update(case[0] * 9 - 4, *case[1:3], ids=case.ids, threshold=0.5)


def test_refused_batch_leaves_no_trace() -> None:
    case, report = binary_case(), SegmentationReport()
    with pytest.raises(ValueError, match="an id is"):
        report.update(*case[:3], ids=["", *case.ids[1:]], threshold=0.5)
    assert_same(evaluate(report, case).compute(), evaluate(SegmentationReport(), case).compute())


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert list(first) == list(second)
    for key, value in first.items():
        assert torch.equal(value.nan_to_num(nan=-1.0), second[key].nan_to_num(nan=-1.0)), key
