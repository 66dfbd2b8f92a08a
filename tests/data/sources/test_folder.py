"""Folders of files as a source: pairing, captions, labels, the index."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from neurotrain.data.datasets import Drive
from neurotrain.data.decoders import SegmentationDecoder
from neurotrain.data.sources import FolderSource, SourceError
from neurotrain.storage import ChangedError, LocalStorage, MemoryStorage, Storage

DRIVE = {
    "image": "{split}/images/{id}_{split}.tif",
    "mask": "{split}/1st_manual/{id}_manual1.gif",
    "valid": "{split}/mask/{id}_{split}_mask.gif",
}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return LocalStorage(root=tmp_path)


def fill(storage: Storage, *keys: str) -> None:
    for key in keys:
        storage.write(key, f"bytes of {key}".encode())


def test_drive_as_it_lies(shared_data: Path) -> None:
    source = FolderSource(
        name="drive",
        storage=LocalStorage(root=shared_data / "DRIVE"),
        image="training/images/{id}_training.tif",
        mask="training/1st_manual/{id}_manual1.gif",
        valid="training/mask/{id}_training_mask.gif",
        dimensions=True,
    )
    source.setup()
    assert len(source) == 20
    table = source.table()
    assert table.column("id").to_pylist() == [str(number) for number in range(21, 41)]
    assert set(table.column("width").to_pylist()) == {565}
    assert set(table.column("height").to_pylist()) == {584}
    dataset, decode = Drive(root=shared_data / "DRIVE"), SegmentationDecoder()
    record = dataset.records("train")[3]
    sample, official = decode(source.read(3), torch.Generator()), dataset.read(record)
    assert sample["id"] == official["id"] == "24"
    for part in ("image", "mask", "valid"):
        assert torch.equal(sample[part], official[part])
        assert sample[part].dtype == official[part].dtype


def test_both_splits_of_drive_at_once(shared_data: Path) -> None:
    storage = LocalStorage(root=shared_data / "DRIVE")
    patterns = {**DRIVE, "image": "{split}/images/{id}_*.tif", "valid": "{split}/mask/{id}_*_mask.gif"}
    source = FolderSource(name="drive", storage=storage, **patterns)
    source.setup()
    splits = source.table().column("split").to_pylist()
    assert (splits.count("test"), splits.count("training")) == (20, 20)
    assert source.read(0).id == "test/01"
    assert source.read(0).fields["split"] == "test"


def test_folders_are_paired_by_stem(storage: Storage) -> None:
    fill(
        storage,
        "images/b.jpg",
        "images/a.PNG",
        "masks/a.png",
        "masks/b.gif",
        "edges/a.png",
        "edges/b.png",
        "images/.x.png",
    )
    source = FolderSource(name="toy", storage=storage, image="images", mask="masks", conditioning={"control": "edges"})
    source.setup()
    sample = source.read(1)
    assert (sample.id, sample.source, len(source)) == ("b", "toy", 2)
    assert sample.fields == {
        "image": b"bytes of images/b.jpg",
        "mask": b"bytes of masks/b.gif",
        "conditioning/control": b"bytes of edges/b.png",
    }
    assert sample.identity == {
        "image": storage.stat("images/b.jpg").etag,
        "mask": storage.stat("masks/b.gif").etag,
        "conditioning/control": storage.stat("edges/b.png").etag,
    }
    assert sample.uri == storage.uri_of("images/b.jpg")
    with pytest.raises(IndexError):
        source.read(2)
    with pytest.raises(IndexError):
        source.read(-1)


def test_a_mask_beside_its_image_is_no_image(storage: Storage) -> None:
    fill(storage, "a.png", "a_mask.png", "b.png", "b_mask.png", "deep/c.png", "deep/c_mask.png")
    source = FolderSource(name="toy", storage=storage, mask="{id}_mask.png")
    source.setup()
    assert source.table().column("id").to_pylist() == ["a", "b", "deep/c"]


def test_a_mask_for_each_label(storage: Storage) -> None:
    fill(storage, "images/a.png", "masks/liver/a.png", "masks/spleen/a.png")
    masks = {"liver": "masks/liver", "spleen": "masks/spleen"}
    source = FolderSource(name="toy", storage=storage, image="images", mask=masks)
    source.setup()
    assert set(source.read(0).fields) == {"image", "mask/liver", "mask/spleen"}


def test_all_missing_and_doubled_files_in_one_error(storage: Storage) -> None:
    fill(storage, *(f"images/{number:02}.png" for number in range(13)), "masks/03.png", "masks/03.gif")
    source = FolderSource(name="toy", storage=storage, image="images", mask="masks")
    with pytest.raises(SourceError) as caught:
        source.setup()
    text = str(caught.value)
    assert len(caught.value.problems) == 13
    assert "masks/03.png: claims the mask of '03', and so does masks/03.gif" in text
    assert "masks/00.*: missing, the mask of '00'" in text
    assert text.endswith("... and 3 more")


def test_nothing_found_says_what_was_looked_for(storage: Storage) -> None:
    fill(storage, "images/readme.md")
    with pytest.raises(SourceError, match=r"no object fits image='images/\{id\}\{ext\}' \(1 were listed\)"):
        FolderSource(name="toy", storage=storage, image="images").setup()


def test_files_without_an_image_are_told(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    fill(storage, "images/a.png", "masks/a.png", "masks/z.png")
    FolderSource(name="toy", storage=storage, image="images", mask="masks").setup()
    assert "1 files of 'mask' belong to no sample: masks/z.png" in caplog.text


def test_labels_from_folder_names(storage: Storage) -> None:
    fill(storage, "fox/1.png", "cat/1.png", "cat/2.png")
    source = FolderSource(name="toy", storage=storage, image="{label}/{id}{ext}")
    source.setup()
    assert source.class_names == ("cat", "fox")
    assert source.table().column("id").to_pylist() == ["cat/1", "cat/2", "fox/1"]
    assert source.table().column("label").to_pylist() == [0, 0, 1]
    assert source.read(2).fields["label"] == 1
    turned = FolderSource(name="toy", storage=storage, image="{label}/{id}{ext}", classes=("fox", "cat"))
    turned.setup()
    assert turned.table().column("label").to_pylist() == [1, 1, 0]
    wrong = FolderSource(name="toy", storage=storage, image="{label}/{id}{ext}", classes=("fox", "cats"))
    with pytest.raises(SourceError, match=r"label 'cat' is not one of classes=.*nearest: 'cats'"):
        wrong.setup()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": "images/{name}.png"}, r"unknown place \{name\}"),
        ({"image": "*.png"}, r"needs \{id\}"),
        ({"image": "../x/{id}.png"}, "stay below"),
        ({"mask": "masks/{split}/{id}.png"}, r"\{split\} is not in image"),
        ({"classes": ("a",)}, "has no effect"),
        ({"threads": 0}, "threads=0"),
        ({"refresh": False}, "no effect without index_dir"),
        ({"name": "a/b"}, "name='a/b'"),
    ],
)
def test_settings_that_cannot_be(storage: Storage, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FolderSource(**{"name": "toy", "storage": storage, **settings})


def test_nothing_works_before_setup(storage: Storage) -> None:
    with pytest.raises(RuntimeError, match=r"call setup\(\) first"):
        FolderSource(name="toy", storage=storage).table()


def test_an_object_that_changed_meanwhile_is_told(storage: Storage) -> None:
    fill(storage, "a.png")
    source = FolderSource(name="toy", storage=storage)
    source.setup()
    storage.write("a.png", b"shorter")
    with pytest.raises(ChangedError, match=r"a\.png: it is no longer the file"):
        source.read(0)


def test_the_fingerprint_is_the_entries_and_their_order(storage: Storage, tmp_path: Path) -> None:
    fill(storage, "a.png", "b.png")
    copy = MemoryStorage(name="fingerprint")
    fill(copy, "a.png", "b.png")
    prints: list[str] = []
    for place in (storage, copy):
        source = FolderSource(name="toy", storage=place)
        source.setup()
        prints.append(source.fingerprint())
    assert prints[0] == prints[1]
    fill(copy, "c.png")
    more = FolderSource(name="toy", storage=copy)
    more.setup()
    assert len({*prints, more.fingerprint()}) == 2
    assert len(more.fingerprint()) == 16


@pytest.mark.parametrize("mapped", [True, False])
def test_travels_to_another_process(storage: Storage, tmp_path: Path, *, mapped: bool) -> None:
    fill(storage, "a.png", "b.png")
    source = FolderSource(name="toy", storage=storage, index_dir=tmp_path / "index" if mapped else None)
    source.setup()
    source.read(0)
    again = pickle.loads(pickle.dumps(source))
    assert again.read(1) == source.read(1)
    assert again.fingerprint() == source.fingerprint()
