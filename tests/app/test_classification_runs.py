"""Classification experiments as they are shipped, on generated data: two steps, both command lines, predictions."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from lightning import seed_everything
from PIL import Image

import neurotrain
from neurotrain.app.cli import lightning_cli
from neurotrain.app.convert import to_lightning_cli
from neurotrain.app.strict import ConfigurationError

LABELS = {"mnist_resnet": 10, "cifar10_vgg": 10}


def _png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST's test digits (8,010 of one byte pattern each) and CIFAR-10 in Parquet."""
    root = tmp_path_factory.mktemp("pictures")
    raw, parquet = root / "MNIST" / "raw", root / "CIFAR10"
    raw.mkdir(parents=True)
    parquet.mkdir()
    count = 8010
    labels = (np.arange(count) % 10).astype(np.uint8)
    images = np.repeat(labels * 20, 28 * 28).astype(np.uint8)
    (raw / "t10k-images-idx3-ubyte").write_bytes(
        bytes([0, 0, 8, 3]) + np.array([count, 28, 28], ">u4").tobytes() + images.tobytes()
    )
    (raw / "t10k-labels-idx1-ubyte").write_bytes(
        bytes([0, 0, 8, 1]) + np.array([count], ">u4").tobytes() + labels.tobytes()
    )
    for name, size in (("train-0", 12), ("test-0", 6)):
        cells = [{"bytes": _png(index), "path": f"{index}.png"} for index in range(size)]
        pq.write_table(
            pa.table({"img": cells, "label": [index % 10 for index in range(size)]}), parquet / f"{name}.parquet"
        )
    return root


def _small(data: Path, run: Path) -> list[str]:
    return [
        f"paths.data_dir={data}",
        f"paths.run_dir={run}",
        "data.batch_size=4",
        "data.samples_per_epoch=8",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
        "model.network.widths=[4,8]",
        "model.network.blocks=[1,1]",
    ]


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")  # nothing is held out
@pytest.mark.parametrize("experiment", sorted(LABELS))
def test_two_steps_on_both_command_lines_end_with_equal_weights(
    experiment: str, pictures: Path, tmp_path: Path
) -> None:
    overrides = [*_small(pictures, tmp_path / "ours"), "model/mixing=mixup_cutmix", "model.layer_decay=0.9"]
    config = neurotrain.compose(experiment, overrides)
    ours = neurotrain.train(config)
    assert ours.trainer.global_step == 2
    assert 0.0 <= ours.metrics["test/accuracy"] <= 1.0
    written = {path.relative_to(ours.directory).as_posix() for path in ours.directory.rglob("*")}
    figures = {"figures/confusion.png", "figures/grad_cam.png", "figures/curves.png"}
    assert written >= {*figures, "test_classes.csv", "test_samples.csv", "summary.json"}
    with (ours.directory / "test_classes.csv").open() as file:
        assert len(list(csv.DictReader(file))) == LABELS[experiment]

    values = to_lightning_cli(config, run_dir=tmp_path / "ours")
    for log in values["trainer"]["logger"]:
        log["init_args"]["directory"] = str(tmp_path / "cli")
    (tmp_path / "cli").mkdir()
    file = tmp_path / "cli.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    seed_everything(config.values["seed"], workers=True, verbose=False)
    cli: Any = lightning_cli(["--config", str(file), f"--trainer.default_root_dir={tmp_path / 'cli'}"], run=False)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    theirs = cli.model.state_dict()
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, theirs[name]) or name == "running", name
    groups = [run.trainer.optimizers[0].state_dict()["param_groups"] for run in (ours, cli)]
    assert groups[0] == groups[1]


