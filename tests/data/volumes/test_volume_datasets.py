"""Official layouts of volumes, rendered ones read by the same readers, and what is told of broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from neurotrain.data.datasets import DatasetError
from neurotrain.data.volumes import Brats, Btcv, LabelMap, SyntheticBrats, SyntheticBtcv, VolumeDataset
from neurotrain.data.volumes.nifti import write_volume

SIZE = (28, 24, 20)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VolumeDataset]:
    root = tmp_path_factory.mktemp("rendered")
    return {
        "btcv": SyntheticBtcv(root=root, train=4, test=1, size=SIZE),
        "brats": SyntheticBrats(root=root, train=4, test=1, size=SIZE),
    }


def test_phantoms_are_official_layouts(rendered: dict[str, VolumeDataset]) -> None:
    for name, official in (("btcv", Btcv), ("brats", Brats)):
        dataset = rendered[name]
        theirs = Btcv(root=_root(dataset)) if official is Btcv else Brats(root=_root(dataset), test=1)
        for split, count in (("train", 4), ("test", 1)):
            assert theirs.records(split) == dataset.records(split)
            assert len(dataset.records(split)) == count
        assert not {r.id for r in theirs.records("train")} & {r.id for r in theirs.records("test")}


def _root(dataset: VolumeDataset) -> Path:
    dataset.records("train")
    return dataset.root


def test_phantoms_differ_in_axes_and_spacing_and_lack_one_class(rendered: dict[str, VolumeDataset]) -> None:
    cases = [rendered["btcv"].read(record) for record in rendered["btcv"].records("train")]
    assert len({case.geometry.orientation for case in cases}) == 4
    assert len({case.geometry.spacing for case in cases}) == 4
    for case in cases:
        assert case.image.shape == (1, *SIZE)
        assert case.geometry.spacing == pytest.approx((4.0, 4.0, 6.0), rel=0.081)
        assert case.labels is not None
        assert set(case.labels.unique().tolist()) == set(range(14)) - {4}
        # The liver is on the right, whatever the axes of the file: the first canonical axis runs there.
        places = (case.labels == 6).nonzero().float().mean(0)
        assert places[0] > SIZE[0] / 2
    brains = [rendered["brats"].read(record) for record in rendered["brats"].records("train")]
    assert all(brain.image.shape == (4, *SIZE) for brain in brains)
    everywhere = [
        rendered["brats"].read(r).labels for split in ("train", "test") for r in rendered["brats"].records(split)
    ]
    assert sorted(4 in labels for labels in everywhere if labels is not None) == [False, *[True] * 4]


def test_rendering_is_a_function_of_the_seed(rendered: dict[str, VolumeDataset], tmp_path: Path) -> None:
    again = SyntheticBtcv(root=tmp_path, train=4, test=1, size=SIZE)
    other = SyntheticBtcv(root=tmp_path, train=4, test=1, size=SIZE, seed=1)
    first, same, different = (one.read(one.records("test")[0]).image for one in (rendered["btcv"], again, other))
    assert torch.equal(first, same)
    assert not torch.equal(first, different)
    (again.root / "synthetic.json").write_text("{}")
    with pytest.raises(DatasetError, match="was not rendered as this data set"):
        SyntheticBtcv(root=tmp_path, train=4, test=1, size=SIZE).records("train")


def _btcv(root: Path, listing: object, *, files: tuple[str, ...] = ()) -> Btcv:
    root.mkdir(exist_ok=True)
    for name in files:
        (root / name).parent.mkdir(exist_ok=True)
        write_volume(root / name, np.zeros((4, 4, 4), np.uint8), np.eye(4))
    (root / "dataset_0.json").write_text(json.dumps(listing))
    return Btcv(root=root)


def test_broken_lists_are_told_by_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no list of cases(.|\n)*register at"):
        Btcv(root=tmp_path).records("train")
    entry = {"image": "imagesTr/img0001.nii.gz", "label": "labelsTr/label0001.nii.gz"}
    with pytest.raises(DatasetError, match=r"img0001.nii.gz: is listed under training(.|\n)*label0001"):
        _btcv(tmp_path / "a", {"training": [entry]}).records("train")
    for path in ("../secret.nii.gz", "/secret.nii.gz"):
        with pytest.raises(DatasetError, match="leaves the folder"):
            _btcv(tmp_path / "b", {"training": [{**entry, "image": path}]}).records("train")
    with pytest.raises(DatasetError, match="'label'"):
        _btcv(tmp_path / "c", {"training": [{"image": "x.nii"}]}).records("train")
    files = tuple(entry.values())
    with pytest.raises(DatasetError, match="claims the id"):
        _btcv(tmp_path / "d", {"training": [entry], "validation": [entry]}, files=files).records("train")
    with pytest.raises(DatasetError, match="no case to train on"):
        _btcv(tmp_path / "e", {"training": []}).records("train")
    good = _btcv(tmp_path / "f", {"training": [entry]}, files=files)
    assert [record.id for record in good.records("train")] == ["img0001"]
    assert good.records("test") == ()
    with pytest.raises(ValueError, match="nearest: 'train'"):
        good.records("training")


def test_files_that_do_not_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    entry = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
    dataset = _btcv(tmp_path, {"training": [entry]}, files=tuple(entry.values()))
    moved = np.eye(4)
    moved[0, 3] = 1.5
    write_volume(tmp_path / entry["label"], np.zeros((4, 4, 4), np.uint8), moved)
    with pytest.raises(DatasetError, match=r"lies elsewhere than a.nii.gz: affines differ by 1.5"):
        dataset.records("train")
    write_volume(tmp_path / entry["label"], np.zeros((4, 4, 5), np.uint8), np.eye(4))
    with pytest.raises(DatasetError, match=r"has \(4, 4, 5\) voxels"):
        Btcv(root=tmp_path).records("train")
    write_volume(tmp_path / entry["label"], np.full((4, 4, 4), 77, np.uint8), np.eye(4))
    odd = Btcv(root=tmp_path)
    with pytest.raises(DatasetError, match=r"holds the codes \[77\]"):
        odd.read(odd.records("train")[0])


def test_brats_cases_of_both_years(tmp_path: Path) -> None:
    def write(case: str, *names: str) -> None:
        (tmp_path / case).mkdir()
        for name in names:
            write_volume(tmp_path / case / name, np.zeros((4, 4, 4), np.uint8), np.eye(4))

    modalities = ("flair", "t1", "t1ce", "t2")
    write("BraTS2021_00000", *(f"BraTS2021_00000_{name}.nii.gz" for name in (*modalities, "seg")))
    # As it lies in the archive of 2020: the segmentation of this case was never renamed.
    write("BraTS20_Training_355", *(f"BraTS20_Training_355_{n}.nii" for n in modalities), "W39_1998.09.19_Segm.nii")
    dataset = Brats(root=tmp_path)
    assert [record.id for record in dataset.records("train")] == ["BraTS2021_00000", "BraTS20_Training_355"]
    labels = dataset.records("train")[1].labels
    assert labels is not None
    assert labels.name == "W39_1998.09.19_Segm.nii"
    assert [path.name.split("_")[-1] for path in dataset.records("train")[0].images] == [
        f"{name}.nii.gz" for name in modalities
    ]
    write("BraTS2021_00002", *(f"BraTS2021_00002_{name}.nii.gz" for name in ("flair", "t1", "seg")))
    with pytest.raises(DatasetError, match=r"lacks BraTS2021_00002_t1ce.nii\[.gz\], BraTS2021_00002_t2"):
        Brats(root=tmp_path).records("train")
    with pytest.raises(DatasetError, match="lacks"):
        dataset.find(str(tmp_path))
    assert [record.id for record in dataset.find(str(tmp_path / "BraTS2021_00000"))] == ["BraTS2021_00000"]


def test_regions_are_the_challenges_and_codes_come_back() -> None:
    codes = torch.tensor([[[0, 1, 2, 4]]], dtype=torch.uint8)
    whole, core, enhancing = Brats.label_map.encode(codes)
    assert whole.flatten().tolist() == [0, 1, 1, 1]
    assert core.flatten().tolist() == [0, 1, 0, 1]
    assert enhancing.flatten().tolist() == [0, 0, 0, 1]
    assert torch.equal(Brats.label_map.decode(torch.stack([whole, core, enhancing])), codes)
    organs = torch.arange(14, dtype=torch.uint8).reshape(1, 2, 7)
    assert torch.equal(Btcv.label_map.decode(Btcv.label_map.encode(organs)), organs)
    with pytest.raises(ValueError, match="share a code"):
        LabelMap(mode="multiclass", names=("a", "b"), codes=((0,), (0, 1)))
