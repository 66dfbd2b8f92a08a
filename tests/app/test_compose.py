from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import neurotrain
from neurotrain.app.overrides import config_folder
from neurotrain.app.registry import FAMILIES, members
from neurotrain.app.strict import ConfigurationError

EXPERIMENTS = sorted(path.stem for path in (config_folder() / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_passes_the_strict_check(
    experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROTRAIN_BUCKET", "lab")  # drive_mixture asks for it
    monkeypatch.setenv("NEUROTRAIN_VLM", "folder")  # coco_vision_language does
    config = neurotrain.compose(experiment, ["paths.data_dir=data"])
    assert config.values["name"] == experiment
    assert config.notice is None


def test_all_mistakes_are_told_together_with_key_place_and_suggestion() -> None:
    wrong = [
        "model.netwrok.widths=[4,8]",
        "model.network.dropout=high",
        "model.mode=binray",
        "trainer.max_epoch=3",
        "sed=3",
        "trainer.callbacks=[]",
    ]
    with pytest.raises(ConfigurationError) as caught:
        neurotrain.compose("drive_unet", ["data=drive", *wrong])
    message = str(caught.value)
    for expected in ("model.netwrok", "'network'", "model.network.dropout", "'binary'", "'max_epochs'", "'seed'"):
        assert expected in message, message
    assert "trainer.callbacks" in message
    assert message.count("command line") == len(wrong)


def test_a_mistake_in_a_file_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "configs" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - drive_unet\nname: mine\nmodel:\n  tolerence: 2.0\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"model.tolerence \(configs/experiment/mine.yaml\).*'tolerance'"):
        neurotrain.compose("mine", ["data=drive"])


def test_an_unset_environment_variable_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="NEUROTRAIN_NOT_SET"):
        neurotrain.compose("drive_unet", ["data=drive", "name=${oc.env:NEUROTRAIN_NOT_SET}"])


def test_a_secret_stays_unresolved_in_what_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROTRAIN_SECRET", "hunter2")
    config = neurotrain.compose("drive_unet", ["data=drive", "name=${oc.env:NEUROTRAIN_SECRET}"])
    assert config.values["name"] == "hunter2"
    assert "hunter2" not in OmegaConf.to_yaml(config.raw, resolve=False)


@pytest.mark.parametrize("target", ["logging.os.system", "hydra_zen.funcs.zen_processing", "builtins.eval"])
def test_a_target_that_nobody_registered_is_refused(target: str) -> None:
    with pytest.raises(ConfigurationError, match="refused"):
        neurotrain.compose("drive_unet", ["data=drive", f"model.network._target_={target}"])


def test_values_are_changed_without_a_plus() -> None:
    config = neurotrain.compose("drive_unet", ["data=drive", "model.network.widths=[4,8]", "model/schedule=polynomial"])
    assert config.values["model"]["network"]["widths"] == [4, 8]
    assert config.values["model"]["schedule"]["_target_"].endswith("Polynomial")


def test_every_family_has_members_with_unique_names() -> None:
    names = [(family.group, name) for family in FAMILIES for name, _ in members(family)]
    assert len(names) == len(set(names))
    assert {family.group for family in FAMILIES} == {group for group, _ in names}


def test_yaml_holds_deltas_only() -> None:
    for path in config_folder().rglob("*.yaml"):
        assert "_target_" not in path.read_text(encoding="utf-8"), path


def test_help_and_configuration_are_printed_without_running(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "train.py"
    shown = subprocess.run(
        [sys.executable, str(script), "experiment=drive_unet", "seed=7", "--cfg", "job"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "seed: 7" in shown.stdout
    assert "name: drive_unet_synthetic" in shown.stdout  # no DRIVE there: the switch is visible
    assert not (tmp_path / "runs").exists()
