"""Scores of cases in millimetres, each with its own spacing; what is absent; two ranks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neurotrain.metrics import VolumeReport


def cube(start: int, stop: int) -> Tensor:
    labels = torch.zeros(1, 12, 12, 12, dtype=torch.uint8)
    labels[:, start:stop, 3:9, 3:9] = 1
    return labels


def test_every_case_has_its_own_millimetres() -> None:
    report = VolumeReport(
        mode="multiclass", num_classes=3, class_names=("background", "organ", "absent"), tolerance=2.0
    )
    report.update(cube(4, 10), cube(3, 9), ids=["a"], spacing=torch.tensor([[1.0, 1.0, 1.0]]))
    report.update(cube(4, 10), cube(3, 9), ids=["b"], spacing=torch.tensor([[5.0, 1.0, 1.0]]))
    one, other = report.rows()
    assert one["dice"] == other["dice"] == pytest.approx(5 / 6)
    assert (one["hd95/organ"], other["hd95/organ"]) == (pytest.approx(1.0), pytest.approx(5.0))
    assert one["nsd/organ"] == 1.0
    assert other["nsd/organ"] < 1.0
    assert math.isnan(float(one["dice/absent"]))
    figures = report.compute()
    assert figures["hd95"].item() == pytest.approx(3.0)
    assert figures["dice"].item() == pytest.approx(5 / 6)
    assert "dice/background" not in figures


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*:FutureWarning")
def test_dice_is_monais_and_hd95_near_it() -> None:
    metrics = pytest.importorskip("monai.metrics")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 16, 16, 16, generator=generator)
    smooth = torch.nn.functional.avg_pool3d(noise, 5, stride=1, padding=2)[0]
    labels, reference = (
        (smooth > 0).byte(),
        (smooth + 0.02 * torch.randn(1, 16, 16, 16, generator=generator) > 0).byte(),
    )
    report = VolumeReport(mode="multiclass", num_classes=2)
    report.update(labels, reference, ids=["a"], spacing=torch.tensor([[1.0, 2.0, 3.0]]))
    expected = metrics.compute_dice(labels[None], reference[None])
    assert report.compute()["dice"].item() == pytest.approx(expected.item())
    # Weighted surfaces, as in the reference code of surface Dice: MONAI's plain voxels are near them.
    far = metrics.compute_hausdorff_distance(labels[None], reference[None], percentile=95, spacing=[1.0, 2.0, 3.0])
    assert report.compute()["hd95"].item() == pytest.approx(far.item(), abs=1.0)


@pytest.mark.parametrize(("absent", "expected"), [("skip", math.nan), ("perfect", 1.0)])
def test_regions_that_are_rightly_not_there(absent: str, expected: float) -> None:
    report = VolumeReport(mode="multilabel", num_classes=2, absent=absent, missing=373.13)  # type: ignore[arg-type]
    nothing = torch.zeros(1, 2, 8, 8, 8, dtype=torch.uint8)
    there = nothing.clone()
    there[:, 0, 2:5, 2:5, 2:5] = 1
    wrong = nothing.clone()
    wrong[:, 0, 2:5, 2:5, 2:5] = 1
    wrong[:, 1, 0, 0, 0] = 1
    report.update(there, there, ids=["right"], spacing=torch.ones(1, 3))
    report.update(wrong, there, ids=["wrong"], spacing=torch.ones(1, 3))
    right, false = sorted(report.rows(), key=lambda row: str(row["id"]))
    for key, value in (("dice", expected), ("nsd", expected), ("hd95", 0.0 if absent == "perfect" else math.nan)):
        assert right[f"{key}/class_1"] == pytest.approx(value, nan_ok=True)
    assert false["dice/class_1"] == 0.0
    assert false["nsd/class_1"] == 0.0
    assert false["hd95/class_1"] == 373.13
    assert math.isnan(float(right["sensitivity/class_1"]))


def test_a_case_counts_once_and_ids_are_not_given_twice() -> None:
    report = VolumeReport(mode="multiclass", num_classes=2, surface=False)
    for _ in range(2):
        report.update(cube(3, 9), cube(3, 9), ids=["a"], spacing=torch.ones(1, 3))
    assert len(report.rows()) == 1
    assert "hd95" not in report.compute()
    report.update(cube(3, 9), cube(3, 8), ids=["a"], spacing=torch.ones(1, 3))
    with pytest.raises(ValueError, match="two different images"):
        report.compute()


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="must name all"):
        VolumeReport(mode="multilabel", num_classes=2, class_names=("a",))
    with pytest.raises(ValueError, match="perfect"):
        VolumeReport(mode="multilabel", num_classes=2, absent="perfekt")  # type: ignore[arg-type]
