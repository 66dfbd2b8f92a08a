"""From a trained run to predictions of photographs: one tiny run, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

import neurotrain
from neurotrain.app.launch import launch
from neurotrain.app.overrides import substituted
from neurotrain.app.strict import ConfigurationError
from neurotrain.data.datasets import DatasetError

_MODEL = ["model.network.widths=[4,8]", "model/inferer=full_image", "callbacks.figures=null", "callbacks.table=null"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a fit of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    overrides = [
        "data=synthetic_drive",
        f"paths.data_dir={folder / 'data'}",
        f"paths.run_dir={folder / 'run'}",
        "data.dataset.size=[96,96]",
        "data.dataset.train=3",
        "data.dataset.test=2",
        "data.validation=1",
        "data.batch_size=2",
        "data.samples_per_epoch=4",
        "data.train_transform.steps.patch.size=[32,32]",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
        "trainer.check_val_every_n_epoch=1",
        "test=false",
    ]
    return neurotrain.train(neurotrain.compose("drive_unet", [*overrides, *_MODEL])).directory


@pytest.fixture
def photos(trained: Path, tmp_path: Path) -> Path:
    """A PNG and a TIF of two sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    first, second = sorted(trained.parent.glob("data/synthetic/*/test/images/*.tif"))
    copyfile(first, folder / "left eye.tif")
    with Image.open(second) as image:
        image.crop((0, 0, 90, 70)).save(folder / "right.png")
    return folder


def _predict(trained: Path, tmp_path: Path, *overrides: str) -> list[str]:
    here = [f"ckpt={trained / 'checkpoints' / 'last.ckpt'}", f"paths.runs_dir={tmp_path / 'runs'}"]
    return ["stage=predict", *here, *_MODEL, *overrides]


def test_photographs_are_predicted_without_the_data_set(
    trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # no data/DRIVE here
    typed = _predict(trained, tmp_path, f"source={photos}", "callbacks.predictions.probabilities=true")
    run = neurotrain.train(neurotrain.compose("drive_unet", typed))
    assert run.directory.parent == tmp_path / "runs" / "drive_unet"
    assert run.predictions is not None
    assert [batch["id"] for batch in run.predictions] == [["left eye"], ["right"]]
    folder = run.directory / "predictions"
    assert sorted(path.name for path in folder.iterdir()) == [
        "left eye.png", "left eye_probability.png", "right.png", "right_probability.png",
    ]  # fmt: skip
    for name, size, mode in (
        ("left eye", (96, 96), "L"),
        ("right", (90, 70), "L"),
        ("right_probability", (90, 70), "I;16"),
    ):
        with Image.open(folder / f"{name}.png") as image:
            assert (image.size, image.mode) == (size, mode)
            assert mode != "L" or set(np.unique(np.array(image))) <= {0, 255}
    summary = json.loads((run.directory / "summary.json").read_text())
    assert (summary["stage"], summary["predictions"]) == ("predict", "predictions")
    assert summary["data"]["counts"] == {"predict": 2}
    assert f"predictions: {folder}" in capsys.readouterr().out.splitlines()[-1]


def test_without_a_source_the_test_split_is_predicted_and_may_be_forgotten(trained: Path, tmp_path: Path) -> None:
    data = ["data=synthetic_drive", f"paths.data_dir={trained.parent / 'data'}", "data.dataset.size=[96,96]"]
    counts = ["data.dataset.train=3", "data.dataset.test=2", f"paths.run_dir={tmp_path / 'mine'}"]
    config = neurotrain.compose("drive_unet", _predict(trained, tmp_path, *data, *counts))
    run = neurotrain.train(config, keep_predictions=False)
    assert run.directory == tmp_path / "mine"
    assert run.predictions is None
    assert sorted(path.name for path in (run.directory / "predictions").iterdir()) == ["01.png", "02.png"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stage=predict", "source=."], "ckpt: stage=predict needs ckpt=PATH"),
        (["stage=predict", "ckpt=absent.ckpt"], "ckpt: no checkpoint at absent.ckpt"),
        (["source=."], "source: has no effect with stage=fit"),
        (["data.source=."], "data.source: has no effect with stage=fit"),
        (["stage=test", "source=.", "ckpt=absent.ckpt"], "source: has no effect with stage=test"),
    ],
)
def test_a_stage_refuses_what_it_lacks_and_what_has_no_effect(
    overrides: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = neurotrain.compose("drive_unet", ["paths.data_dir=data", *overrides])
    with pytest.raises(ConfigurationError, match=message):
        neurotrain.train(config)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_nobody_reads_is_refused(trained: Path, tmp_path: Path) -> None:
    config = neurotrain.compose("drive_unet", _predict(trained, tmp_path, "source=x", "data.source=y"))
    with pytest.raises(ConfigurationError, match=r"source: has no effect: data\.source is y"):
        neurotrain.train(config)


def test_an_absent_source_is_one_message_on_the_command_line(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = _predict(trained, tmp_path, "source=nowhere")
    with pytest.raises(DatasetError, match="nowhere: no such folder or image"):
        neurotrain.train(neurotrain.compose("drive_unet", typed))
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["train.py", "experiment=drive_unet", *typed])
    with pytest.raises(SystemExit) as stopped:
        launch()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines() == ["error: nowhere: no such folder or image (source=nowhere)"]


def test_who_types_a_source_needs_no_substitute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    typed = ["experiment=drive_unet", "stage=predict", "source=photos"]
    assert substituted(typed) == (typed, None)
