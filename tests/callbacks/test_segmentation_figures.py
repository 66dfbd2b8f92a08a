"""Figures: their colours and curves by hand and against scikit-learn, and the files that a run leaves."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from callback_toys import make_trainer
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from neurotrain.callbacks import MetricsCsv, SegmentationFigures
from neurotrain.callbacks.curves import Point, curves_figure, roc_pr_figure
from neurotrain.callbacks.drawing import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    IGNORED,
    SYNTHETIC,
    TRUE_NEGATIVE,
    TRUE_POSITIVE,
    Segmentation,
    error_map,
    segmentation_figure,
    stretched,
)
from neurotrain.callbacks.figures import _shown, foreground, foreground_probability
from neurotrain.data import SegmentationDataModule
from neurotrain.data.datasets import Drive, SegmentationDataset, SyntheticDrive
from neurotrain.data.transforms import Identity, NormalizeInside, RandomPatch
from neurotrain.inference import FullImage
from neurotrain.losses import BinaryCrossEntropyLoss
from neurotrain.metrics.functional import score_histogram
from neurotrain.tasks import Constant, SegmentationTask


class DarkLines(nn.Module):
    """Finds what is darker in green than its surroundings: vessels, more or less."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(6.0))

    def forward(self, x: Tensor) -> Tensor:
        green = x[:, 1:2]
        return self.gain * (F.avg_pool2d(green, 15, 1, 7, count_include_pad=False) - F.avg_pool2d(green, 3, 1, 1) - 0.3)


def _task() -> SegmentationTask:
    return SegmentationTask(
        network=DarkLines(),
        loss=BinaryCrossEntropyLoss(mode="binary"),
        optimizer=partial(torch.optim.SGD, lr=1e-3),
        schedule=Constant(),
        inferer=FullImage(),
        threshold=0.5,
    )


def _data(dataset: SegmentationDataset, **settings: Any) -> SegmentationDataModule:  # noqa: ANN401
    transforms = {"train_transform": RandomPatch(size=32), "eval_transform": Identity(), "prepare": NormalizeInside()}
    return SegmentationDataModule(dataset=dataset, **transforms, batch_size=2, **settings)


def _texts(figure: Figure) -> list[str]:
    axes = [text.get_text() for axis in figure.axes for text in (*axis.texts, axis.title)]
    legends = [text.get_text() for axis in figure.axes if axis.get_legend() for text in axis.get_legend().get_texts()]
    return [*(text.get_text() for text in figure.texts), figure.get_suptitle(), *axes, *legends]


def test_error_colours_by_hand() -> None:
    label = torch.tensor([[True, True, False, False, True]])
    prediction = torch.tensor([[True, False, True, False, True]])
    valid = torch.tensor([[True, True, True, True, False]])
    colours = error_map(label, prediction, valid)[0]
    expected = [TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_NEGATIVE, IGNORED]
    torch.testing.assert_close(colours, torch.tensor(expected))


def test_stretching_undoes_any_linear_normalisation() -> None:
    image = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(40, 40, dtype=torch.bool)
    valid[0] = False
    garbage = image.clone()
    garbage[:, 0] = 1e6  # outside: must not matter
    torch.testing.assert_close(stretched(garbage * 5 - 3, valid)[1:], stretched(image, valid)[1:], rtol=1e-4, atol=1e-5)
    low, high = np.percentile(image[0, 1:].numpy(), [0.5, 99.5])
    torch.testing.assert_close(stretched(image, valid)[1:, :, 0], ((image[0, 1:] - low) / (high - low)).clamp(0, 1))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_stretching_odd_images(channels: int) -> None:
    constant = torch.full((channels, 4, 4), 7.0)
    constant[0, 0, 0] = math.nan
    for valid in (torch.ones(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)):
        picture = stretched(constant, valid)
        assert picture.shape == (4, 4, 3)
        assert picture.isfinite().all()
        assert 0 <= picture.min() <= picture.max() <= 1


