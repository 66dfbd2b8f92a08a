"""Pictures of where a network looked: in figures and predictions, by what it can show, refused by name."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from neurotrain.callbacks import ClassificationFigures, ClassificationPredictions
from neurotrain.callbacks.classification_evidence import overlaid
from neurotrain.losses.classification import ClassificationCrossEntropy, MultilabelCrossEntropy
from neurotrain.networks.classification import ResNetSmall, VisionTransformer
from neurotrain.tasks import ClassificationTask, Constant

CNN = partial(ResNetSmall, widths=(4, 8), blocks=(1, 1), num_classes=3)
VIT = partial(VisionTransformer, width=8, layers=2, heads=2, num_classes=3)


def _task(network: nn.Module, *, multilabel: bool = False) -> ClassificationTask:
    loss = MultilabelCrossEntropy() if multilabel else ClassificationCrossEntropy()
    factory = partial(torch.optim.SGD, lr=0.1)
    return ClassificationTask(
        network=network, loss=loss, optimizer=factory, schedule=Constant(), num_classes=3, top_k=None
    )


def _loader() -> Any:  # noqa: ANN401 - of torch
    image = torch.randn(4, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    label = torch.tensor([0, 1, 2, 0])
    batches = [
        {"image": image[some], "label": label[some], "id": ["a/p", "q", "r", "s"][some], "source": ["synthetic"] * 2}
        for some in (slice(0, 2), slice(2, 4))
    ]
    return DataLoader(batches, batch_size=None)  # pyright: ignore


def _trainer(folder: Path, *callbacks: Any) -> Trainer:  # noqa: ANN401 - of Lightning
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet["max_epochs"] = 1
    return Trainer(accelerator="cpu", callbacks=list(callbacks), default_root_dir=folder, **quiet)


@pytest.mark.parametrize(
    ("network", "evidence", "drawn"),
    [
        (CNN, None, {"grad_cam.png"}),
        (VIT, None, {"attention_rollout.png", "last_attention.png"}),
        (VIT, ("last_attention",), {"last_attention.png"}),
        (CNN, (), set()),
    ],
)
def test_figures_show_what_the_network_can_or_what_was_asked_for(
    network: Any,  # noqa: ANN401
    evidence: Any,  # noqa: ANN401
    drawn: set[str],
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    callback = ClassificationFigures(count=3, evidence=evidence)
    _trainer(tmp_path, callback).test(_task(network()), _loader(), verbose=False)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"confusion.png"} | drawn
    # Three images, of the four that there are, and each under its own evidence.
    assert all(len(looked) == 3 for looked in callback._looked.values())
    for looked in callback._looked.values():
        assert all(item.evidence.shape == (8, 12) for item in looked)
        assert not torch.equal(looked[0].evidence, looked[1].evidence)


def test_predictions_draw_each_image_under_its_evidence(tmp_path: Path) -> None:
    torch.manual_seed(0)
    callback = ClassificationPredictions(evidence=("attention_rollout", "last_attention"))
    _trainer(tmp_path, callback).predict(_task(VIT()), _loader(), return_predictions=False)
    folder = tmp_path / "predictions"
    with (folder / "predictions.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["a/p", "q", "r", "s"]
    for kind in callback.evidence:
        assert {path.name for path in (folder / kind).iterdir()} == {"a_p.png", "q.png", "r.png", "s.png"}
        with Image.open(folder / kind / "q.png") as picture:
            assert picture.size == (12, 8)
    pixels = [np.asarray(Image.open(folder / kind / "q.png")) for kind in callback.evidence]
    assert not np.array_equal(*pixels)


def test_two_images_do_not_share_a_picture(tmp_path: Path) -> None:
    batch = {"image": torch.zeros(2, 3, 8, 8), "id": ["a/b", "a:b"], "source": ["x", "x"]}
    callback = ClassificationPredictions(evidence=("grad_cam",))
    with pytest.raises(ValueError, match="would both be written"):
        _trainer(tmp_path, callback).predict(_task(CNN()), DataLoader([batch], batch_size=None))  # pyright: ignore


@pytest.mark.parametrize(
    ("callback", "network", "message"),
    [
        (ClassificationFigures, CNN, "ResNetSmall has no attention over patches of the image; it can show"),
        (ClassificationPredictions, CNN, r"it can show \['grad_cam'\]"),
        (ClassificationPredictions, partial(nn.Linear, 1, 1), "Linear does not tell where it looks"),
    ],
)
def test_a_network_without_attention_is_refused_by_name_before_the_first_step(
    callback: Any,  # noqa: ANN401
    network: Any,  # noqa: ANN401
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=message):
        _trainer(tmp_path, callback(evidence=("last_attention",))).fit(_task(network()), _loader())


def test_what_has_no_effect_is_refused(tmp_path: Path) -> None:
    for call, message in (
        (lambda: ClassificationFigures(count=0, evidence=("grad_cam",)), "no effect with count=0"),
        (lambda: ClassificationFigures(evidence=("gradcam",)), "choose each once"),  # pyright: ignore
        (lambda: ClassificationPredictions(evidence=("grad_cam", "grad_cam")), "choose each once"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    task = _task(CNN(), multilabel=True)
    for callback, message in (
        (ClassificationFigures(evidence=("grad_cam",)), "multilabel problems have no pictures"),
        (ClassificationPredictions(evidence=("grad_cam",)), "looks at one class"),
    ):
        with pytest.raises(ValueError, match=message):
            _trainer(tmp_path, callback).test(task, _loader(), verbose=False)


def test_a_picture_under_its_evidence_keeps_its_share_of_the_light() -> None:
    picture = torch.tensor([[[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]])
    found = overlaid(picture, torch.zeros(1, 2), alpha=0.5)
    assert found.dtype == torch.uint8
    assert found[0, 0].tolist() == [128, 128, 129]  # half white, half the darkest colour (0, 0, 4) / 255
    assert found[0, 1].tolist() == [0, 0, 2]
