"""Mixtures of data modules: shares, membership, shapes, evaluation."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neurotrain.data import (
    BalancedBy,
    InTableOrder,
    LocalDataModule,
    Membership,
    MixtureDataModule,
    ParquetDataModule,
    SourceDataModule,
    WeightedBy,
)
from neurotrain.data.decoders import ClassificationDecoder, ImageDecoder, ImagePreparation, ImageTextDecoder
from neurotrain.data.mixture import Explicit, Quotas, Uniform
from neurotrain.data.sources import CocoCaptions, FolderSource, ParquetSource, TableSource
from neurotrain.storage import LocalStorage, MemoryStorage


def _png(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, format="PNG")
    return file.getvalue()


def _module(root: Path, name: str, count: int, **settings: Any) -> LocalDataModule:  # noqa: ANN401
    storage = LocalStorage(root=root / name)
    for number in range(count):
        storage.write(f"{name}{number:02d}.png", _png((8, 8)))
    return LocalDataModule(train=FolderSource(name=name, storage=storage), decoder=ImageDecoder(), **settings)


def _mixed_shapes(root: Path, name: str, sizes: list[tuple[int, int]]) -> LocalDataModule:
    storage = LocalStorage(root=root / name)
    for number, size in enumerate(sizes):
        storage.write(f"{name}{number:02d}.png", _png(size))
    preparation = ImagePreparation(resolution=16, aspect="buckets", aspect_buckets=(0.5, 1.0, 2.0), multiple=8)
    return LocalDataModule(
        train=FolderSource(name=name, storage=storage, dimensions=True), decoder=ImageDecoder(preparation=preparation)
    )


def _sources(batches: Iterable[Any]) -> list[list[str]]:
    return [batch["source"] for batch, _, _ in batches]


@pytest.fixture
def members(tmp_path: Path) -> Mapping[str, LocalDataModule]:
    return {name: _module(tmp_path, name, count) for name, count in {"a": 12, "b": 6}.items()}


def test_shares_follow_the_weights_in_every_batch(members: Mapping[str, SourceDataModule]) -> None:
    module = MixtureDataModule(
        sources=members, weights=Quotas(quotas={"a": 1, "b": 3}), batch_size=4, samples_per_epoch=40
    )
    module.setup("fit")
    assert [Counter(names) for names in _sources(module.train_dataloader())] == [Counter(a=1, b=3)] * 10


def test_by_size_where_nothing_is_said(members: Mapping[str, SourceDataModule]) -> None:
    module = MixtureDataModule(sources=members, batch_size=3)
    counts = Counter(name for names in _sources(module.train_dataloader()) for name in names)
    assert counts == Counter(a=12, b=6)


def test_a_source_is_dropped_when_it_is_exhausted(members: Mapping[str, SourceDataModule]) -> None:
    ways = {name: Membership(exhaustion="drop", order=InTableOrder()) for name in members}
    module = MixtureDataModule(sources=members, weights=Uniform(), members=ways, batch_size=2)
    batches = list(module.train_dataloader())
    counts = Counter(name for batch, _, _ in batches for name in batch["id"])
    assert set(counts.values()) == {1}
    assert len(counts) == 18
    assert all("b" not in names for names in _sources(batches)[6:])
    report = module.summary()["report"]
    assert set(report) == {"a", "b"}


def test_a_source_that_stops_ends_the_epoch(members: Mapping[str, SourceDataModule]) -> None:
    ways = {"b": Membership(exhaustion="stop", repeats=2)}
    module = MixtureDataModule(sources=members, weights=Uniform(), members=ways, batch_size=2)
    assert len(module.train_dataloader()) == 12


def test_a_source_that_comes_later_is_not_drawn_before(members: Mapping[str, SourceDataModule]) -> None:
    ways = {"b": Membership(start_step=3)}
    module = MixtureDataModule(sources=members, weights=Uniform(), members=ways, batch_size=2, samples_per_epoch=12)
    drawn = _sources(module.train_dataloader())
    assert all(names == ["a", "a"] for names in drawn[:3])
    assert all(sorted(names) == ["a", "b"] for names in drawn[3:])


def test_whole_batches_of_one_source(members: Mapping[str, SourceDataModule]) -> None:
    module = MixtureDataModule(
        sources=members, weights=Explicit(weights={"a": 1, "b": 1}), granularity="batch", batch_size=3
    )
    assert all(len(set(names)) == 1 for names in _sources(module.train_dataloader()))


def test_classes_are_balanced_by_a_column(shared_data: Path) -> None:
    storage = LocalStorage(root=shared_data / "CIFAR10")
    source = ParquetSource(name="cifar", storage=storage, files="test-*.parquet")
    member = ParquetDataModule(train=source, decoder=ClassificationDecoder())
    module = MixtureDataModule(
        sources={"cifar": member},
        members={"cifar": Membership(order=BalancedBy(column="label"))},
        batch_size=20,
        samples_per_epoch=60,
    )
    for batch, _, _ in module.train_dataloader():
        assert batch["label"].bincount(minlength=10).tolist() == [2] * 10


def test_samples_are_weighted_by_a_column() -> None:
    storage = MemoryStorage(name="weighted-members")
    rows = "\n".join(f"{number}.png,{weight}" for number, weight in enumerate((3.0, 1.0, 0.0, 0.0)))
    storage.write("list.csv", f"image,weight\n{rows}\n".encode())
    for number in range(4):
        storage.write(f"{number}.png", _png((4, 4)))
    source = TableSource(name="table", storage=storage, table="list.csv")
    module = MixtureDataModule(
        sources={"table": SourceDataModule(train=source, decoder=ImageDecoder())},
        members={"table": Membership(order=WeightedBy(column="weight"))},
        batch_size=4,
        samples_per_epoch=40,
    )
    counts = Counter(name.rpartition("/")[2][0] for batch, _, _ in module.train_dataloader() for name in batch["id"])
    assert counts == Counter({"0": 30, "1": 10})


def test_batches_of_real_photographs_have_one_shape_each(shared_data: Path) -> None:
    source = FolderSource(
        name="coco",
        storage=LocalStorage(root=shared_data / "COCO-MINI"),
        image="train2017",
        captions=CocoCaptions(annotations="annotations/captions_train2017.json"),
        dimensions=True,
    )
    preparation = ImagePreparation(resolution=64, aspect="buckets", aspect_buckets=(0.67, 1.0, 1.5), multiple=8)
    module = LocalDataModule(train=source, decoder=ImageTextDecoder(preparation=preparation), batch_size=4)
    shapes = Counter(tuple(batch["image"].shape[2:]) for batch in module.train_dataloader())
    assert len(shapes) == 3
    assert sum(shapes.values()) == 20


def test_shapes_need_sizes_in_the_index(tmp_path: Path) -> None:
    preparation = ImagePreparation(resolution=8, aspect="preserve")
    storage = LocalStorage(root=tmp_path)
    storage.write("a.png", _png((8, 8)))
    module = LocalDataModule(
        train=FolderSource(name="a", storage=storage), decoder=ImageDecoder(preparation=preparation), batch_size=1
    )
    with pytest.raises(ValueError, match=r"source 'a': .*\['width', 'height'\]: set dimensions=True"):
        module.setup("fit")


def test_evaluation_of_several_members_needs_different_ids(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    members = {
        name: LocalDataModule(
            train=FolderSource(name=name, storage=LocalStorage(root=tmp_path / "x")),
            test=FolderSource(name=name, storage=LocalStorage(root=tmp_path / "x")),
            decoder=ImageDecoder(),
        )
        for name in ("a", "b")
    }
    for number in range(3):
        LocalStorage(root=tmp_path / "x").write(f"{number}.png", _png((8, 8)))
    with pytest.raises(ValueError, match=r"test: 3 ids occur in more than one of \['a', 'b'\] .*evaluate="):
        MixtureDataModule(sources=members).setup("test")
    chosen = MixtureDataModule(sources=members, evaluate=["b"])
    chosen.setup("test")
    loader = chosen.test_dataloader()
    assert [name for batch in loader for name in batch["source"]] == ["b"] * 3  # pyright: ignore[reportCallIssue]


def test_refuses_names_that_do_not_match(members: Mapping[str, SourceDataModule]) -> None:
    with pytest.raises(ValueError, match=r"sources\.c: its source is named 'a'"):
        MixtureDataModule(sources={"c": members["a"]})
    with pytest.raises(ValueError, match=r"members=\['c'\]: \['c'\] are not among \['a', 'b'\]"):
        MixtureDataModule(sources=members, members={"c": Membership()})
    with pytest.raises(ValueError, match=r"evaluate=\['c'\]"):
        MixtureDataModule(sources=members, evaluate=["c"])
    with pytest.raises(ValueError, match="needs at least one"):
        MixtureDataModule(sources={})
    ways = {"a": Membership(order=WeightedBy(column="size_of_cat"))}
    module = MixtureDataModule(sources=members, members=ways)
    with pytest.raises(ValueError, match="column='size_of_cat': the source's table has"):
        module.setup("fit")


def test_refuses_a_source_of_another_kind(tmp_path: Path) -> None:
    source = FolderSource(name="a", storage=LocalStorage(root=tmp_path))
    with pytest.raises(TypeError, match="train=FolderSource: ParquetDataModule is for ParquetSource"):
        ParquetDataModule(train=source, decoder=ImageDecoder())
    with pytest.raises(TypeError, match=r"train\.storage=MemoryStorage: LocalDataModule is for LocalStorage"):
        LocalDataModule(train=FolderSource(name="a", storage=MemoryStorage(name="not-local")), decoder=ImageDecoder())


def test_held_out_entries_are_disjoint_and_subjects_stay_together(tmp_path: Path) -> None:
    module = _module(tmp_path, "a", 12, validation=4, batch_size=2, seed=3)
    module.setup("fit")
    train, held = module.training().parts[0], module.evaluation("validation").parts[0]
    names = [set(part.table()["id"].to_pylist()) for part in (train, held)]
    assert (len(names[0]), len(names[1])) == (8, 4)
    assert names[0].isdisjoint(names[1])
    folds = [_module(tmp_path, "a", 12, folds=3, fold=fold) for fold in range(3)]
    parts = [fold.evaluation("validation").parts[0].table()["id"].to_pylist() for fold in folds]
    assert sorted(name for part in parts for name in part) == sorted(names[0] | names[1])
    assert np.unique([len(part) for part in parts]).tolist() == [4]


def test_sources_of_several_shapes_mix_within_batches_of_one_shape(tmp_path: Path) -> None:
    square, wide, high = (16, 16), (32, 16), (16, 32)
    members = {
        "a": _mixed_shapes(tmp_path, "a", [square] * 4 + [wide] * 4),
        "b": _mixed_shapes(tmp_path, "b", [square] * 8),
        "c": _mixed_shapes(tmp_path, "c", [square] * 4 + [high] * 4),
    }
    module = MixtureDataModule(sources=members, weights=Uniform(), batch_size=4, samples_per_epoch=48)
    module.setup("fit")
    batches = [batch for batch, _, _ in module.train_dataloader()]
    assert Counter(name for batch in batches for name in batch["source"]) == Counter(a=16, b=16, c=16)
    shapes = [tuple(batch["image"].shape) for batch in batches]
    assert Counter(shapes) == {(4, 3, 16, 16): 8, (4, 3, 16, 32): 2, (4, 3, 32, 16): 2}
    several = [set(batch["source"]) for batch, shape in zip(batches, shapes, strict=True) if shape == (4, 3, 16, 16)]
    assert all(len(names) > 1 for names in several)
    assert set(module.summary()["report"]["a"]["shapes"]) == {"16x16", "16x32"}


def test_refuses_settings_of_members_that_would_have_no_effect(tmp_path: Path) -> None:
    member = _module(tmp_path, "a", 4, batch_size=2, num_workers=3, samples_per_epoch=7, seed=5)
    with pytest.raises(ValueError, match="no effect") as caught:
        MixtureDataModule(sources={"a": member}, batch_size=2)
    assert str(caught.value).splitlines() == [
        "sources.a.num_workers=3 has no effect: num_workers of the mixture (0) counts; leave it out",
        "sources.a.samples_per_epoch=7 has no effect: samples_per_epoch of the mixture (None) counts; leave it out",
        "sources.a.seed=5 has no effect: seed of the mixture (0) counts; leave it out",
    ]
    drawn = _module(tmp_path, "b", 4, validation=1, seed=5)  # which entries are held out is the seed's to say
    assert MixtureDataModule(sources={"b": drawn}).title == "b"


def test_the_report_tells_what_became_of_each_source(members: Mapping[str, SourceDataModule]) -> None:
    module = MixtureDataModule(
        sources=members, weights=Explicit(weights={"a": 3, "b": 1}), batch_size=4, samples_per_epoch=16
    )
    loader = module.train_dataloader().loader
    assert len(list(loader)) == 4
    rows = loader.sources_told()
    assert [(row["samples"], row["share"], row["target"]) for row in rows.values()] == [
        (12, 0.75, 0.75),
        (4, 0.25, 0.25),
    ]
    assert {row["order"] for row in rows.values()} == {"exact"}
