"""One suite for every named dataset."""

from __future__ import annotations

import inspect
import pickle
import shutil
import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from neurotrain.data import datasets
from neurotrain.data.datasets import (
    ChaseDb1,
    DatasetError,
    Drive,
    ImageMaskFolder,
    Isic,
    SegmentationDataset,
    Stare,
    SyntheticDrive,
)

CASES: dict[type[SegmentationDataset], tuple[str, Callable[[Path], SegmentationDataset], tuple[int, int]]] = {
    Drive: ("drive", lambda root: Drive(root=root), (3, 2)),
    ChaseDb1: ("chase", lambda root: ChaseDb1(root=root), (20, 8)),
    Stare: ("stare", lambda root: Stare(root=root), (10, 10)),
    Isic: ("isic", lambda root: Isic(root=root, year=2017), (3, 2)),
    ImageMaskFolder: ("folder", lambda root: ImageMaskFolder(root=root), (3, 2)),
    SyntheticDrive: ("rendered", lambda root: SyntheticDrive(root=root, train=3, test=2, size=(64, 60)), (3, 2)),
}


def test_every_public_dataset_is_under_contract() -> None:
    public = [getattr(datasets, name) for name in datasets.__all__]
    classes = {item for item in public if inspect.isclass(item) and issubclass(item, SegmentationDataset)}
    assert classes - {SegmentationDataset} == set(CASES)
    assert sorted(datasets.__all__) == datasets.__all__


@pytest.fixture(params=list(CASES), ids=lambda cls: cls.__name__)
def case(request: pytest.FixtureRequest) -> tuple[SegmentationDataset, tuple[int, int], Path]:
    fixture, build, counts = CASES[request.param]
    root = request.getfixturevalue(fixture)
    return build(root), counts, root


def test_records_are_sorted_disjoint_and_complete(case: tuple) -> None:
    dataset, counts, _ = case
    train, test = dataset.records("train"), dataset.records("test")
    assert (len(train), len(test)) == counts
    for records in (train, test):
        assert [record.id for record in records] == sorted(record.id for record in records)
        assert all(record.image.is_file() for record in records)
        assert all(record.mask is not None and record.mask.is_file() for record in records)
    ids = {record.id for record in (*train, *test)}
    assert len(ids) == sum(counts)
    groups = [{record.group for record in part if record.group} for part in (train, test)]
    assert not groups[0] & groups[1]
    assert dataset.records("train") is train


def test_sample_keeps_the_batch_contract(case: tuple) -> None:
    dataset, _, _ = case
    record = dataset.records("train")[0]
    sample = dataset.read(record)
    height, width = sample["image"].shape[1:]
    assert sample["image"].dtype == torch.float32
    assert sample["image"].is_contiguous()
    assert sample["image"].shape[0] == 3
    assert 0 <= float(sample["image"].min()) < float(sample["image"].max()) <= 1
    assert sample["mask"].dtype == torch.int64
    assert sample["mask"].shape == (height, width)
    assert sample["mask"].unique().tolist() == [0, 1]
    assert sample["valid"].dtype == torch.bool
    assert sample["valid"].shape == (height, width)
    assert sample["id"] == record.id
    assert sample["source"] == dataset.name
    second = dataset.read_second(dataset.records("test")[0])
    assert second is None or (second.dtype == torch.int64 and set(second.unique().tolist()) <= {0, 1})


def test_attributes_fit_together(case: tuple) -> None:
    dataset, _, _ = case
    assert dataset.mode == "binary"
    assert dataset.num_classes == len(dataset.class_names) == 1
    assert dataset.synthetic == isinstance(dataset, SyntheticDrive)


def test_constructor_is_keyword_only_and_typed(case: tuple) -> None:
    dataset, _, _ = case
    parameters = inspect.signature(type(dataset)).parameters.values()
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters)
    hints = typing.get_type_hints(type(dataset).__init__)
    assert all(parameter.name in hints for parameter in parameters)
    assert hints["root"] is Path


def test_verify_finds_nothing(case: tuple) -> None:
    dataset, counts, _ = case
    report = dataset.verify()
    assert report.problems == ()
    assert report.ok
    assert (report.counts["train"], report.counts["test"]) == counts


def test_unknown_split_names_the_nearest(case: tuple) -> None:
    dataset, _, _ = case
    with pytest.raises(ValueError, match=r"split='tset': .* nearest: 'test'"):
        dataset.records("tset")


def test_travels_into_workers(case: tuple) -> None:
    dataset, _, _ = case
    record = dataset.records("test")[0]
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again.read(pickle.loads(pickle.dumps(record)))["image"], dataset.read(record)["image"])


def test_root_may_be_text(case: tuple) -> None:
    dataset, counts, root = case
    build = CASES[type(dataset)][1]
    assert len(build(str(root)).records("train")) == counts[0]


def test_fingerprint_is_of_the_content_alone(case: tuple, tmp_path: Path) -> None:
    dataset, _, root = case
    build = CASES[type(dataset)][1]
    first = dataset.fingerprint()
    elsewhere = tmp_path.parent / f"{tmp_path.name}_copy"
    shutil.copytree(root, elsewhere)
    copy = build(elsewhere)
    assert copy.fingerprint() == first
    assert len(first) == 32

    mask = copy.records("train")[-1].mask
    assert mask is not None
    content = bytearray(mask.read_bytes())
    content[-1] ^= 1
    mask.write_bytes(bytes(content))
    assert build(elsewhere).fingerprint() != first


def test_missing_root_is_one_error_with_a_way_out(case: tuple, tmp_path: Path) -> None:
    dataset, counts, _ = case
    empty = CASES[type(dataset)][1](tmp_path / "nowhere")
    if dataset.synthetic:  # makes its root
        assert len(empty.records("train")) == counts[0]
        return
    with pytest.raises(DatasetError, match="no such folder") as caught:
        empty.records("train")
    assert str(tmp_path / "nowhere") in str(caught.value)
    assert str(caught.value).splitlines()[-1].strip()
    assert not empty.verify().ok


def test_absent_mask_and_other_size_are_listed(case: tuple, write: Callable[[Path, np.ndarray], Path]) -> None:
    dataset, _, root = case
    records = dataset.records("train")
    build = CASES[type(dataset)][1]
    mask = records[0].mask
    assert mask is not None
    write(mask, np.full((5, 7), 255, dtype=np.uint8))
    with pytest.raises(DatasetError, match="size mismatch") as caught:
        build(root).records("train")
    assert str(mask) in str(caught.value)
    assert "5 x 7" in str(caught.value)
    with pytest.raises(DatasetError, match="size mismatch"):
        dataset.read(records[0])

    mask.unlink()
    for raising in (lambda: build(root).records("train"), lambda: dataset.read(records[0])):
        with pytest.raises(DatasetError, match=r"missing|no such file") as caught:
            raising()
        assert mask.name.split(".")[0] in str(caught.value)
    assert {problem.kind for problem in build(root).verify().problems} == {"missing"}
