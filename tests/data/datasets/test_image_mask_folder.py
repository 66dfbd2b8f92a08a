"""The generic folder: modes, label maps, palettes, ignored pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from neurotrain.data.datasets import DatasetError, ImageMaskFolder

Write = Callable[[Path, np.ndarray], Path]
GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)


def test_flat_folder_is_training_only(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "scans" / "a.bmp", np.stack([GREY] * 3, -1))
    write(tmp_path / "truth" / "a_mask.gif", (GREY > 20).astype(np.uint8) * 255)
    dataset = ImageMaskFolder(root=tmp_path, images="scans", masks="truth", mask_suffix="_mask", name="mine")
    assert dataset.splits == ("train",)
    sample = dataset.read(dataset.records("train")[0])
    assert torch.equal(sample["mask"], torch.from_numpy(GREY > 20).long())
    assert sample["source"] == "mine"
    with pytest.raises(DatasetError, match="a flat folder has the split 'train' only"):
        dataset.records("test")


def test_multiclass_label_map_and_ignored_pixels(tmp_path: Path, write: Write) -> None:
    stored = np.array([[0, 40, 80], [255, 40, 0]], dtype=np.uint8)
    write(tmp_path / "images" / "a.png", np.zeros((2, 3, 3), dtype=np.uint8))
    write(tmp_path / "masks" / "a.png", stored)
    dataset = ImageMaskFolder(
        root=tmp_path, mode="multiclass", num_classes=3, label_map={40: 1, 80: 2}, ignore_value=255, channels=1
    )
    sample = dataset.read(dataset.records("train")[0])
    assert sample["mask"].tolist() == [[0, 1, 2], [0, 1, 0]]
    assert sample["valid"].tolist() == [[True, True, True], [False, True, True]]
    assert sample["image"].shape == (1, 2, 3)
    assert dataset.class_names == ("class0", "class1", "class2")


def test_unknown_label_is_refused(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "images" / "a.png", np.zeros((2, 3, 3), dtype=np.uint8))
    write(tmp_path / "masks" / "a.png", np.array([[0, 1, 7], [9, 2, 0]], dtype=np.uint8))
    dataset = ImageMaskFolder(root=tmp_path, mode="multiclass", num_classes=3)
    with pytest.raises(DatasetError, match=r"a\.png: holds 7, 9: no label of multiclass \(0 to 2\)"):
        dataset.read(dataset.records("train")[0])
    assert [problem.kind for problem in dataset.verify().problems] == ["invalid labels"]


def test_palette_counts_by_index(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "images" / "a.png", np.zeros((2, 2, 3), dtype=np.uint8))
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), mode=None)
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    (tmp_path / "masks").mkdir()
    picture.save(tmp_path / "masks" / "a.png")
    dataset = ImageMaskFolder(root=tmp_path, mode="multiclass", num_classes=3)
    assert dataset.read(dataset.records("train")[0])["mask"].tolist() == [[0, 1], [2, 1]]


def test_multilabel_has_a_folder_for_each_label(tmp_path: Path, write: Write) -> None:
    layers = {"liver": GREY > 10, "tumour": GREY > 40}
    write(tmp_path / "images" / "a.png", GREY)
    for name, layer in layers.items():
        write(tmp_path / "masks" / name / "a.png", layer.astype(np.uint8) * 255)
    dataset = ImageMaskFolder(root=tmp_path, mode="multilabel", num_classes=2, class_names=("liver", "tumour"))
    sample = dataset.read(dataset.records("train")[0])
    assert torch.equal(sample["mask"], torch.from_numpy(np.stack(list(layers.values()))).long())
    assert dataset.verify().ok
    fresh = ImageMaskFolder(root=tmp_path, mode="multilabel", num_classes=2, class_names=("liver", "tumour"))
    assert torch.equal(fresh.read(dataset.records("train")[0])["mask"], sample["mask"])

    before = dataset.fingerprint()
    write(tmp_path / "masks" / "tumour" / "a.png", (GREY > 30).astype(np.uint8) * 255)
    assert dataset.fingerprint() != before
    (tmp_path / "masks" / "tumour" / "a.png").unlink()
    with pytest.raises(DatasetError, match="no mask in tumour of image 'a'"):
        ImageMaskFolder(root=tmp_path, mode="multilabel", num_classes=2, class_names=("liver", "tumour")).records(
            "train"
        )


def test_validity_folder(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "images" / "a.png", GREY)
    write(tmp_path / "masks" / "a.png", (GREY > 20).astype(np.uint8))
    write(tmp_path / "fov" / "a.png", (GREY > 5).astype(np.uint8) * 255)
    dataset = ImageMaskFolder(root=tmp_path, valid="fov")
    assert torch.equal(dataset.read(dataset.records("train")[0])["valid"], torch.from_numpy(GREY > 5))
    (tmp_path / "fov" / "a.png").unlink()
    with pytest.raises(DatasetError, match="no validity mask of image 'a'"):
        ImageMaskFolder(root=tmp_path, valid="fov").records("train")


def test_two_files_of_one_id(folder: Path, write: Write) -> None:
    write(folder / "train/images/train.0.png", np.zeros((24, 20, 3), dtype=np.uint8))
    with pytest.raises(DatasetError, match=r"duplicate \(1\)") as caught:
        ImageMaskFolder(root=folder).records("train")
    assert "claims the id 'train.0' of train.0.jpg" in str(caught.value)


def test_mask_without_image(folder: Path) -> None:
    (folder / "test/images/test.1.jpg").unlink()
    with pytest.raises(DatasetError, match=r"unpaired \(1\)"):
        ImageMaskFolder(root=folder).records("test")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "multi"}, "nearest: 'multi"),
        ({"num_classes": 2}, "nearest: 1"),
        ({"mode": "multiclass"}, "nearest: 2"),
        ({"mode": "multilabel", "num_classes": 2}, "class_names=None"),
        ({"class_names": ("a", "b")}, "1 names are needed"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageMaskFolder(root=tmp_path, **settings)