def test_foreground_of_every_mode() -> None:
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert foreground(torch.tensor([[0, 2]]), valid).tolist() == [[False, True]]
    assert foreground(torch.tensor([[[0, 1], [0, 0]]]), valid).tolist() == [[False, True]]
    mask = torch.zeros(1, 2, dtype=torch.long)
    binary, many = torch.tensor([[[0.2, 0.9]]]), torch.tensor([[[0.2, 0.9], [0.5, 0.0], [0.3, 0.1]]])
    torch.testing.assert_close(foreground_probability(binary, mask), torch.tensor([[0.2, 0.9]]))
    torch.testing.assert_close(foreground_probability(many, mask), torch.tensor([[0.8, 0.1]]))
    labels = torch.zeros(1, 3, 2, dtype=torch.long)
    torch.testing.assert_close(foreground_probability(many, labels), torch.tensor([[0.5, 0.9]]))


def test_roc_and_precision_recall_against_sklearn() -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    generator = torch.Generator().manual_seed(0)
    label = torch.rand(5000, generator=generator) < 0.1
    # Of as many distinct values as there are bins, so that nothing is tied that sklearn would tell apart.
    score = ((torch.randn(5000, generator=generator) + 1.5 * label).sigmoid() * 2**14).round() / 2**14
    counts = score_histogram(score, label, bins=2**14)
    points = {"network": Point(0.8, 0.9), "observer": Point(0.5, 0.95)}
    figure = roc_pr_figure(counts, title="T", **points, synthetic=True)
    assert figure is not None
    texts = _texts(figure)
    assert f"network, AUC {roc_auc_score(label, score):.4f}" in texts
    assert f"network, AP {average_precision_score(label, score):.4f}" in texts
    assert SYNTHETIC in texts
    drawn = {line.get_label(): line.get_xydata()[0].tolist() for line in figure.axes[1].lines}
    prevalence = float(label.float().mean())
    assert drawn["second observer"] == pytest.approx(
        [0.5, 0.5 * prevalence / (0.5 * prevalence + 0.05 * (1 - prevalence))]
    )
    assert roc_pr_figure(counts * torch.tensor([[1], [0]]), title="T", **points, synthetic=False) is None


def test_curves_show_what_was_logged_more_than_once() -> None:
    rows = [
        {"step": step, "train/loss_step": 1 / step, "val/dice": 0.1 * step, "lr-SGD/pg1": 0.1, "lr-SGD/pg2": 0.1}
        for step in (1, 2, 3)
    ]
    rows += [{"step": 3, "val/loss": 0.5}, {"step": 4, "val/dice": math.nan, "test/dice": 0.4, "val/threshold": 0.5}]
    figure = curves_figure(rows, title="T", synthetic=False)
    assert figure is not None
    assert [axis.get_title() for axis in figure.axes] == ["loss", "validation", "learning rate"]
    lines = {line.get_label(): line.get_xydata().tolist() for axis in figure.axes for line in axis.lines}
    assert set(lines) == {"train/loss_step", "val/dice", "lr-SGD/pg1"}
    assert np.allclose(lines["val/dice"], [[1, 0.1], [2, 0.2], [3, 0.3]])
    assert SYNTHETIC not in _texts(figure)
    assert curves_figure(rows[-2:], title="T", synthetic=False) is None


def test_a_run_leaves_its_figures(tmp_path: Path) -> None:
    data = _data(SyntheticDrive(root=tmp_path / "data", train=3, test=3, size=(64, 60)), validation=1)
    task, folder = _task(), tmp_path / "runs" / "one"
    logger = MetricsCsv(directory=folder)
    figures = SegmentationFigures(count=2, every_n_epochs=2)
    trainer = make_trainer(folder, [figures], logger=logger, max_epochs=2, enable_checkpointing=False)
    trainer.fit(task, datamodule=data)
    trainer.test(task, datamodule=data, verbose=False)
    made = sorted(str(path.relative_to(folder / "figures")) for path in folder.rglob("*.png"))
    (validated,) = data.records("validation")
    assert made == [
        "curves.png",
        "roc_pr.png",
        *(f"test/synthetic_drive-{record.id}.png" for record in data.records("test")[:2]),
        f"validation/epoch-0002/synthetic_drive-{validated.id}.png",
    ]
    for path in folder.rglob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 300


