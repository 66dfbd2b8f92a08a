"""From a case to patches: geometry by hand, balanced draws, caches named by content, order and resume."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neurotrain.data import PlannedLoader, VolumeDataModule
from neurotrain.data.datasets import DatasetError
from neurotrain.data.volumes import (
    Geometry,
    LabelMap,
    RandomVolumePatch,
    SyntheticBrats,
    SyntheticBtcv,
    Volume,
    VolumeCache,
    VolumeCase,
    VolumeDataset,
    VolumePreparation,
)

ORGAN = LabelMap(mode="multiclass", names=("background", "organ", "absent"), codes=((0,), (1,), (2,)))


def volume(image: Tensor, labels: Tensor | None = None, spacing: tuple[float, float, float] = (1, 1, 1)) -> Volume:
    shape = (image.shape[1], image.shape[2], image.shape[3])
    affine = tuple(tuple(row) for row in np.diag([*spacing, 1.0]).tolist())
    geometry = Geometry(shape=shape, affine=affine, orientation=((0, 1), (1, 1), (2, 1)))
    return Volume(image=image, labels=labels, geometry=geometry)


def test_crop_resample_and_window_by_hand() -> None:
    image = torch.full((1, 8, 6, 4), -1000.0)
    image[:, 2:6, 1:5] = 37.5
    labels = torch.zeros(8, 6, 4, dtype=torch.uint8)
    labels[2:4, 1:5] = 1
    preparation = VolumePreparation(
        spacing=(2.0, 1.0, 4.0), window=(-175.0, 250.0), normalize="window", body_above=-175.0, crop=True
    )
    case = preparation(volume(image, labels, spacing=(1.0, 1.0, 3.0)), ORGAN)
    assert case.box.tolist() == [[2, 1, 0], [6, 5, 4]]
    assert case.image.shape == (1, 2, 4, 3)  # 4 x 1 mm at 2, 4 x 1 mm at 1, 4 x 3 mm at 4
    torch.testing.assert_close(case.image, torch.full((1, 2, 4, 3), 0.5))
    assert case.mask is not None
    assert case.mask.tolist() == [[[1] * 3] * 4, [[0] * 3] * 4]
    assert case.spacing.tolist() == [[1.0, 1.0, 3.0], [2.0, 1.0, 4.0]]
    assert torch.equal(case.reference, labels)  # type: ignore[arg-type]
    assert case.centres.shape[0] == 1  # one class is there, the other is not
    assert (case.mask[tuple(case.centres[0].long().T)] == 1).all()


def test_zscore_is_of_the_body_alone() -> None:
    image = torch.zeros(2, 4, 4, 4)
    image[:, 1:3] = torch.rand(2, 2, 4, 4) * 100 + 1
    case = VolumePreparation(body_above=0.0)(volume(image), ORGAN)
    inside = case.image[:, 1:3].flatten(1).double()
    torch.testing.assert_close(inside.mean(1), torch.zeros(2, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(inside.std(1, correction=0), torch.ones(2, dtype=torch.float64), atol=1e-5, rtol=0)
    assert not case.image[:, 0].any()
    with pytest.raises(ValueError, match="body_above"):
        VolumePreparation(body_above=1000.0)(volume(image), ORGAN)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing"),
        ({"window": (2.0, 1.0), "normalize": "window"}, "less than the second"),
        ({"normalize": "window"}, "needs window"),
        ({"crop": True}, "no effect"),
        ({"window": (0.0, 1.0), "normalize": "window", "body_above": 0.0}, "no effect"),
    ],
)
def test_preparations_without_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VolumePreparation(**settings)


def case_of(size: tuple[int, int, int], *, spacing: tuple[float, float, float] = (1, 1, 1)) -> VolumeCase:
    """A ramp along every axis, so that a value tells its place; class 1 in one corner only."""
    axes = [torch.arange(length, dtype=torch.float32) for length in size]
    image = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    mask = torch.zeros(size, dtype=torch.uint8)
    mask[-2:, -2:, -2:] = 1
    centres = mask.nonzero().int()[None]
    return {
        "image": image,
        "mask": mask,
        "centres": centres,
        "spacing": torch.tensor(spacing, dtype=torch.float64),
        "id": "a",
        "source": "toy",
    }


def test_patches_are_cut_where_they_say_and_balanced_by_class() -> None:
    case, generator = case_of((20, 18, 16)), torch.Generator().manual_seed(0)
    with_class = 0
    crop = RandomVolumePatch(size=(8, 6, 4), foreground_share=0.5, affine_probability=0.0)
    for _ in range(400):
        patch = crop(case, generator)
        first = patch["image"][:, 0, 0, 0]
        expected = first.view(3, 1, 1, 1) + torch.stack(
            torch.meshgrid(*(torch.arange(n).float() for n in (8, 6, 4)), indexing="ij")
        )
        assert torch.equal(patch["image"], expected)
        x, y, z = first.long().tolist()
        assert torch.equal(patch["mask"], case["mask"][x : x + 8, y : y + 6, z : z + 4].long())
        assert patch["valid"].all()
        with_class += int(patch["mask"].any())
    # Half of them by the share; of the others about 1 in 13 * 13 * 13 by chance.
    assert 160 <= with_class <= 250


def test_patches_larger_than_the_volume_lie_around_it() -> None:
    patch = RandomVolumePatch(size=(8, 8, 8), affine_probability=0.0)(case_of((4, 8, 5)), torch.Generator())
    assert int(patch["valid"].sum()) == 4 * 8 * 5
    assert patch["valid"][2:6, :, 1:6].all()
    assert not patch["image"][:, ~patch["valid"]].any()


def test_turned_patches_keep_millimetres() -> None:
    # 90 degrees about the last axis swaps millimetres along the first two, not voxels.
    case = case_of((40, 20, 4), spacing=(1.0, 2.0, 5.0))
    still = RandomVolumePatch(size=(8, 8, 4), affine_probability=1.0, rotate=0.0, scale=(1.0, 1.0))
    plain = RandomVolumePatch(size=(8, 8, 4), affine_probability=0.0)
    for seed in range(8):
        one, other = (way(case, torch.Generator().manual_seed(seed)) for way in (still, plain))
        torch.testing.assert_close(one["image"], other["image"], atol=1e-4, rtol=0)
        assert torch.equal(one["mask"], other["mask"])
    turned = RandomVolumePatch(size=(8, 8, 4), affine_probability=1.0, rotate=40.0, scale=(1.0, 1.0))
    patch = turned(case, torch.Generator().manual_seed(3))
    steps = torch.stack(
        [
            patch["image"][:, 4, 4, 2] - patch["image"][:, 3, 4, 2],
            patch["image"][:, 4, 4, 2] - patch["image"][:, 4, 3, 2],
        ]
    )
    lengths = (steps * torch.tensor([1.0, 2.0, 5.0])).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 2.0]), atol=1e-3, rtol=0)


@pytest.fixture(scope="module")
def organs(tmp_path_factory: pytest.TempPathFactory) -> SyntheticBtcv:
    return SyntheticBtcv(root=tmp_path_factory.mktemp("organs"), train=3, test=1, size=(24, 20, 16))


def test_caches_are_named_by_content_and_settings(organs: SyntheticBtcv, tmp_path: Path) -> None:
    record = organs.records("train")[0]
    cache = VolumeCache(folder=tmp_path, dataset=organs, preparation=VolumePreparation())
    first = cache.open(record, labelled=True)
    folders = {path.name for path in tmp_path.iterdir()}
    again = VolumeCache(folder=tmp_path, dataset=organs, preparation=VolumePreparation()).open(record, labelled=True)
    assert torch.equal(first.image, again.image)
    assert {path.name for path in tmp_path.iterdir()} == folders
    first.image.zero_()  # of a copy: nothing reaches the file
    assert cache.open(record, labelled=True).image.any()
    other = VolumeCache(folder=tmp_path, dataset=organs, preparation=VolumePreparation(spacing=(8.0, 8.0, 8.0)))
    keys = {cache.key(record, labelled=True), cache.key(record, labelled=False), other.key(record, labelled=True)}
    assert len(keys) == 3
    folder = tmp_path / f"{record.id}-{cache.key(record, labelled=True)}"
    (folder / "image.npy").write_bytes((folder / "image.npy").read_bytes()[:200])
    with pytest.raises(DatasetError, match="damaged cache, remove it"):
        cache.open(record, labelled=True)


def test_a_changed_file_is_prepared_anew(organs: SyntheticBtcv, tmp_path: Path) -> None:
    record = organs.records("train")[0]
    before = VolumeCache(folder=tmp_path, dataset=organs, preparation=VolumePreparation()).key(record, labelled=True)
    content = record.images[0].read_bytes()
    try:
        record.images[0].write_bytes(content + b"\0")
        os.utime(record.images[0], ns=(1, 1))
        after = VolumeCache(folder=tmp_path, dataset=organs, preparation=VolumePreparation())
        assert after.key(record, labelled=True) != before
    finally:
        record.images[0].write_bytes(content)


def module(dataset: VolumeDataset, folder: Path, **settings: object) -> VolumeDataModule:
    return VolumeDataModule(
        **{  # type: ignore[arg-type]
            "dataset": dataset,
            "preparation": VolumePreparation(),
            "train_transform": RandomVolumePatch(size=(8, 8, 8)),
            "cache_dir": folder,
            "samples_per_epoch": 8,
            "validation": 1,
            **settings,
        }
    )


def test_batches_are_a_function_of_the_seed_and_resume_in_the_middle(organs: SyntheticBtcv, tmp_path: Path) -> None:
    def read(workers: int = 0) -> tuple[VolumeDataModule, PlannedLoader]:
        data = module(organs, tmp_path, num_workers=workers, start_method="fork" if workers else "auto")
        data.setup("fit")
        loader = data.train_dataloader()
        assert isinstance(loader, PlannedLoader)
        return data, loader

    data, loader = read()
    batches = list(loader)
    assert len(batches) == 4
    forked, other = read(workers=1)
    for one, two in zip(batches, other, strict=True):
        assert one["id"] == two["id"]
        assert torch.equal(one["image"], two["image"])
        assert torch.equal(one["mask"], two["mask"])
    forked.teardown("fit")
    _, started = read()
    iterator = iter(started)
    next(iterator)
    state = started.state_dict()
    _, resumed = read()
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(rest) == 3
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(rest, batches[1:], strict=True))
    assert data.summary()["counts"] == {"train": 2, "validation": 1}
    assert data.summary()["synthetic"] is True


def test_evaluation_reads_whole_cases_with_their_reference(tmp_path: Path) -> None:
    tumours = SyntheticBrats(root=tmp_path / "data", train=2, test=1, size=(24, 20, 16))
    data = module(tumours, tmp_path / "cache", preparation=VolumePreparation(body_above=0.0, crop=True))
    data.setup("test")
    (batch,) = list(data.test_dataloader())
    case = tumours.read(tumours.records("test")[0])
    assert case.labels is not None
    assert torch.equal(batch["reference"][0], tumours.label_map.encode(case.labels))
    assert batch["size"].tolist() == [[24, 20, 16]]
    assert tuple(batch["image"].shape[2:]) == tuple((batch["box"][0, 1] - batch["box"][0, 0]).tolist())
    assert batch["spacing"][0].tolist() == pytest.approx(list(case.geometry.spacing))
    data.setup("predict")
    (unlabelled,) = list(data.predict_dataloader())
    assert "reference" not in unlabelled
    assert torch.equal(unlabelled["image"], batch["image"])