def test_predictions_are_a_table_of_every_image(pictures: Path, tmp_path: Path) -> None:
    fitted = neurotrain.train(neurotrain.compose("cifar10_vgg", _small(pictures, tmp_path / "fit")))
    overrides = [
        *_small(pictures, tmp_path / "predict"),
        "stage=predict",
        f"ckpt={fitted.directory / 'checkpoints' / 'last.ckpt'}",
        "callbacks.predictions.probabilities=true",
    ]
    run = neurotrain.train(neurotrain.compose("cifar10_vgg", overrides))
    with (run.directory / "predictions" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"test-0:{index}" for index in range(6)]
    for row in rows:
        shares = {name[2:-1]: float(value) for name, value in row.items() if name.startswith("p(")}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
        assert row["label"] == max(shares, key=lambda name: shares[name])
        assert float(row["probability"]) == shares[row["label"]]


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=mnist"],
        ["data=cifar10_batches"],
        ["data=cifar100_batches", "model.num_classes=100"],
        ["data=cifar100", "model.num_classes=100"],
        ["data=imagenet", "model.num_classes=1000"],
        ["data=image_folder", "data.train_transform.steps.augment.magnitude=5"],
        ["model/loss=classification_focal"],
        ["model/loss=multilabel_cross_entropy"],
        ["model/distillation=soft_targets", "model.distillation.teacher.in_channels=1"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_choice_composes(overrides: list[str]) -> None:
    neurotrain.compose("mnist_resnet", overrides)


@pytest.mark.parametrize("network", ["vit", "torchvision"])
def test_every_network_composes(network: str) -> None:
    # The experiment's own settings are of another network.
    others = ["~model.network.widths", "~model.network.blocks", "callbacks.figures.evidence=[last_attention]"]
    neurotrain.compose("mnist_resnet", [f"model/network={network}", *others])


def test_a_loss_of_another_task_is_refused_by_its_type() -> None:
    with pytest.raises(ConfigurationError, match=r"model\.loss.*ClassificationLoss"):
        neurotrain.compose("mnist_resnet", ["model/loss=mask_set"])


@pytest.mark.parametrize("layout", ["image_folder", "image_list"])
def test_folders_and_lists_of_images_and_a_teacher_train_together(layout: str, tmp_path: Path) -> None:
    for split, size in (("train", 6), ("test", 2)):
        for label in ("cat", "dog"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for index in range(size):
                (folder / f"{index}.png").write_bytes(_png(index))
        files = sorted((tmp_path / "images" / split).rglob("*.png"))
        lines = [f"{file.relative_to(tmp_path / 'images').as_posix()},{file.parent.name}" for file in files]
        (tmp_path / "images" / f"{split}.csv").write_text("\n".join(["image,label", *lines]))
    overrides = [
        *_small(tmp_path, tmp_path / "run"),
        f"data={layout}",
        "data.decoder.preparation.resolution=32",
        "data.decoder.preparation.multiple=16",
        "model.num_classes=2",
        "model.network.in_channels=3",
        "model/distillation=soft_targets",
        "model.distillation.teacher.widths=[4]",
        "model.distillation.teacher.blocks=[1]",
    ]
    run = neurotrain.train(neurotrain.compose("mnist_resnet", overrides))
    assert run.trainer.global_step == 2
    assert run.data.summary()["counts"] == {"train": 12, "test": 4}
    if layout == "image_folder":
        _predict_a_glob(overrides, run.directory, images=tmp_path / "images", folder=tmp_path / "predict")


def _predict_a_glob(overrides: list[str], fitted: Path, *, images: Path, folder: Path) -> None:
    """Images without labels, wherever they lie: a row and a picture of the evidence for each."""
    typed = [
        *overrides,
        f"paths.run_dir={folder}",
        "stage=predict",
        f"ckpt={fitted / 'checkpoints' / 'last.ckpt'}",
        f"source='file://{images}/test/cat/*.png'",
        "callbacks.predictions.evidence=[grad_cam]",
    ]
    run = neurotrain.train(neurotrain.compose("mnist_resnet", typed))
    with (run.directory / "predictions" / "predictions.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["0", "1"]
    drawn = sorted((run.directory / "predictions" / "grad_cam").iterdir())
    assert [path.name for path in drawn] == ["0.png", "1.png"]
    with Image.open(drawn[0]) as picture:
        assert picture.size == (32, 32)