def test_the_network_point_is_that_of_all_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data(SyntheticDrive(root=tmp_path / "data", train=2, test=2, size=(64, 60)))
    seen: dict[str, Any] = {}

    def note(counts: Tensor, **rest: Any) -> None:  # noqa: ANN401
        seen.update(rest, counts=counts)

    monkeypatch.setattr("neurotrain.callbacks.figures.roc_pr_figure", note)
    task = _task()
    trainer = make_trainer(tmp_path, [SegmentationFigures(count=0)], enable_checkpointing=False)
    trainer.test(task, datamodule=data, verbose=False)
    labels, scores = [], []
    for batch in data.test_dataloader():
        scores.append(task.probabilities(batch["image"])[:, 0][batch["valid"]])
        labels.append(batch["mask"][batch["valid"]])
    label, score = torch.cat(labels) == 1, torch.cat(scores)
    assert seen["counts"].sum() == label.numel()
    assert seen["counts"][1].sum() == label.sum()
    assert seen["network"].sensitivity == pytest.approx(float((score[label] > 0.5).float().mean()))
    assert seen["network"].specificity == pytest.approx(float((score[~label] <= 0.5).float().mean()))
    assert seen["synthetic"] is True
    assert seen["title"] == "synthetic_drive: valid pixels of 2 test images"


def test_a_volume_shows_its_fullest_slice(tmp_path: Path) -> None:
    mask = torch.zeros(1, 3, 4, 4, dtype=torch.long)
    mask[0, 1] = 1
    batch: Any = {"image": torch.rand(1, 1, 3, 4, 4), "mask": mask, "valid": torch.ones(1, 3, 4, 4, dtype=torch.bool)}
    outputs = {"probabilities": torch.rand(1, 1, 3, 4, 4), "labels": mask}
    shown = _shown(make_trainer(tmp_path, [], enable_checkpointing=False), outputs, batch, 0)
    assert torch.equal(shown.image, batch["image"][0, :, 1])
    assert shown.label.all()


def test_a_real_photograph_is_shown_in_its_own_colours(tmp_path: Path, shared_data: Path) -> None:
    dataset = Drive(root=shared_data / "DRIVE")
    data = _data(dataset, validation=1)
    task = _task()
    trainer = make_trainer(tmp_path, [SegmentationFigures(count=1)], enable_checkpointing=False)
    trainer.validate(task, datamodule=data, verbose=False)
    (record,) = data.records("validation")
    assert [path.name for path in tmp_path.rglob("*.png")] == [f"drive-{record.id}.png"]
    (batch,) = data.val_dataloader()
    outputs = {"probabilities": task.probabilities(batch["image"]), "labels": batch["mask"]}
    trainer.validating = True
    shown = _shown(trainer, outputs, batch, 0)
    assert shown.is_rgb
    assert torch.equal(shown.image.permute(2, 0, 1), dataset.read(record)["image"])
    assert shown.image.shape == (584, 565, 3)


def test_marks_synthetic_data_and_counts() -> None:
    label = torch.zeros(8, 8, dtype=torch.bool)
    label[:2] = True
    shown = Segmentation(
        torch.rand(3, 8, 8), label, label.float(), label.roll(1, 0), torch.ones(8, 8, dtype=torch.bool)
    )
    texts = _texts(segmentation_figure(shown, title="name", threshold=0.5, synthetic=True))
    assert {"name", SYNTHETIC, "TP 8", "FP 8", "FN 8"} <= set(texts)
    assert SYNTHETIC not in _texts(segmentation_figure(shown, title="name", threshold=None, synthetic=False))


def test_names_of_images_cannot_leave_the_folder(tmp_path: Path) -> None:
    batch: Any = {
        "image": torch.rand(1, 3, 8, 8), "mask": torch.ones(1, 8, 8, dtype=torch.long),
        "valid": torch.ones(1, 8, 8, dtype=torch.bool), "id": ["../../../a/b"], "source": ["x/.."],
    }  # fmt: skip
    outputs = {"probabilities": torch.rand(1, 1, 8, 8), "labels": batch["mask"]}
    trainer = make_trainer(tmp_path, [], enable_checkpointing=False)
    SegmentationFigures()._draw(trainer, _task(), outputs, batch, Path("test"))
    (file,) = tmp_path.rglob("*.png")
    assert file.parent == tmp_path / "figures" / "test"


@pytest.mark.parametrize("settings", [{"count": -1}, {"every_n_epochs": 0}])
def test_refuses_senseless_settings(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(settings))}="):
        SegmentationFigures(**settings)
