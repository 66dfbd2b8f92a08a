"""What prediction reads: sources, images without labels, and results laid back over the images."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional

from neurotrain.data import SegmentationDataModule
from neurotrain.data.datasets import DatasetError, Drive, ImageMaskFolder, Record, SyntheticDrive
from neurotrain.data.prediction import find_images, laid_back, placement
from neurotrain.data.transforms import (
    CentreCrop,
    Compose,
    Identity,
    NormalizeInside,
    PadToMultiple,
    RandomPatch,
    Resize,
    Transform,
)


def picture(path: Path, *, width: int = 20, height: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(width))
    Image.fromarray(noise.numpy()).save(path, format="PNG" if path.suffix == ".gz" else None)
    return path


def module(source: Path | str | None, dataset: Any = None, **settings: Any) -> SegmentationDataModule:
    settings = {"train_transform": RandomPatch(size=16), "eval_transform": Identity(), **settings}
    return SegmentationDataModule(
        dataset=dataset or Drive(root=Path("nowhere")), source=None if source is None else str(source), **settings
    )


def found(source: Path | str) -> list[tuple[str, str]]:
    return [(record.id, record.image.name) for record in find_images(str(source))]


def test_a_folder_a_glob_and_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.PNG", "a.tif", "c.jpg", "deep/d.png", ".hidden.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert found(tmp_path) == [("a", "a.tif"), ("b", "b.PNG"), ("c", "c.jpg")]
    assert found(tmp_path / "*") == found(tmp_path)
    assert found(tmp_path / "[ab].*") == [("a", "a.tif"), ("b", "b.PNG")]
    assert found(tmp_path / "**/*.png") == [("d", "d.png")]
    assert found(tmp_path / "deep" / "d.png") == [("d", "d.png")]
    monkeypatch.chdir(tmp_path)
    assert found("*.tif") == [("a", "a.tif")]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert found("~/deep") == [("d", "d.png")]


def test_a_packed_image_is_found_by_its_inner_name(tmp_path: Path) -> None:
    plain = picture(tmp_path / "x" / "im0001.png")
    (tmp_path / "im0001.png.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "table.csv.gz").write_bytes(b"")
    assert found(tmp_path) == [("im0001", "im0001.png.gz")]


def test_a_folder_with_marks_in_its_name_is_a_folder(tmp_path: Path) -> None:
    picture(tmp_path / "eyes [left]" / "a.png")
    assert found(tmp_path / "eyes [left]") == [("a", "a.png")]


@pytest.mark.parametrize("source", ["absent", "absent.png", "empty", "*.png", "empty/*"])
def test_nothing_found_is_one_message_with_the_source(source: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(DatasetError) as error:
        find_images(f"{tmp_path}/{source}")
    assert f"source={tmp_path}/{source}" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(ValueError, match="source=''"):
        find_images("")


def test_two_files_of_one_name_are_refused_with_both_paths_and_so_is_what_is_no_image(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a.png"), picture(tmp_path / "a.tif")
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetError) as error:
        find_images(str(tmp_path))
    assert {str(first), str(second), str(tmp_path / "broken.png")} <= set(str(error.value).replace(":", "").split())
    assert [problem.kind for problem in error.value.problems] == ["duplicate", "unreadable"]


def test_an_image_without_labels_of_every_mode(tmp_path: Path) -> None:
    record = Record(id="a", image=picture(tmp_path / "a.png"))
    for mode, classes, shape in (("binary", 1, ()), ("multiclass", 3, ()), ("multilabel", 2, (2,))):
        names = tuple(f"c{number}" for number in range(classes))
        dataset = ImageMaskFolder(root=tmp_path, mode=mode, num_classes=classes, class_names=names)  # type: ignore[arg-type]
        sample = dataset.read_unlabelled(record)
        assert sample["image"].shape == (3, 12, 20)
        assert sample["mask"].shape == (*shape, 12, 20)
        assert sample["mask"].dtype == torch.int64
        assert not sample["mask"].any()
        assert sample["valid"].all()
        assert (sample["id"], sample["source"]) == ("a", "folder")


def test_an_unlabelled_record_is_read_as_a_labelled_one_but_for_the_mask(tmp_path: Path) -> None:
    dataset = SyntheticDrive(root=tmp_path, train=1, test=1, size=(96, 90))
    (record,) = dataset.records("test")
    labelled, unlabelled = dataset.read(record), dataset.read_unlabelled(record)
    assert torch.equal(labelled["image"], unlabelled["image"])
    assert torch.equal(labelled["valid"], unlabelled["valid"])
    assert labelled["mask"].any()
    assert not unlabelled["mask"].any()


def test_a_validity_file_of_another_size_is_refused(tmp_path: Path) -> None:
    Image.new("1", (5, 5), 1).save(tmp_path / "field.png")
    record = Record(id="a", image=picture(tmp_path / "a.png"), valid=tmp_path / "field.png")
    with pytest.raises(DatasetError, match=r"field\.png"):
        Drive(root=tmp_path).read_unlabelled(record)


def test_a_photograph_of_drive_without_its_mask_sees_nearly_the_same_statistics(shared_data: Path) -> None:
    dataset = Drive(root=shared_data / "DRIVE")
    record = dataset.records("train")[0]
    alone = Record(id=record.id, image=record.image)
    inside, computed = dataset.read(record)["valid"], dataset.read_unlabelled(alone)["valid"]
    assert 0.99 < (inside & computed).sum() / (inside | computed).sum() < 1
    image = dataset.read(record)["image"]
    (std, mean), (std_alone, mean_alone) = (torch.std_mean(image[:, part], dim=1) for part in (inside, computed))
    assert ((mean_alone - mean) / std).abs().max() < 0.06
    assert ((std_alone - std) / std).abs().max() < 0.17
    everywhere, _ = torch.std_mean(image.flatten(1), dim=1)
    assert ((everywhere - std) / std).abs().max() > 0.3  # what a mask of ones would give


def test_a_source_needs_no_data_set_and_its_images_may_differ_in_size(tmp_path: Path) -> None:
    picture(tmp_path / "b.png", width=30)
    picture(tmp_path / "a.tif")
    data = module(tmp_path, prepare=NormalizeInside())
    data.setup("predict")
    loader = data.predict_dataloader()
    assert len(loader) == 2
    batches = list(loader)
    assert [batch["id"] for batch in batches] == [["a"], ["b"]]
    assert [tuple(batch["image"].shape) for batch in batches] == [(1, 3, 12, 20), (1, 3, 12, 30)]
    summary = data.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["counts"], summary["ids"], summary["synthetic"]) == ({"predict": 2}, {"predict": ["a", "b"]}, None)
    again = module(tmp_path).summary()["fingerprint"]
    picture(tmp_path / "b.png", width=31)
    assert summary["fingerprint"] == again != module(tmp_path).summary()["fingerprint"]


def test_workers_predict_the_same_batches_and_end(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.png")
    data = module(tmp_path, num_workers=1)
    assert [batch["id"] for batch in data.predict_dataloader()] == [["a"], ["b"], ["c"]]
    data.teardown("predict")


def test_batches_of_different_sizes_say_what_to_do(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", width=30)
    with pytest.raises(ValueError, match="batch size of 1"):
        list(module(tmp_path, eval_batch_size=2).predict_dataloader())
    (batch,) = module(tmp_path, eval_batch_size=2, eval_transform=Resize(size=8)).predict_dataloader()
    assert batch["image"].shape == (2, 3, 8, 8)


def test_without_a_source_the_test_images_are_predicted_and_labels_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = SyntheticDrive(root=tmp_path, train=1, test=2, size=(64, 60))
    monkeypatch.setattr(SyntheticDrive, "_read_mask", None)
    data = module(None, dataset)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [batch["id"] for batch in batches] == [[record.id] for record in dataset.records("test")]
    assert not any(batch["mask"].any() for batch in batches)
    assert all(not batch["valid"].all() for batch in batches)


def test_the_dataset_must_be_there_without_a_source() -> None:
    with pytest.raises(DatasetError, match="nowhere"):
        module(None).setup("predict")
    with pytest.raises(DatasetError, match="no such folder or image"):
        module("absent").setup("predict")


def sample(height: int = 12, width: int = 20) -> Any:
    valid = torch.ones(height, width, dtype=torch.bool)
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    return {"image": image, "mask": valid.long(), "valid": valid, "id": "a", "source": "toy"}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([PadToMultiple(multiple=16)], "padded"),
        ([NormalizeInside(), Identity()], "padded"),
        ([Resize(size=(7, 31))], "scaled"),
        ([NormalizeInside(), Compose(steps={"resize": Resize(size=64)})], "scaled"),
    ],
)
def test_placements(steps: list[Transform], expected: str) -> None:
    assert placement(sample(), steps) == expected


@pytest.mark.parametrize("steps", [[CentreCrop(size=8)], [CentreCrop(size=8), Resize(size=(12, 21))]])
def test_what_does_not_cover_the_image_is_refused(steps: list[Transform]) -> None:
    with pytest.raises(ValueError, match="eval_transform turns 'a' of 12 x 20"):
        placement(sample(), steps)


def test_laying_back_undoes_padding_and_scaling() -> None:
    image = sample()["image"]
    padded = functional.pad(image, (0, 12, 0, 4))
    assert torch.equal(laid_back(padded, size=(12, 20), placed="padded"), image)
    field = torch.zeros(6, 10, dtype=torch.bool)
    field[:, :5] = True
    assert torch.equal(
        laid_back(field, size=(12, 20), placed="scaled"), field.repeat_interleave(2, 0).repeat_interleave(2, 1)
    )
    ramp = torch.tensor([[[0.0, 1.0]]])
    torch.testing.assert_close(laid_back(ramp, size=(1, 4), placed="scaled"), torch.tensor([[[0.0, 0.25, 0.75, 1.0]]]))


def test_the_module_lays_back_by_its_own_transforms(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    (record,) = find_images(str(tmp_path))
    assert record.image == path
    part = torch.rand(2, 12, 20)
    assert module(tmp_path).laid_back(part, record) is part
    assert module(tmp_path, eval_transform=Resize(size=8)).laid_back(torch.rand(2, 8, 8), record).shape == (2, 12, 20)
    padded = module(tmp_path, eval_transform=PadToMultiple(multiple=16)).laid_back(torch.ones(16, 32).bool(), record)
    assert padded.shape == (12, 20)
    with pytest.raises(ValueError, match="eval_transform turns"):
        module(tmp_path, eval_transform=CentreCrop(size=8)).laid_back(torch.rand(2, 8, 8), record)
