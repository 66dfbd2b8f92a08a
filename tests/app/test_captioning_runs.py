"""The captioning experiment as it is shipped, on generated data: two steps, predictions, a model of LLaVA's class."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning import seed_everything
from PIL import Image
from tiny_llava import PROMPT, save_tiny_llava

import neurotrain
from neurotrain.app.cli import lightning_cli
from neurotrain.app.convert import to_lightning_cli
from neurotrain.networks.captioning import HuggingFaceCaptioner
from neurotrain.tasks import CaptioningTask

SENTENCES = ("A red square.", "The blue square on grass.", "A cat, or a dog?")


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO-MINI's layout: 6 images to train on, 3 to validate, two captions each."""
    root = tmp_path_factory.mktemp("data")
    (root / "COCO-MINI" / "annotations").mkdir(parents=True)
    for split, count, first in (("train2017", 6, 1), ("val2017", 3, 100)):
        folder = root / "COCO-MINI" / split
        folder.mkdir()
        images: list[dict[str, Any]] = []
        captions: list[dict[str, Any]] = []
        for number in range(first, first + count):
            pixels = np.random.default_rng(number).integers(0, 256, (80, 72, 3), dtype=np.uint8)
            name = f"{number:012d}.jpg"
            Image.fromarray(pixels).save(folder / name)
            images.append({"id": number, "file_name": name})
            captions += [{"image_id": number, "caption": SENTENCES[(number + k) % 3]} for k in range(2)]
        content = json.dumps({"images": images, "annotations": captions})
        (root / "COCO-MINI" / "annotations" / f"captions_{split}.json").write_text(content)
    return root


def _small(data: Path, run: Path) -> list[str]:
    return [
        f"paths.data_dir={data}",
        f"paths.run_dir={run}",
        "debug=fast",
        "data.batch_size=2",
        "data.decoder.preparation.resolution=64",
        "model.network.image.name=test_resnet",
        "model.network.width=16",
        "model.network.layers=1",
        "model.network.tokenizer.size=300",
        "model.network.length=8",
    ]


@pytest.fixture(scope="module")
def fitted(coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401 - a run
    run = tmp_path_factory.mktemp("runs") / "fitted"
    return neurotrain.train(neurotrain.compose("coco_captioner", _small(coco, run)))


def test_two_steps_leave_a_table_and_pictures(fitted: Any) -> None:  # noqa: ANN401 - a run
    assert fitted.trainer.global_step == 2
    assert {"test/bleu4", "test/rouge_l", "test/cider_d"} <= set(fitted.metrics)
    assert "val/bleu4" in (fitted.directory / "metrics.csv").read_text()
    for name in ("captions.png", "curves.png"):
        assert (fitted.directory / "figures" / name).stat().st_size > 10_000
    with (fitted.directory / "test_samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"{number:012d}" for number in range(1, 7)]
    assert rows[0]["references"] == SENTENCES[1]


def test_pictures_of_a_folder_are_captioned_in_cocos_format(fitted: Any, coco: Path, tmp_path: Path) -> None:  # noqa: ANN401
    overrides = [
        *_small(coco, tmp_path / "predict"),
        "stage=predict",
        f"source={coco / 'COCO-MINI' / 'val2017'}",
        f"ckpt={fitted.directory / 'checkpoints' / 'last.ckpt'}",
        "model.beams=2",
    ]
    run = neurotrain.train(neurotrain.compose("coco_captioner", overrides))
    results = json.loads((run.directory / "predictions" / "captions.json").read_text())
    assert [result["image_id"] for result in results] == [100, 101, 102]
    with (run.directory / "predictions" / "captions.csv").open() as file:
        table = {row["id"]: row["caption"] for row in csv.DictReader(file)}
    assert table == {f"{result['image_id']:012d}": result["caption"] for result in results}


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_the_other_command_line_ends_with_equal_weights(fitted: Any, coco: Path, tmp_path: Path) -> None:  # noqa: ANN401
    config = neurotrain.compose("coco_captioner", _small(coco, tmp_path))
    values = to_lightning_cli(config, run_dir=tmp_path)
    for log in values["trainer"]["logger"]:
        log["init_args"]["directory"] = str(tmp_path)
    file = tmp_path / "cli.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    seed_everything(config.values["seed"], workers=True, verbose=False)
    cli: Any = lightning_cli(["--config", str(file), f"--trainer.default_root_dir={tmp_path}"], run=False)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    theirs = cli.model.state_dict()
    for name, value in fitted.model.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, theirs[name]) or name == "running", name
        else:
            assert value == theirs[name], name


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_model_of_llavas_class_is_trained_by_lora_and_written_out(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_llava(tmp_path / "model")
    monkeypatch.setenv("NEUROTRAIN_VLM", str(folder))
    overrides = [
        f"paths.data_dir={coco}",
        f"paths.run_dir={tmp_path / 'fit'}",
        "debug=fast",
        "data.batch_size=2",
        "data.decoder.preparation.resolution=32",
        f"model.network.prompt='{PROMPT}'",
        "model.network.length=8",
        "model.network.lora.dropout=0.0",
    ]
    run = neurotrain.train(neurotrain.compose("coco_vision_language", overrides))
    assert isinstance(run.model, CaptioningTask)
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    again = HuggingFaceCaptioner(path=str(run.directory / "export"), prompt=PROMPT, length=8)
    assert again.eval().generate(images) == run.model.network.eval().generate(images)
    checkpoint = torch.load(run.directory / "checkpoints" / "last.ckpt", weights_only=True)
    learned = [name for name in checkpoint["state_dict"] if name.startswith("network.model")]
    assert learned
    assert all("lora_" in name for name in learned)
