"""Data modules through the stages of a run: what is there, what is counted, what is written down when a run fails."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor
from toy_dataset import Toy

from neurotrain.data import LocalDataModule, MixtureDataModule, SegmentationDataModule, SourceDataModule
from neurotrain.data.datasets.base import SegmentationDataset
from neurotrain.data.decoders import ImageDecoder
from neurotrain.data.engine import Quarantine, TooManyBadSamplesError
from neurotrain.data.inspection import preview, stats, verify
from neurotrain.data.mixture import Explicit, Scheduled, Uniform
from neurotrain.data.parts import SampleError, owned
from neurotrain.data.sources import FolderSource, SourceError
from neurotrain.data.transforms import Identity
from neurotrain.storage import CachedStorage, LocalStorage

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def _png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (level, 0, 0)).save(file, format="PNG")
    return file.getvalue()


def _source(root: Path, name: str, count: int, *, broken: int = 0) -> FolderSource:
    storage = LocalStorage(root=root / name)
    for number in range(count):
        storage.write(f"{name}{number:02d}.png", b"broken" if number < broken else _png(number))
    return FolderSource(name=name, storage=storage)


def _module(root: Path, name: str = "a", count: int = 12, *, broken: int = 0, **settings: Any) -> LocalDataModule:
    return LocalDataModule(train=_source(root, name, count, broken=broken), decoder=ImageDecoder(), **settings)


def _mixture(root: Path, **settings: Any) -> MixtureDataModule:
    members = {name: _module(root, name, 12) for name in ("a", "b")}
    return MixtureDataModule(sources=members, **{"weights": Uniform(), "batch_size": 4, **settings})


class Seen(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs: dict[int, list[str]] = {}
        self.sources: list[list[str]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.epochs.setdefault(self.current_epoch, []).extend(batch["id"])
        self.sources.append(batch["source"])
        return self.weight * 1

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass

    validation_step = predict_step = test_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **settings,
    )


def test_telemetry_of_a_mixture_names_its_sources_and_their_targets(tmp_path: Path) -> None:
    module = _mixture(tmp_path, weights=Explicit(weights={"a": 1, "b": 3}))
    loader = module.train_dataloader()
    for batch, _, _ in loader:
        assert len(batch["id"]) == 4
    told = loader.loader.telemetry()
    assert told["share"] == {"a": 0.25, "b": 0.75}
    assert told["target"] == pytest.approx({"a": 0.25, "b": 0.75})


def test_images_to_predict_need_nothing_else(tmp_path: Path) -> None:
    module = _module(tmp_path, predict=_source(tmp_path, "new", 3), test=_source(tmp_path, "old", 2))
    module.setup("predict")
    assert [batch["source"] for batch in cast("Any", module.predict_dataloader())] == [["new"]] * 3


def test_the_list_of_bad_samples_is_whole_when_they_end_the_run(tmp_path: Path) -> None:
    module = _module(tmp_path, broken=4, batch_size=2, quarantine=Quarantine(max_bad_share=0.1))
    run = tmp_path / "run"
    with pytest.raises(TooManyBadSamplesError):
        _trainer(run, max_epochs=1).fit(Seen(), datamodule=module)
    lines = (run / "quarantine.jsonl").read_text().splitlines()
    assert len(lines) >= 2
    assert all(json.loads(line)["source"] == "a" for line in lines)


def test_overfitting_a_mixture_sees_the_same_batches_in_every_epoch(tmp_path: Path) -> None:
    model = Seen()
    _trainer(tmp_path, max_epochs=3, overfit_batches=2).fit(model, datamodule=_mixture(tmp_path))
    assert len(model.epochs[0]) == 8
    assert model.epochs[1] == model.epochs[0] == model.epochs[2]


def test_a_cache_in_front_of_a_storage_does_not_change_its_kind(tmp_path: Path) -> None:
    inner = _source(tmp_path, "a", 2).storage
    assert inner is not None
    cached = CachedStorage(storage=inner, folder=tmp_path / "cache", max_bytes=1 << 20)
    module = LocalDataModule(train=FolderSource(name="a", storage=cached), decoder=ImageDecoder(), batch_size=2)
    module.setup("fit")
    assert len(list(cast("Any", module.train_dataloader()))) == 1


def test_a_preview_of_a_mixture_shows_all_its_sources(tmp_path: Path) -> None:
    names = preview(_mixture(tmp_path), tmp_path / "preview.png", count=8)
    assert {name.split("/")[0] for name in names} == {"a", "b"}
    assert Image.open(tmp_path / "preview.png").size[0] > 8
    with pytest.raises(ValueError, match="count=0"):
        preview(_mixture(tmp_path), tmp_path / "preview.png", count=0)


class TrainingOnly(Toy):
    @property
    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def records(self, split: str) -> Any:
        if split == "test":
            raise ValueError("toy has no split test")
        return super().records(split)


class TestOnly(Toy):
    __test__ = False

    @property
    def splits(self) -> tuple[str, ...]:
        return ("test",)

    def records(self, split: str) -> Any:
        if split == "train":
            raise ValueError("toy has no split train")
        return super().records(split)


def test_a_dataset_without_its_training_split_can_be_tested_and_told_of() -> None:
    data = _segmentation(TestOnly())
    data.setup("test")
    assert data.summary()["counts"] == {"test": 3}


def test_a_named_dataset_tells_what_was_read(tmp_path: Path) -> None:
    class Broken(Toy):
        def read(self, record: Any) -> Any:
            if record.id == "train2":
                raise OSError("cannot be decoded")
            return super().read(record)

    data = SegmentationDataModule(
        dataset=Broken(),
        train_transform=Identity(),
        eval_transform=Identity(),
        batch_size=2,
        quarantine=Quarantine(max_bad_share=0.5),
    )
    _trainer(tmp_path, max_epochs=1).fit(Seen(), datamodule=data)
    statistics = data.summary()["statistics"]
    assert (statistics["read"], statistics["replaced"]) == (5, 1)


def _segmentation(dataset: SegmentationDataset) -> SegmentationDataModule:
    return SegmentationDataModule(dataset=dataset, train_transform=Identity(), eval_transform=Identity())


def test_a_mixture_is_tested_on_the_members_that_can_be() -> None:
    alone = MixtureDataModule(sources={"toy": _segmentation(TrainingOnly())}, batch_size=2)
    assert not alone.has_test_split
    assert alone.summary()["counts"] == {"train": 6}
    assert alone.test_dataloader() == []
    both = MixtureDataModule(sources={"toy": _segmentation(Toy())}, batch_size=2)
    assert both.has_test_split
    assert both.summary()["counts"] == {"train": 6, "test": 3}


@pytest.mark.parametrize("stage", ["test", "predict", "validate"])
def test_a_summary_after_a_stage_tells_of_what_that_stage_needs(stage: str, tmp_path: Path) -> None:
    absent = FolderSource(name="absent", storage=LocalStorage(root=tmp_path / "nowhere"))
    there = _source(tmp_path, "there", 3)
    split = {"validate": "validation"}.get(stage, stage)
    module = SourceDataModule(train=absent, decoder=ImageDecoder(), **{split: there})
    mixture = MixtureDataModule(
        sources={"absent": SourceDataModule(train=absent, decoder=ImageDecoder(), **{split: there})}
    )
    for data in (module, mixture):
        data.setup(stage)
        summary = data.summary()
        assert summary["counts"] == {split: 3}
        assert summary["fingerprint"] == there.fingerprint()
        assert json.loads(json.dumps(summary)) == summary
    with pytest.raises((SourceError, OSError, ValueError)):
        module.setup("fit")


class Save(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def test_counts_of_a_run_are_those_of_all_its_epochs(tmp_path: Path) -> None:
    made = [_module(tmp_path, batch_size=4) for _ in range(3)]
    reloading = {"reload_dataloaders_every_n_epochs": 1}
    _trainer(tmp_path, Save(tmp_path / "end.ckpt"), max_epochs=3).fit(Seen(), datamodule=made[0])
    _trainer(tmp_path, max_epochs=3, **reloading).fit(Seen(), datamodule=made[1])
    _trainer(tmp_path, max_epochs=3).fit(
        Seen(), datamodule=made[2], ckpt_path=str(tmp_path / "end.ckpt"), weights_only=True
    )
    counts = [module.summary()["statistics"] for module in made]
    assert counts[0] == {"read": 36, "replaced": 0, "skipped": 0, "retried": 0, "batches": 9, "planned": 36}
    assert counts[1] == counts[0]
    assert counts[2] == counts[0]
    _trainer(tmp_path, max_epochs=1).fit(Seen(), datamodule=made[0])
    assert made[0].summary()["statistics"]["batches"] == 3


@pytest.mark.parametrize("limit", [3, 0.5])
def test_weights_by_optimizer_step_count_the_steps_of_a_limited_epoch(limit: float, tmp_path: Path) -> None:
    weights = Scheduled(
        start=Explicit(weights={"a": 1, "b": 0}), end=Explicit(weights={"a": 0, "b": 1}), first_step=2, last_step=3
    )
    model = Seen()
    _trainer(tmp_path, max_epochs=3, limit_train_batches=limit).fit(
        model, datamodule=_mixture(tmp_path, weights=weights)
    )
    assert model.sources == [["a"] * 4] * 3 + [["b"] * 4] * 6


class Odd(ImageDecoder):
    def __call__(self, raw: Any, generator: torch.Generator) -> Any:
        if raw.id.endswith("03.png") or raw.id.endswith("03"):
            raise SyntaxError("broken PNG file")
        return super().__call__(raw, generator)


def test_verification_lists_whatever_a_decoder_says(tmp_path: Path) -> None:
    module = LocalDataModule(train=_source(tmp_path, "a", 5), decoder=Odd(), batch_size=1)
    with pytest.raises(SampleError, match=r"sample 'a03.*' of a .*: broken PNG file"):
        stats(module, threads=1)
    (report,) = verify(module, threads=1)
    assert [one.reason for one in report.broken] == ["SyntaxError: broken PNG file"]


def test_what_is_kept_lies_in_memory_as_what_is_not() -> None:
    crop = torch.rand(9, 8, 3)[1:6, 2:7].permute(2, 0, 1)
    kept = owned({"image": crop})["image"]
    assert torch.equal(kept, crop)
    assert kept.untyped_storage().nbytes() == kept.nbytes
    assert kept.permute(1, 2, 0).is_contiguous()


class StopAt(Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise InterruptedError


def test_a_resumed_run_stops_with_the_whole_list_of_bad_samples(tmp_path: Path) -> None:
    def made() -> LocalDataModule:
        return _module(tmp_path, count=20, broken=4, batch_size=2, quarantine=Quarantine(max_bad_share=0.15))

    def listed(run: Path, *callbacks: Callback, **settings: Any) -> Iterator[str]:
        with pytest.raises((TooManyBadSamplesError, InterruptedError)) as caught:
            _trainer(run, *callbacks, max_epochs=1).fit(Seen(), datamodule=made(), weights_only=True, **settings)
        if isinstance(caught.value, TooManyBadSamplesError):
            yield from (one.id for one in caught.value.bad)

    whole = list(listed(tmp_path / "whole"))
    assert len(whole) == 4
    last = max(
        json.loads(line)["step"] for line in (tmp_path / "whole" / "quarantine.rank0.jsonl").read_text().splitlines()
    )
    stopped = tmp_path / "stopped"
    assert not list(listed(stopped, StopAt(last, tmp_path / "stop.ckpt")))
    assert list(listed(stopped, ckpt_path=str(tmp_path / "stop.ckpt"))) == whole
