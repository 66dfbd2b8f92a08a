from __future__ import annotations

import pytest
import torch

from neurotrain.metrics import ClassificationReport


def _case(classes: int = 6, count: int = 60) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    generator = torch.Generator().manual_seed(0)
    probabilities = (2 * torch.randn(count, classes, generator=generator)).softmax(1)
    target = torch.randint(classes, (count,), generator=generator)
    return probabilities, target, [f"image-{index:03d}" for index in range(count)]


def test_figures_are_those_of_scikit_learn_and_torchmetrics() -> None:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, top_k_accuracy_score
    from torchmetrics.functional.classification import multiclass_calibration_error

    probabilities, target, ids = _case()
    report = ClassificationReport(num_classes=6, top_k=3)
    for part in (slice(0, 25), slice(25, 60)):
        report.update(probabilities[part], target[part], ids=ids[part])
    found = {name: value.item() for name, value in report.compute().items()}
    predicted, truth = probabilities.argmax(1).numpy(), target.numpy()
    assert found == pytest.approx(
        {
            "accuracy": accuracy_score(truth, predicted),
            "balanced_accuracy": balanced_accuracy_score(truth, predicted),
            "f1": f1_score(truth, predicted, average="macro"),
            "calibration_error": float(multiclass_calibration_error(probabilities, target, 6, n_bins=15)),
            "top3_accuracy": top_k_accuracy_score(truth, probabilities.numpy(), k=3),
        },
        abs=1e-6,
    )


def test_an_image_that_was_evaluated_twice_counts_once() -> None:
    probabilities, target, ids = _case()
    once, twice = ClassificationReport(num_classes=6), ClassificationReport(num_classes=6)
    once.update(probabilities, target, ids=ids)
    twice.update(probabilities, target, ids=ids)
    twice.update(probabilities[:7], target[:7], ids=ids[:7])
    assert once.compute() == twice.compute()
    assert int(twice.confusion().sum()) == 60
    twice.update(probabilities[:1], (target[:1] + 1) % 6, ids=ids[:1])
    with pytest.raises(ValueError, match="two different images"):
        twice.compute()


def test_multilabel_is_scikit_learns() -> None:
    from sklearn.metrics import average_precision_score, f1_score

    generator = torch.Generator().manual_seed(1)
    probabilities = torch.rand(40, 3, generator=generator)
    target = (torch.rand(40, 3, generator=generator) > 0.6).long()
    report = ClassificationReport(mode="multilabel", num_classes=3)
    report.update(probabilities, target, ids=[str(index) for index in range(40)])
    found = report.compute()
    present = (probabilities >= 0.5).long().numpy()
    assert found["f1"].item() == pytest.approx(f1_score(target.numpy(), present, average="macro"))
    assert found["map"].item() == pytest.approx(average_precision_score(target.numpy(), probabilities.numpy()))
    assert found["exact_match"].item() == pytest.approx((present == target.numpy()).all(1).mean())


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_without_images_everything_is_nan_and_wrong_inputs_are_named() -> None:
    report = ClassificationReport(num_classes=3, top_k=2)
    assert all(value.isnan() for value in report.compute().values())
    with pytest.raises(ValueError, match="expected \\(B, 3\\)"):
        report.update(torch.rand(2, 4), torch.zeros(2).long(), ids=["a", "b"])
    with pytest.raises(ValueError, match="expected 0 to 2"):
        report.update(torch.rand(2, 3), torch.tensor([0, 3]), ids=["a", "b"])
    with pytest.raises(ValueError, match="NaN"):
        report.update(torch.full((1, 3), float("nan")), torch.tensor([0]), ids=["a"])
