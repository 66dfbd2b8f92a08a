"""CHASE_DB1 and STARE, and the field of view that they lack."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from neurotrain.data.datasets import ChaseDb1, DatasetError, Drive, Stare, decoding
from neurotrain.data.datasets.field_of_view import field_of_view

Write = Callable[[Path, np.ndarray], Path]


def test_chase_splits_by_child(chase: Path) -> None:
    dataset = ChaseDb1(root=chase)
    train, test = dataset.records("train"), dataset.records("test")
    assert (train[0].id, train[-1].id, test[0].id, test[-1].id) == ("01L", "10R", "11L", "14R")
    assert [record.group for record in test[:3]] == ["11", "11", "12"]
    sample, second = dataset.read(test[0]), dataset.read_second(test[0])
    assert second is not None
    assert not torch.equal(second, sample["mask"])
    assert 200 < int(sample["valid"].sum()) < 24 * 20


def test_chase_second_observer_is_optional(chase: Path) -> None:
    for path in chase.glob("*_2ndHO.png"):
        path.unlink()
    assert ChaseDb1(root=chase).records("train")[0].second is None


def test_chase_orphans(chase: Path) -> None:
    (chase / "Image_03L.jpg").unlink()
    with pytest.raises(DatasetError, match=r"Image_03L_1stHO\.png: first observer's labels without an image"):
        ChaseDb1(root=chase).records("train")


def test_stare_default_and_packed_files(stare: Path) -> None:
    dataset = Stare(root=stare)
    assert [record.id for record in dataset.records("test")] == [f"im{number:04d}" for number in range(11, 21)]
    packed, plain = dataset.records("train")[:2]
    assert packed.image.suffix == ".gz"
    assert plain.image.suffix == ".ppm"
    for record in (packed, plain):
        assert dataset.read(record)["image"].shape == (3, 24, 20)


def test_stare_prefers_the_unpacked_file(stare: Path, write: Write) -> None:
    write(stare / "im0001.ppm", np.full((24, 20, 3), 77, dtype=np.uint8))
    dataset = Stare(root=stare)
    assert dataset.records("train")[0].image.name == "im0001.ppm"
    assert bool((dataset.read(dataset.records("train")[0])["image"] == 77 / 255).all())


def test_stare_images_in_their_own_folder(stare: Path) -> None:
    (stare / "stare-images").mkdir()
    for path in (*stare.glob("im*.ppm"), *stare.glob("im*.gz")):
        path.rename(stare / "stare-images" / path.name)
    assert len(Stare(root=stare).records("train")) == 10


def test_stare_folds_leave_each_image_out_once(stare: Path) -> None:
    left_out = [Stare(root=stare, fold=fold).records("test") for fold in range(20)]
    assert [[record.id for record in records] for records in left_out] == [[f"im{n:04d}"] for n in range(1, 21)]
    assert len(Stare(root=stare, fold=3).records("train")) == 19
    assert Stare(root=stare, fold=3).fingerprint() == Stare(root=stare).fingerprint()


def test_stare_chosen_test(stare: Path) -> None:
    dataset = Stare(root=stare, test=("im0002", "im0007"))
    assert [record.id for record in dataset.records("test")] == ["im0002", "im0007"]
    assert len(dataset.records("train")) == 18
    with pytest.raises(DatasetError, match=r"named by test=.* nearest: 'im00"):
        Stare(root=stare, test=("im0099",)).records("train")


def test_stare_refuses_contradictions(stare: Path) -> None:
    with pytest.raises(ValueError, match="chosen by one of them"):
        Stare(root=stare, test=("im0001",), fold=0)
    with pytest.raises(ValueError, match="nearest: 0"):
        Stare(root=stare, fold=-1)
    with pytest.raises(ValueError, match="nearest: 19"):
        Stare(root=stare, fold=20).records("test")


def test_stare_second_observer_is_optional(stare: Path) -> None:
    shutil.rmtree(stare / "labels-vk")
    assert Stare(root=stare).records("train")[0].second is None
    shutil.rmtree(stare / "labels-ah")
    with pytest.raises(DatasetError, match="labels-ah: no such folder"):
        Stare(root=stare).records("train")


def test_gzip_bomb_is_refused(stare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "GZIP_LIMIT", 1 << 20)
    (stare / "im0001.ppm.gz").write_bytes(gzip.compress(b"P6 20 24 255 " + bytes(2 << 20)))
    with pytest.raises(DatasetError, match=r"im0001\.ppm\.gz: unpacks to more than 1 MiB"):
        Stare(root=stare).records("train")


def test_broken_gzip_is_named(stare: Path) -> None:
    path = stare / "labels-ah" / "im0003.ah.ppm.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DatasetError, match=r"im0003\.ah\.ppm\.gz: cannot be decoded"):
        Stare(root=stare).records("train")


def test_field_of_view_by_hand() -> None:
    image = torch.zeros(3, 20, 20)
    image[0, 3:15, 3:15] = 0.5
    image[0, 8:10, 8:10] = 0.02  # a dark fovea: filled
    image[0, 18, 18] = 0.9  # a speck: removed
    expected = torch.zeros(20, 20, dtype=torch.bool)
    expected[3:15, 3:15] = True
    assert torch.equal(field_of_view(image), expected)
    assert bool(field_of_view(torch.full((3, 4, 4), 0.3)).all())
    assert bool(field_of_view(torch.eye(6).expand(3, 6, 6)).all())


def test_field_of_view_agrees_with_drives_own(shared_data: Path) -> None:
    dataset = Drive(root=shared_data / "DRIVE")
    for record in dataset.records("train")[::5]:
        sample = dataset.read(record)
        found, truth = field_of_view(sample["image"]), sample["valid"]
        assert float((found & truth).sum() / (found | truth).sum()) > 0.99
