"""What lies at a URI is predicted as what lies at a path: same names, same pixels, nothing left behind."""

from __future__ import annotations

import gc
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neurotrain.data import SegmentationDataModule
from neurotrain.data.datasets import ImageMaskFolder
from neurotrain.data.fetched import _remove, local_source
from neurotrain.data.sources import SourceError
from neurotrain.data.transforms import Identity, RandomPatch
from neurotrain.data.volumes import Brats, Btcv
from neurotrain.storage import MemoryStorage


class Owner:
    """What reads the files."""


def _png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def stored() -> MemoryStorage:
    storage = MemoryStorage(name="to-predict")
    for seed, key in enumerate(("b.png", "a.png", "deep/c.png", "deep/er/d.png", ".hidden.png", "notes.txt")):
        storage.write(key, _png(seed))
    return storage


def _is_png(name: str) -> bool:
    return name.endswith(".png") and not name.startswith(".")


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("source", "depth", "files", "ends"),
    [
        ("memory://to-predict", 0, ["a.png", "b.png"], "/to-predict"),
        ("memory://to-predict", 1, ["a.png", "b.png", "deep/c.png"], "/to-predict"),
        ("memory://to-predict/**/*.png", 0, ["a.png", "b.png", "deep/c.png", "deep/er/d.png"], "/to-predict/**/*.png"),
        ("memory://to-predict/*/c.png", 0, ["deep/c.png"], "/to-predict/*/c.png"),
        ("memory://to-predict/a.png", 0, ["a.png"], "/to-predict/a.png"),
    ],
)
def test_what_is_named_is_brought_in_its_order_of_folders(source: str, depth: int, files: list[str], ends: str) -> None:
    owner = Owner()
    found = local_source(source, is_wanted=_is_png, owner=owner, depth=depth)
    assert found.endswith(ends)
    top = Path(found[: found.index("/to-predict")])
    assert sorted(p.relative_to(top / "to-predict").as_posix() for p in top.rglob("*") if p.is_file()) == files
    first = top / "to-predict" / files[0]
    assert first.read_bytes() == MemoryStorage(name="to-predict").read(files[0])
    _remove(top, os.getpid() + 1)  # as a forked worker would
    assert first.exists()
    del owner
    gc.collect()
    assert not top.exists()


def test_a_path_stays_what_it_is(tmp_path: Path) -> None:
    assert local_source(str(tmp_path), is_wanted=_is_png, owner=Owner()) == str(tmp_path)


@pytest.mark.usefixtures("stored")
def test_what_is_not_there_is_said() -> None:
    with pytest.raises(SourceError, match="no file of the kind"):
        local_source("memory://to-predict/*.tif", is_wanted=_is_png, owner=Owner())
    with pytest.raises(ValueError, match="unknown scheme"):
        local_source("s4://bucket/a.png", is_wanted=_is_png, owner=Owner())


def test_no_name_leaves_the_folder(monkeypatch: pytest.MonkeyPatch, stored: MemoryStorage) -> None:
    # The storages refuse such keys themselves; a listing of a hostile server is not trusted to have none.
    monkeypatch.setattr("neurotrain.data.fetched._keys", lambda *_: ["../outside.png"])
    with pytest.raises(SourceError, match="would leave the folder"):
        local_source("memory://to-predict", is_wanted=_is_png, owner=Owner())


@pytest.mark.usefixtures("stored")
def test_images_at_a_uri_are_segmented_as_those_at_a_path(tmp_path: Path) -> None:
    for seed, name in enumerate(("b.png", "a.png")):
        (tmp_path / name).write_bytes(_png(seed))
    pixels: list[list[np.ndarray]] = []
    for source in (str(tmp_path), "memory://to-predict"):
        data = SegmentationDataModule(
            dataset=ImageMaskFolder(root=tmp_path),
            train_transform=RandomPatch(size=4),
            eval_transform=Identity(),
            source=source,
        )
        data.setup("predict")
        batches = list(data.predict_dataloader())
        assert [batch["id"] for batch in batches] == [["a"], ["b"]]
        assert data.summary()["counts"] == {"predict": 2}
        pixels.append([batch["image"].numpy() for batch in batches])
    assert all(np.array_equal(*pair) for pair in zip(*pixels, strict=True))


def test_cases_at_a_uri_are_files_or_folders_of_files(tmp_path: Path) -> None:
    there = tmp_path / "there"
    files = [f"btcv/{name}" for name in ("img1.nii.gz", "img2.nii.gz", "notes.txt")]
    for case in ("BraTS20_001", "BraTS20_002"):
        files += [f"brats/{case}/{case}_{part}.nii.gz" for part in ("t1", "t1ce", "t2", "flair")]
    for name in files:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(b"...")
    owner = Owner()

    def here(source: str) -> str:
        return local_source(source, is_wanted=lambda name: name.endswith(".nii.gz"), owner=owner, depth=1)

    btcv, brats = Btcv(root=tmp_path), Brats(root=tmp_path)
    assert [case.id for case in btcv.find(here(f"file://{there}/btcv"))] == ["img1", "img2"]
    assert [case.id for case in btcv.find(here(f"file://{there}/btcv/img2.nii.gz"))] == ["img2"]
    both = ["BraTS20_001", "BraTS20_002"]
    assert [case.id for case in brats.find(here(f"file://{there}/brats"))] == both
    assert [case.id for case in brats.find(here(f"file://{there}/brats/*_00?"))] == both
    assert [case.id for case in brats.find(here(f"file://{there}/brats/BraTS20_002"))] == both[1:]
