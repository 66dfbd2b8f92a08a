"""Experiments on volumes as they are shipped, on small rendered data: two steps, figures, NIfTI, both command lines."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning import seed_everything

import neurotrain
from neurotrain.app.cli import lightning_cli
from neurotrain.app.compose import Configuration
from neurotrain.app.convert import to_lightning_cli
from neurotrain.data import VolumeDataModule

pytest.importorskip("monai")
nibabel: Any = pytest.importorskip("nibabel")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),  # nothing is held out
    pytest.mark.filterwarnings("ignore:LightningCLI's args parameter"),
]

SMALL = {
    "btcv_phantom": ["model.network.channels=[4,8,8]", "model.network.strides=[[1,1,1],[2,2,2],[2,2,2]]"],
    "brats_phantom": ["model.network.width=8", "model.network.blocks_down=[1,1]", "model.network.blocks_up=[1]"],
}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rendered")


def _small(experiment: str, data: Path, run: Path) -> list[str]:
    heads = ["model.network.deep_supervision=1"] if experiment == "btcv_phantom" else []
    return [
        f"paths.data_dir={data}",
        f"paths.run_dir={run}",
        "data.dataset.train=3",
        "data.dataset.test=2",
        "data.dataset.size=[24,20,16]",
        "data.train_transform.steps.patch.size=[16,16,8]",
        "data.samples_per_epoch=4",
        "model.inferer.window=[16,16,8]",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
        "callbacks.figures.count=1",
        *SMALL[experiment],
        *heads,
    ]


@pytest.mark.parametrize("experiment", sorted(SMALL))
def test_a_run_leaves_scores_figures_and_volumes_in_the_geometry_of_the_files(
    experiment: str, rendered: Path, tmp_path: Path
) -> None:
    overrides = _small(experiment, rendered, tmp_path / "fit")
    config = neurotrain.compose(experiment, [*overrides, "data.validation=1"])
    fitted = neurotrain.train(config)
    assert fitted.trainer.global_step == 2
    assert 0.0 <= fitted.metrics["test/dice"] <= 1.0
    with (fitted.directory / "test_cases.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    assert len(list((fitted.directory / "figures" / "test").glob("*.png"))) == 1

    if experiment == "btcv_phantom":
        theirs = _through_lightnings_command_line(config, tmp_path / "cli")
        for name, value in fitted.model.state_dict().items():
            assert torch.equal(value, theirs[name]) or name.startswith(("loss_sum", "running")), name

    checkpoint = fitted.directory / "checkpoints" / "last.ckpt"
    overrides = _small(experiment, rendered, tmp_path / "predict")
    run = neurotrain.train(neurotrain.compose(experiment, [*overrides, "stage=predict", f"ckpt={checkpoint}"]))
    assert isinstance(run.data, VolumeDataModule)
    assert run.predictions is not None
    records = run.data.records("predict")
    written = sorted((run.directory / "predictions").iterdir())
    assert [path.name for path in written] == [f"{record.id}.nii.gz" for record in records]
    for path, record, predicted in zip(written, records, run.predictions, strict=True):
        found, image = nibabel.load(path), nibabel.load(record.images[0])
        assert np.array_equal(found.affine, image.affine)
        assert found.shape == image.shape
        codes = run.data.dataset.label_map.decode(predicted["labels"][0]).numpy()
        assert np.array_equal(np.asarray(nibabel.as_closest_canonical(found).dataobj), codes)

    # What was written is read again by the data set's own reader, and one case alone is found by its path.
    alone = str(records[0].images[0].parent if experiment == "brats_phantom" else records[0].images[0])
    assert [case.id for case in run.data.dataset.find(alone)] == [records[0].id]


def _through_lightnings_command_line(config: Configuration, folder: Path) -> dict[str, torch.Tensor]:
    values = to_lightning_cli(config, run_dir=folder)
    for log in values["trainer"]["logger"]:
        log["init_args"]["directory"] = str(folder)
    folder.mkdir()
    file = folder / "cli.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    seed_everything(config.values["seed"], workers=True, verbose=False)
    cli: Any = lightning_cli(["--config", str(file), f"--trainer.default_root_dir={folder}"], run=False)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return cli.model.state_dict()


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=btcv", "model.inferer.window=[96,96,96]"],
        ["data=brats", "model=volumes_tumor", "model.inferer.window=[128,128,128]"],
        ["model/network=swin_unetr", "model/loss=cross_entropy_dice", "model.inferer.window=[96,96,96]"],
        ["model/network=monai_unet", "model/loss=cross_entropy_dice"],
        ["model/cleaning=organs", "model.cleaning.min_size=20"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_choice_composes(overrides: list[str]) -> None:
    base = ["model=volumes_organs", "callbacks=volumes", "data=btcv_phantom", "model.inferer.window=[32,32,32]"]
    neurotrain.compose(None, [*base, *overrides])
