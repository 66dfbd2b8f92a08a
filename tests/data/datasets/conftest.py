"""Builders of every official layout with tiny pictures."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neurotrain.data.datasets import SyntheticDrive

SIZE = (24, 20)

Layout = Callable[[Path], Path]


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write an array with the format of the path's ending; ``.gz`` packs it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if path.suffix == ".gz":
        buffer = BytesIO()
        image.save(buffer, format="PPM")
        path.write_bytes(gzip.compress(buffer.getvalue(), mtime=0))
    else:
        image.save(path)
    return path


def photo(seed: int) -> np.ndarray:
    """A bright disc with noise on black."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    disc = np.hypot(y - 11.5, x - 9.5) < 9
    return (disc[..., None] * rng.integers(120, 220, (*SIZE, 3))).astype(np.uint8)


def vessels(seed: int, high: int = 255) -> np.ndarray:
    """A cross."""
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[6 + seed % 8] = high
    mask[:, 10] = high
    return mask


def drive_layout(root: Path) -> Path:
    field = (photo(0).max(-1) > 0).astype(np.uint8) * 255
    for split, numbers in (("training", (21, 22, 23)), ("test", (1, 2))):
        for number in numbers:
            save(root / split / "images" / f"{number:02d}_{split}.tif", photo(number))
            save(root / split / "1st_manual" / f"{number:02d}_manual1.gif", vessels(number))
            save(root / split / "mask" / f"{number:02d}_{split}_mask.gif", field)
            if split == "test":
                save(root / split / "2nd_manual" / f"{number:02d}_manual2.gif", vessels(number + 1))
    return root


def chase_layout(root: Path) -> Path:
    for child in range(1, 15):
        for eye in "LR":
            save(root / f"Image_{child:02d}{eye}.jpg", photo(child))
            save(root / f"Image_{child:02d}{eye}_1stHO.png", vessels(child) > 0)
            save(root / f"Image_{child:02d}{eye}_2ndHO.png", vessels(child + 1) > 0)
    return root


def stare_layout(root: Path) -> Path:
    for number in range(1, 21):
        packed = ".gz" if number % 2 else ""
        save(root / f"im{number:04d}.ppm{packed}", photo(number))
        save(root / "labels-ah" / f"im{number:04d}.ah.ppm{packed}", vessels(number))
        save(root / "labels-vk" / f"im{number:04d}.vk.ppm{packed}", vessels(number + 1))
    return root


def isic_layout(root: Path) -> Path:
    parts = {
        ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"): 3,
        ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"): 1,
        ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"): 2,
    }
    number = 0
    for (images, masks), count in parts.items():
        for _ in range(count):
            save(root / images / f"ISIC_{number:07d}.jpg", photo(number))
            save(root / images / f"ISIC_{number:07d}_superpixels.png", photo(number))
            save(root / masks / f"ISIC_{number:07d}_segmentation.png", vessels(number))
            number += 1
        (root / images / "attribution.txt").write_text("CC-0")
        (root / images / f"{images}_metadata.csv").write_text("image_id\n")
    return root


def folder_layout(root: Path) -> Path:
    for split, count in (("train", 3), ("test", 2)):
        for number in range(count):
            save(root / split / "images" / f"{split}.{number}.jpg", photo(number))
            save(root / split / "masks" / f"{split}.{number}.png", vessels(number))
    return root


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    return drive_layout(tmp_path / "DRIVE")


@pytest.fixture
def chase(tmp_path: Path) -> Path:
    return chase_layout(tmp_path / "CHASE")


@pytest.fixture
def stare(tmp_path: Path) -> Path:
    return stare_layout(tmp_path / "STARE")


@pytest.fixture
def isic(tmp_path: Path) -> Path:
    return isic_layout(tmp_path / "ISIC")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_layout(tmp_path / "pairs")


@pytest.fixture(scope="session")
def rendered_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rendered")
    SyntheticDrive(root=root, train=3, test=2, size=(64, 60)).records("train")
    return root


@pytest.fixture
def rendered(rendered_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(rendered_once, tmp_path / "rendered")


@pytest.fixture(scope="session")
def write() -> Callable[[Path, np.ndarray], Path]:
    return save
