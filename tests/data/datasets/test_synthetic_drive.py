"""The rendered stand-in: determinism, atomicity, likeness."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from neurotrain.data.datasets import DatasetError, Drive, SyntheticDrive, synthetic
from neurotrain.data.datasets.field_of_view import field_of_view
from neurotrain.data.datasets.synthetic_fundus import FundusPicture, render_fundus

SMALL = {"train": 1, "test": 1, "size": (80, 72)}


def _content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    one, two = (SyntheticDrive(root=tmp_path / name, **SMALL) for name in "ab")
    other = SyntheticDrive(root=tmp_path / "a", seed=1, **SMALL)
    prints = [dataset.fingerprint() for dataset in (one, two, other)]
    assert _content(one.root) == _content(two.root)
    assert prints[0] == prints[1] != prints[2]
    assert other.root != one.root
    assert other.root.parent == one.root.parent


def test_layout_is_drives(tmp_path: Path) -> None:
    dataset = SyntheticDrive(root=tmp_path, **SMALL)
    assert not dataset.root.exists()
    dataset.records("train")
    assert sorted(_content(dataset.root)) == [
        "synthetic.json",
        "test/1st_manual/01_manual1.gif",
        "test/2nd_manual/01_manual2.gif",
        "test/images/01_test.tif",
        "test/mask/01_test_mask.gif",
        "training/1st_manual/21_manual1.gif",
        "training/images/21_training.tif",
        "training/mask/21_training_mask.gif",
    ]
    assert [path.name for path in tmp_path.iterdir()] == [dataset.root.name]
    assert Drive(root=dataset.root).fingerprint() == dataset.fingerprint()
    assert json.loads((dataset.root / "synthetic.json").read_text())["size"] == [80, 72]


def test_a_rendered_folder_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = SyntheticDrive(root=tmp_path, **SMALL).fingerprint()
    monkeypatch.setattr(synthetic, "render_fundus", None)
    assert SyntheticDrive(root=tmp_path, **SMALL).fingerprint() == first


def test_an_interrupted_rendering_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(rng: np.random.Generator, *, size: tuple[int, int]) -> FundusPicture:
        if any(tmp_path.rglob("*.tif")):
            raise KeyboardInterrupt
        return render_fundus(rng, size=size)

    monkeypatch.setattr(synthetic, "render_fundus", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SyntheticDrive(root=tmp_path, **SMALL).records("train")
    assert list(tmp_path.iterdir()) == []


def test_losing_a_race_uses_the_winners_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    winner = SyntheticDrive(root=tmp_path, **SMALL)
    loser = SyntheticDrive(root=tmp_path, **SMALL)
    write: Callable[[Path], None] = loser._write

    def overtaken(folder: Path) -> None:
        write(folder)
        winner.records("train")

    monkeypatch.setattr(loser, "_write", overtaken)
    assert loser.records("train") == winner.records("train")
    assert [path.name for path in tmp_path.iterdir()] == [winner.root.name]


def test_a_folder_of_other_parameters_is_refused(tmp_path: Path) -> None:
    dataset = SyntheticDrive(root=tmp_path, **SMALL)
    dataset.records("train")
    (dataset.root / "synthetic.json").write_text('{"seed": 5}')
    with pytest.raises(DatasetError, match="was not rendered as this dataset"):
        SyntheticDrive(root=tmp_path, **SMALL).records("train")


@pytest.mark.parametrize("settings", [{"seed": -1}, {"train": 0}, {"test": 0}, {"size": (40, 200)}])
def test_settings_out_of_range(tmp_path: Path, settings: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))}=.*nearest: "):
        SyntheticDrive(root=tmp_path, **settings)


@pytest.fixture(scope="module")
def pictures() -> list[FundusPicture]:
    return [render_fundus(np.random.default_rng([3, number]), size=(292, 283)) for number in range(3)]


def test_class_balance_and_colours_are_drives(pictures: list[FundusPicture]) -> None:
    for picture in pictures:
        assert 0.08 < picture.vessels[picture.field].mean() < 0.17
        red, green, blue = picture.image[picture.field].mean(0)
        assert 120 < red < 235
        assert 0.35 < green / red < 0.75
        assert 0.4 < blue / green < 0.75
        assert picture.image[~picture.field].mean() < 15


def test_vessels_are_darker_than_their_surroundings(pictures: list[FundusPicture]) -> None:
    from scipy import ndimage

    for picture in pictures:
        near = ndimage.binary_dilation(picture.vessels, iterations=3) & ~picture.vessels & picture.field
        green = picture.image[..., 1].astype(float)
        assert 0.75 < green[picture.vessels].mean() / green[near].mean() < 0.97


def test_second_observer_agrees_as_humans_do(pictures: list[FundusPicture]) -> None:
    for picture in pictures:
        both = 2 * (picture.vessels & picture.second).sum() / (picture.vessels.sum() + picture.second.sum())
        assert 0.70 < both < 0.90
        assert not (picture.second & ~picture.field).any()


def test_field_is_found_in_the_picture(pictures: list[FundusPicture]) -> None:
    for picture in pictures:
        found = field_of_view(torch.from_numpy(picture.image).permute(2, 0, 1) / 255).numpy()
        assert (found & picture.field).sum() / (found | picture.field).sum() > 0.98


def test_defaults_are_what_they_say(tmp_path: Path) -> None:
    dataset = SyntheticDrive(root=tmp_path)
    assert (dataset.train, dataset.test, dataset.size, dataset.synthetic) == (12, 6, (292, 283), True)
