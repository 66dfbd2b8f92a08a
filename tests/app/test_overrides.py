from __future__ import annotations

from pathlib import Path

import pytest

from neurotrain.app.overrides import config_folder, folders, force_values, substituted


def test_values_are_forced_and_selections_are_not() -> None:
    typed = ["model.network.depth=5", "seed=1,2", "data=drive", "model/network=wnet", "a@b=c", "+x.y=1", "~z", "-m"]
    assert force_values([*typed, "hydra.verbose=true"]) == [
        "++model.network.depth=5", "++seed=1,2", "data=drive", "model/network=wnet", "a@b=c", "+x.y=1", "~z",
        "hydra.verbose=true", "-m",
    ]  # fmt: skip


def test_the_users_folder_is_searched_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs" / "mygroup").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert folders() == (tmp_path / "configs", config_folder())
    assert force_values(["mygroup=x"]) == ["mygroup=x"]


def test_an_experiment_without_its_data_is_replaced_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides, notice = substituted(["experiment=drive_unet", "seed=3"])
    assert overrides == ["experiment=drive_unet_synthetic", "seed=3"]
    assert notice is not None
    assert "drive.grand-challenge.org" in notice
    assert "paths.data_dir" in notice


@pytest.mark.parametrize("insists", ["data=drive", "paths.data_dir=elsewhere", "data.dataset.root=elsewhere"])
def test_who_types_the_data_insists_on_them(insists: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    typed = ["experiment=drive_unet", insists]
    assert substituted(typed) == (typed, None)


def test_an_experiment_with_its_data_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "DRIVE").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert substituted(["experiment=drive_unet"]) == (["experiment=drive_unet"], None)


def test_tab_completion_is_left_to_hydra() -> None:
    assert force_values(["-sc", "install=bash"]) == ["-sc", "install=bash"]
