"""The detection experiment as it is shipped, on generated data: both command lines, figures, predictions."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import coco_files
import pytest
import torch
import yaml
from lightning import seed_everything
from PIL import Image

import neurotrain
from neurotrain.app.cli import lightning_cli
from neurotrain.app.convert import to_lightning_cli
from neurotrain.app.train import Run

pytestmark = pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")  # nothing is held out


@pytest.fixture(scope="session")
def tiny_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny_coco")
    coco_files.write_coco(root / "COCO-MINI")
    return root


def _small(data: Path, run: Path) -> list[str]:
    return [
        f"paths.data_dir={data}",
        f"paths.run_dir={run}",
        "data.train.count=4",
        "data.test.count=4",
        "data.batch_size=2",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
        "model.num_classes=3",
        "model.network.channels=64",
        "model.network.head_depth=1",
        "model.network.fine=false",
        "model.network.min_size=48",
        "model.network.max_size=64",
        "model.network.score_threshold=0.0",
        "callbacks.figures.score_threshold=0.005",
        "callbacks.figures.count=1",
    ]


@pytest.fixture(scope="module")
def fitted(tiny_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = tmp_path_factory.mktemp("fitted") / "run"
    return neurotrain.train(neurotrain.compose("coco_detection", _small(tiny_coco, run)))


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_two_steps_on_both_command_lines_end_with_equal_weights(fitted: Run, tiny_coco: Path, tmp_path: Path) -> None:
    config = neurotrain.compose("coco_detection", _small(tiny_coco, tmp_path / "ours"))
    values = to_lightning_cli(config, run_dir=tmp_path / "ours")
    for log in values["trainer"]["logger"]:
        log["init_args"]["directory"] = str(tmp_path / "cli")
    (tmp_path / "cli").mkdir()
    file = tmp_path / "cli.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    seed_everything(config.values["seed"], workers=True, verbose=False)
    cli: Any = lightning_cli(["--config", str(file), f"--trainer.default_root_dir={tmp_path / 'cli'}"], run=False)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    assert fitted.trainer.global_step == cli.trainer.global_step == 2
    theirs = cli.model.state_dict()
    for name, value in fitted.model.state_dict().items():
        assert torch.equal(value, theirs[name]) or name.startswith("report."), name


def test_a_run_leaves_drawings_tables_and_figures(fitted: Run) -> None:
    written = {path.relative_to(fitted.directory).as_posix() for path in fitted.directory.rglob("*")}
    drawings = {name for name in written if name.startswith("figures/test/")}
    assert drawings == {"figures/test/coco-100.png"}
    assert written >= {"figures/curves.png", "test_samples.csv", "test_classes.csv", "summary.json"}
    with Image.open(fitted.directory / "figures" / "test" / "coco-100.png") as drawing:
        assert drawing.width > drawing.height > 300
    with (fitted.directory / "test_samples.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert {name: (row["objects"], row["crowds"]) for name, row in rows.items()} == {
        "100": ("2", "0"),
        "107": ("1", "1"),
        "114": ("0", "0"),
        "121": ("2", "0"),
    }
    with (fitted.directory / "test_classes.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert [(row["class"], row["category_id"]) for row in classes] == [("red", "3"), ("green", "18"), ("blue", "90")]
    mean = sum(float(row["ap"]) for row in classes) / 3
    assert fitted.metrics["test/map"] == pytest.approx(mean, abs=1e-6)


def _predict(fitted: Run, data: Path, run: Path, *overrides: str) -> list[dict[str, Any]]:
    ckpt = fitted.directory / "checkpoints" / "last.ckpt"
    done = neurotrain.train(
        neurotrain.compose(
            "coco_detection",
            [*_small(data, run), "stage=predict", f"ckpt={ckpt}", "callbacks.data_report=null", *overrides],
        )
    )
    return json.loads((done.directory / "predictions" / "predictions.json").read_text())


def test_predictions_are_results_that_pycocotools_loads_and_scores_alike(
    fitted: Run, tiny_coco: Path, tmp_path: Path
) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = _predict(fitted, tiny_coco, tmp_path / "predict")
    assert {result["image_id"] for result in results} == {100, 107, 114, 121}
    assert {result["category_id"] for result in results} <= {3, 18, 90}
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tiny_coco / "COCO-MINI" / "annotations" / "instances_train2017.json"))
        scored = COCOeval(coco, coco.loadRes(results), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    for name, wanted in zip(("map", "map_50", "mar_100"), scored.stats[[0, 1, 8]].tolist(), strict=True):
        assert fitted.metrics[f"test/{name}"] == pytest.approx(wanted, abs=1e-6), name


def test_photographs_are_predicted_without_any_annotations(fitted: Run, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (90, 70), (220, 30, 30)).save(photos / "street 1.jpg")
    Image.new("L", (40, 60), 90).save(photos / "000000000042.png")
    results = _predict(fitted, tmp_path / "nowhere", tmp_path / "predict", f"source={photos}")
    assert {result["image_id"] for result in results} == {"street 1", 42}
    for result in results:
        x, y, w, h = result["bbox"]
        width, height = (40, 60) if result["image_id"] == 42 else (90, 70)
        assert min(x, y, w, h) >= 0
        assert x + w <= width + 1e-4
        assert y + h <= height + 1e-4


@pytest.mark.parametrize(
    "overrides",
    [
        ["model/network=retinanet"],
        ["model/network=mask_rcnn", "data.decoder.masks=true"],
        ["model/network=faster_rcnn", "data.train_transform.steps.crop.probability=0.3"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_choice_composes(overrides: list[str]) -> None:
    chosen = ["data=coco_detection", "model=detection", "callbacks=detection", "trainer.max_epochs=1"]
    neurotrain.compose(overrides=[*chosen, *overrides])
