from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import seed_everything

import neurotrain
from neurotrain.app.cli import lightning_cli, main
from neurotrain.app.convert import to_lightning_cli, toml_to_yaml
from neurotrain.app.overrides import config_folder

# Of segmentation, on its generated data; other methods' are tested beside their own data.
EXPERIMENTS = sorted(path.stem for path in (config_folder() / "experiment").glob("drive*.yaml"))


def _small(data: Path) -> list[str]:
    return [
        "data=synthetic_drive",
        f"paths.data_dir={data}",
        "data.dataset.size=[96,96]",
        "data.dataset.train=3",
        "data.dataset.test=1",
        "data.validation=1",
        "data.batch_size=2",
        "data.samples_per_epoch=4",
        "data.train_transform.steps.patch.size=[32,32]",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
        "trainer.check_val_every_n_epoch=1",
        "test=false",
    ]


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_lightning_cli_reaches_the_same_weights(experiment: str, tmp_path: Path) -> None:
    overrides = _small(tmp_path / "data")
    config = neurotrain.compose(experiment, [*overrides, f"paths.run_dir={tmp_path / 'hydra'}"])
    ours = neurotrain.train(config)

    file = tmp_path / "cli.yaml"
    file.write_text(yaml.safe_dump(to_lightning_cli(config, run_dir=tmp_path / "hydra"), sort_keys=False))
    (tmp_path / "cli").mkdir()
    seed_everything(config.values["seed"], workers=True, verbose=False)
    arguments = ["--config", str(file), f"--trainer.default_root_dir={tmp_path / 'cli'}"]
    cli: Any = lightning_cli([*arguments, *_csv_into(tmp_path / "cli", file)], run=False)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)

    assert cli.trainer.global_step == ours.trainer.global_step == 2
    theirs = cli.model.state_dict()
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, theirs[name]) or value.isnan().all(), name
    assert (
        cli.trainer.optimizers[0].state_dict()["param_groups"]
        == ours.trainer.optimizers[0].state_dict()["param_groups"]
    )
    assert cli.datamodule.summary() == ours.data.summary()


def _csv_into(folder: Path, file: Path) -> list[str]:
    """Move the CSV of the second run, so that it does not write into the first one's."""
    values = yaml.safe_load(file.read_text())
    for log in values["trainer"]["logger"]:
        log["init_args"]["directory"] = str(folder)
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return []


def test_the_generated_file_says_what_the_composed_one_says(tmp_path: Path) -> None:
    config = neurotrain.compose("drive_unet", _small(tmp_path))
    written = to_lightning_cli(config, run_dir=tmp_path)
    assert written["model"]["class_path"] == config.values["model"]["_target_"]
    assert "_target_" not in json.dumps(written)
    assert written["model"]["init_args"]["optimizer"]["init_args"]["lr"] == config.values["model"]["optimizer"]["lr"]


def test_an_experiment_in_toml_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text(
        'seed = 3\n[select]\ndata = "drive"\n"model/network" = "wnet"\n[trainer]\nmax_epochs = 2\n'
    )
    folder = tmp_path / "configs" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(toml_to_yaml(tmp_path / "mine.toml"))
    monkeypatch.chdir(tmp_path)
    values = neurotrain.compose("mine").values
    assert (values["seed"], values["name"], values["trainer"]["max_epochs"]) == (3, "mine", 2)
    assert values["model"]["network"]["_target_"].endswith("WNet")


@pytest.mark.parametrize("text", ["seed = ", "[select]\ndata = 3\n"])
def test_a_toml_file_that_is_wrong_is_refused_by_name(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.toml"):
        toml_to_yaml(file)


def test_verify_tells_good_from_bad(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as good:
        main(["data", "verify", "drive", f"paths.data_dir={shared_data}"])
    assert good.value.code == 0
    assert "20" in capsys.readouterr().out
    with pytest.raises(SystemExit) as bad:
        main(["data", "verify", "drive", f"paths.data_dir={tmp_path}"])
    assert bad.value.code != 0
    captured = capsys.readouterr()
    assert str(tmp_path / "DRIVE") in captured.out + captured.err
