"""DRIVE: a tiny copy of its layout with every flaw, and the real one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from neurotrain.data.datasets import DatasetError, Drive

Write = Callable[[Path, np.ndarray], Path]


def _stored(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture if path.suffix == ".tif" else picture.convert("L"))


def test_values_are_the_files(drive: Path) -> None:
    record = Drive(root=drive).records("test")[1]
    sample = Drive(root=drive).read(record)
    pixels = _stored(drive / "test/images/02_test.tif")
    assert record.id == "02"
    torch.testing.assert_close(sample["image"], torch.from_numpy(pixels / 255).permute(2, 0, 1).float())
    truth = _stored(drive / "test/1st_manual/02_manual1.gif") == 255
    assert torch.equal(sample["mask"], torch.from_numpy(truth).long())
    field = _stored(drive / "test/mask/02_test_mask.gif") == 255
    assert torch.equal(sample["valid"], torch.from_numpy(field))
    second = Drive(root=drive).read_second(record)
    assert second is not None
    assert not torch.equal(second, sample["mask"])


def test_training_has_no_second_observer(drive: Path) -> None:
    dataset = Drive(root=drive)
    assert dataset.read_second(dataset.records("train")[0]) is None


def test_missing_root_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        Drive(root=tmp_path / "DRIVE").records("train")
    assert "register at https://drive.grand-challenge.org" in str(caught.value)
    assert f"unpack so that {tmp_path}/DRIVE/training/images exists" in str(caught.value)


def test_distribution_without_test_labels(drive: Path) -> None:
    shutil.rmtree(drive / "test/1st_manual")
    dataset = Drive(root=drive)
    assert dataset.splits == ("train",)
    assert len(dataset.records("train")) == 3
    assert dataset.verify().ok
    assert len(dataset.fingerprint()) == 32
    with pytest.raises(DatasetError, match="the labels of the test images are not part of this distribution"):
        dataset.records("test")


def test_second_observer_is_optional_but_not_by_halves(drive: Path) -> None:
    (drive / "test/2nd_manual/01_manual2.gif").unlink()
    with pytest.raises(DatasetError, match=r"01_manual2\.gif: no second segmentation of image '01'"):
        Drive(root=drive).records("test")
    shutil.rmtree(drive / "test/2nd_manual")
    assert Drive(root=drive).records("test")[0].second is None


def test_all_problems_are_told_at_once(drive: Path) -> None:
    (drive / "training/1st_manual/21_manual1.gif").unlink()
    (drive / "training/mask/23_training_mask.gif").unlink()
    (drive / "training/images/22_training.tif").unlink()
    with pytest.raises(DatasetError) as caught:
        Drive(root=drive).records("train")
    kinds = sorted((problem.kind, problem.path.name) for problem in caught.value.problems)
    assert kinds == [
        ("missing", "21_manual1.gif"),
        ("missing", "23_training_mask.gif"),
        ("unpaired", "22_manual1.gif"),
        ("unpaired", "22_training_mask.gif"),
    ]
    assert "4 problems" in str(caught.value)


def test_ten_files_are_listed_and_the_rest_counted(drive: Path, write: Write) -> None:
    for number in range(40, 52):
        write(drive / f"training/images/{number}_training.tif", np.zeros((24, 20, 3), dtype=np.uint8))
    shutil.rmtree(drive / "training/mask")
    with pytest.raises(DatasetError) as caught:
        Drive(root=drive).records("train")
    text = str(caught.value)
    assert "13 problems" in text
    assert "no such folder; it should hold *_training_mask.gif" in text
    assert "49_manual1.gif" not in text
    assert "... and 3 more" in text


def test_empty_split(drive: Path) -> None:
    for name in ("images", "1st_manual", "mask"):
        for path in (drive / "training" / name).iterdir():
            path.unlink()
    with pytest.raises(DatasetError, match="no image for split 'train'"):
        Drive(root=drive).records("train")
    assert [problem.kind for problem in Drive(root=drive).verify().problems] == ["empty split"]


def test_hidden_and_foreign_files_are_left_alone(drive: Path) -> None:
    (drive / "training/images/._21_training.tif").write_bytes(b"resource fork")
    (drive / "training/images/Thumbs.db").write_bytes(b"")
    assert len(Drive(root=drive).records("train")) == 3


def test_verify_collects_every_kind(drive: Path, write: Write) -> None:
    (drive / "training/images/21_training.tif").write_bytes(b"not a picture")
    write(drive / "training/1st_manual/22_manual1.gif", np.full((24, 20), 128, dtype=np.uint8))
    write(drive / "training/1st_manual/23_manual1.gif", np.zeros((24, 20), dtype=np.uint8))
    write(drive / "test/mask/01_test_mask.gif", np.full((24, 21), 255, dtype=np.uint8))
    write(drive / "test/2nd_manual/02_manual2.gif", np.full((24, 22), 255, dtype=np.uint8))
    (drive / "test/1st_manual/01_manual1.gif").unlink()
    report = Drive(root=drive).verify()
    found = {(problem.kind, problem.path.name) for problem in report.problems}
    assert found == {
        ("unreadable", "21_training.tif"),
        ("invalid labels", "22_manual1.gif"),
        ("empty mask", "23_manual1.gif"),
        ("size mismatch", "01_test_mask.gif"),
        ("size mismatch", "02_manual2.gif"),
        ("missing", "01_manual1.gif"),
    }
    assert len(report.problems) == 6
    assert report.counts == {"train": 3, "test": 2}
    assert not report.ok
    assert "train 3, test 2 images: 6 problems" in str(report)


def test_real_drive(shared_data: Path) -> None:
    dataset = Drive(root=shared_data / "DRIVE")
    train, test = dataset.records("train"), dataset.records("test")
    assert [record.id for record in train] == [str(number) for number in range(21, 41)]
    assert [record.id for record in test] == [f"{number:02d}" for number in range(1, 21)]
    assert all(record.second is not None for record in test)
    vessel = valid = agreed = drawn = 0
    for record in test[::4]:
        sample, second = dataset.read(record), dataset.read_second(record)
        assert second is not None
        assert sample["image"].shape == (3, 584, 565)
        vessel += int((sample["mask"].bool() & sample["valid"]).sum())
        valid += int(sample["valid"].sum())
        agreed += 2 * int((sample["mask"] & second).sum())
        drawn += int(sample["mask"].sum() + second.sum())
    assert 0.10 < vessel / valid < 0.15
    # The literature gives the second observer a Dice score near 0.79.
    assert 0.75 < agreed / drawn < 0.83


def test_real_drive_verifies(shared_data: Path) -> None:
    report = Drive(root=shared_data / "DRIVE").verify()
    assert report.problems == ()
    assert report.counts == {"train": 20, "test": 20}
