"""The official folder names of each year."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neurotrain.data.datasets import DatasetError, Isic
from neurotrain.data.datasets.isic import FOLDERS

Write = Callable[[Path, np.ndarray], Path]


def test_validation_split(isic: Path) -> None:
    dataset = Isic(root=isic, year=2017)
    assert dataset.splits == ("train", "validation", "test")
    assert [record.id for record in dataset.records("validation")] == ["ISIC_0000003"]
    assert dataset.verify().counts == {"train": 3, "validation": 1, "test": 2}
    assert dataset.name == dataset.read(dataset.records("validation")[0])["source"] == "isic2017"


def test_splits_that_are_not_there(isic: Path) -> None:
    shutil.rmtree(isic / "ISIC-2017_Validation_Part1_GroundTruth")
    dataset = Isic(root=isic, year=2017)
    assert dataset.splits == ("train", "test")
    assert len(dataset.fingerprint()) == 32
    with pytest.raises(DatasetError, match="ISIC-2017_Validation_Part1_GroundTruth: no such folder"):
        dataset.records("validation")


def test_2016_names(tmp_path: Path, write: Write) -> None:
    images, masks = FOLDERS[2016]["train"]
    write(tmp_path / images / "ISIC_0000000.jpg", np.full((9, 8, 3), 90, dtype=np.uint8))
    write(tmp_path / masks / "ISIC_0000000_Segmentation.png", np.full((9, 8), 255, dtype=np.uint8))
    dataset = Isic(root=tmp_path, year=2016)
    assert int(dataset.read(dataset.records("train")[0])["mask"].sum()) == 72
    with pytest.raises(ValueError, match="split='validation'"):
        dataset.records("validation")


def test_other_year_is_another_layout(isic: Path) -> None:
    with pytest.raises(DatasetError, match="ISIC2018_Task1-2_Training_Input: no such folder") as caught:
        Isic(root=isic, year=2018).records("train")
    assert "https://challenge.isic-archive.com/data/#2018" in str(caught.value)


def test_unknown_year(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nearest: 2018"):
        Isic(root=tmp_path, year=2020)  # type: ignore[arg-type]
