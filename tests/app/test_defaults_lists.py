# pyright: reportPrivateUsage=false
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import defaults_list
from hydra.core.global_hydra import GlobalHydra

import neurotrain
from neurotrain.app import defaults_lists
from neurotrain.app.defaults_lists import lean_defaults_lists


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the length of each list that a table of choices is made for."""
    found: list[int] = []
    theirs = defaults_lists._THEIRS

    def counted(overrides: Any, defaults: list[Any], self_added: bool) -> Any:  # noqa: ANN401 - as Hydra has them
        found.append(len(defaults))
        return theirs(overrides, defaults, self_added)

    monkeypatch.setattr(defaults_lists, "_THEIRS", counted)
    monkeypatch.setattr(defaults_list, "_create_interpolation_map", counted)
    lean_defaults_lists()
    return found


@pytest.mark.parametrize(("choice", "value"), [("one", 1), ("two", 2)])
def test_a_default_may_refer_to_another_choice(choice: str, value: int, tmp_path: Path, made: list[int]) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    (tmp_path / "train.yaml").write_text("defaults:\n  - first: one\n  - second: ${first}_more\n  - _self_\n")
    for number, name in enumerate(("one", "two"), 1):
        (tmp_path / "first" / f"{name}.yaml").write_text("defaults: [/first/below]\n")
        (tmp_path / "second" / f"{name}_more.yaml").write_text(f"value: {number}\n")
    (tmp_path / "first" / "below.yaml").write_text("deep: true\n")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        found = compose("train", [f"first={choice}"])
    assert found == {"first": {"first": {"deep": True}}, "second": {"value": value}}
    assert made == [3]


def test_without_one_no_table_is_made(made: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    lean = neurotrain.compose("mnist_resnet", ["paths.data_dir=data"])
    assert made == []
    monkeypatch.setattr(defaults_lists, "_refers", lambda _: True)
    assert neurotrain.compose("mnist_resnet", ["paths.data_dir=data"]).raw == lean.raw
    assert len(made) > 10
