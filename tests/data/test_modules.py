"""The data module: splits, loaders, what it tells, what it refuses."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from toy_dataset import Toy

from neurotrain.batch import SegmentationBatch
from neurotrain.data import SegmentationDataModule
from neurotrain.data.datasets import Drive
from neurotrain.data.transforms import Compose, Identity, NormalizeInside, RandomColor, RandomNoise, RandomPatch

lightning_may_warn = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)

Children = Callable[[], list[BaseProcess]]


def module(dataset: Any = None, **settings: Any) -> SegmentationDataModule:
    settings = {
        "train_transform": RandomPatch(size=16),
        "eval_transform": Identity(),
        "prepare": NormalizeInside(),
        "batch_size": 2,
        **settings,
    }
    return SegmentationDataModule(dataset=dataset or Toy(), **settings)


def ids(batches: Any) -> list[str]:
    return [name for batch in batches for name in batch["id"]]


def names(data: SegmentationDataModule, split: Any) -> list[str]:
    return [record.id for record in data.records(split)]


def test_works_alone() -> None:
    data = module(samples_per_epoch=8, validation=2)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 4
    assert all(batch["image"].shape == (2, 3, 16, 16) for batch in batches)
    assert set(ids(batches)) == set(names(data, "train"))
    validation = data.val_dataloader()
    assert not isinstance(validation, list)
    assert ids(validation) == names(data, "validation")
    assert next(iter(validation))["image"].shape == (1, 3, 40, 36)
    data.setup("test")
    assert ids(data.test_dataloader()) == ["test0", "test1", "test2"]


def test_validation_comes_out_of_the_training_split_only() -> None:
    data = module(validation=2, seed=1)
    train, validation = names(data, "train"), names(data, "validation")
    assert sorted(train + validation) == [f"train{number}" for number in range(6)]
    assert len(validation) == 2
    assert names(data, "test") == ["test0", "test1", "test2"]
    assert names(module(validation=2, seed=1), "validation") == validation
    assert any(names(module(validation=2, seed=seed), "validation") != validation for seed in range(2, 6))


def test_folds_hold_each_record_out_once_and_keep_subjects_together() -> None:
    folds = [module(Toy(train=6, groups=3), folds=3, fold=fold) for fold in range(3)]
    held = [names(data, "validation") for data in folds]
    assert sorted(itertools.chain(*held)) == [f"train{number}" for number in range(6)]
    assert all(set(names(data, "train")).isdisjoint(out) for data, out in zip(folds, held, strict=True))
    assert all(int(first[-1]) % 3 == int(second[-1]) % 3 for first, second in held)


def test_without_validation_there_is_no_validation_loader() -> None:
    data = module()
    assert data.val_dataloader() == []
    assert len(data.records("train")) == 6


def test_workers_change_nothing_and_read_what_was_decoded_before_them(children: Children) -> None:
    plain, toy = module(samples_per_epoch=12), Toy()
    forked = module(toy, samples_per_epoch=12, num_workers=2)
    loader = forked.train_dataloader()
    assert toy.reads == [f"train{number}" for number in range(6)]
    for epoch in range(2):
        expected = plain.train_dataloader()
        expected.set_epoch(epoch)
        loader.set_epoch(epoch)
        for ours, theirs in zip(loader, expected, strict=True):
            assert ours["id"] == theirs["id"]
            assert torch.equal(ours["image"], theirs["image"])
    forked.teardown("fit")
    assert not children()


def test_test_images_are_not_kept() -> None:
    toy = Toy()
    data = module(toy)
    loader = data.test_dataloader()
    assert len(ids(loader)) + len(ids(loader)) == len(toy.reads) == 6


def test_summary_is_plain_and_complete() -> None:
    data = module(validation=2, samples_per_epoch=7)
    summary = data.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert {name: summary[name] for name in ("name", "synthetic", "samples_per_epoch", "dropped_per_epoch")} == {
        "name": "toy",
        "synthetic": True,
        "samples_per_epoch": 7,
        "dropped_per_epoch": 1,
    }
    assert summary["counts"] == {"train": 4, "validation": 2, "test": 3}
    assert {split: len(found) for split, found in summary["ids"].items()} == summary["counts"]
    assert summary["fingerprint"] == data.dataset.fingerprint()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": -1}, "validation=-1"),
        ({"validation": 2, "folds": 3}, "validation=2 and folds=3"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"eval_batch_size": 0}, "eval_batch_size=0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"fold": 1}, "fold=1 has no effect without folds"),
        ({"eval_transform": RandomPatch(size=4)}, "eval_transform=RandomPatch draws random numbers"),
        ({"prepare": RandomNoise()}, "prepare=RandomNoise draws"),
    ],
)
def test_refuses_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 6}, "count=6"),
        ({"folds": 7}, "folds=7"),
        ({"folds": 3, "fold": 3}, "fold=3"),
        ({"batch_size": 7}, "batch_size=7 on 1 rank.*needs 7 samples per epoch, there are 6"),
        ({"batch_size": 4, "samples_per_epoch": 3}, "needs 4 samples per epoch, there are 3"),
    ],
)
def test_refuses_settings_that_the_data_cannot_meet(settings: dict[str, Any], message: str) -> None:
    data = module(**settings)
    with pytest.raises(ValueError, match=message):
        data.setup("fit")


class Seen(LightningModule):
    def __init__(self, broken_validation: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_ids: list[list[str]] = []
        self.pixels: list[float] = []
        self.eval_ids: list[str] = []
        self.broken_validation = broken_validation

    def training_step(self, batch: SegmentationBatch, batch_idx: int) -> Tensor:
        self.train_ids.append(batch["id"])
        self.pixels.append(float(batch["image"].sum()))
        return self.weight * 1

    def validation_step(self, batch: SegmentationBatch, batch_idx: int) -> None:
        if self.broken_validation and not self.trainer.sanity_checking:
            raise ArithmeticError("validation failed")
        self.eval_ids += batch["id"]

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Stop(Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise InterruptedError


def trainer(folder: Path, **settings: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        **settings,
    )


@lightning_may_warn
@pytest.mark.parametrize(("steps", "workers"), [(2, (0, 0)), (3, (2, 0)), (5, (0, 2))])
def test_resumed_training_sees_the_same_pixels(
    steps: int, workers: tuple[int, int], tmp_path: Path, children: Children
) -> None:
    settings = {
        "samples_per_epoch": 7,
        "validation": 1,
        "train_transform": Compose(steps={"patch": RandomPatch(size=8), "color": RandomColor()}),
    }
    whole, first, second = Seen(), Seen(), Seen()
    trainer(tmp_path, max_epochs=3).fit(whole, datamodule=module(**settings))
    stop = Stop(steps, tmp_path / "stopped.ckpt")
    with pytest.raises(InterruptedError):
        trainer(tmp_path, max_epochs=3, callbacks=[stop]).fit(
            first, datamodule=module(**settings, num_workers=workers[0])
        )
    resumed = trainer(tmp_path, max_epochs=3)
    data = module(**settings, num_workers=workers[1])
    resumed.fit(second, datamodule=data, ckpt_path=tmp_path / "stopped.ckpt", weights_only=True)
    assert len(whole.train_ids) == 9
    assert first.train_ids + second.train_ids == whole.train_ids
    assert first.pixels + second.pixels == whole.pixels
    assert not children()


@lightning_may_warn
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("plan", {"samples_per_epoch": 5}),
        ("train", {"seed": 1}),
        ("train", {"dataset": Toy(train=5)}),
        ("global_batch", {"batch_size": 3}),
    ],
)
def test_refuses_to_resume_on_other_data_even_at_the_end_of_an_epoch(
    name: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    one = trainer(tmp_path, max_epochs=1)
    one.fit(Seen(), datamodule=module(validation=2))
    one.save_checkpoint(tmp_path / "one.ckpt")
    other = module(**{"validation": 2, **changes})
    with pytest.raises(ValueError, match=f"cannot resume: .* {name}=.* {name}="):
        trainer(tmp_path, max_epochs=2).fit(
            Seen(), datamodule=other, ckpt_path=tmp_path / "one.ckpt", weights_only=True
        )
    tested = Seen()
    trainer(tmp_path).test(tested, datamodule=other, ckpt_path=tmp_path / "one.ckpt", weights_only=True, verbose=False)
    assert tested.eval_ids == ["test0", "test1", "test2"]


@lightning_may_warn
def test_no_worker_outlives_a_failure(tmp_path: Path, children: Children) -> None:
    data = module(samples_per_epoch=8, validation=1, num_workers=2)
    with pytest.raises(ArithmeticError):
        trainer(tmp_path, max_epochs=2).fit(Seen(broken_validation=True), datamodule=data)
    assert not children()


@lightning_may_warn
def test_overfitting_repeats_the_same_batches(tmp_path: Path) -> None:
    seen = Seen()
    trainer(tmp_path, max_epochs=2, overfit_batches=2).fit(seen, datamodule=module())
    assert seen.train_ids == [["train0", "train1"], ["train2", "train3"]] * 2


def test_ranks_share_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ids(module(batch_size=4, samples_per_epoch=8).train_dataloader())
    shares = []
    for rank in range(2):
        data = module(batch_size=2, samples_per_epoch=8)
        data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=False)
        monkeypatch.setattr(type(data.trainer.strategy), "root_device", torch.device("cpu"))
        monkeypatch.setattr(Trainer, "world_size", 2)
        monkeypatch.setattr(Trainer, "global_rank", rank)
        shares.append(ids(data.train_dataloader()))
        assert data.summary()["dropped_per_epoch"] == 0
    together = [name for pair in zip(*shares, strict=True) for name in pair]
    assert together == whole


def test_reads_drive(shared_data: Path) -> None:
    data = module(Drive(root=shared_data / "DRIVE"), validation=4, train_transform=RandomPatch(size=64), batch_size=2)
    data.setup("fit")
    assert {split: len(data.records(split)) for split in ("train", "validation")} == {"train": 16, "validation": 4}
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (2, 3, 64, 64)
    assert batch["mask"].unique().tolist() == [0, 1]
    assert 0.01 < batch["mask"].float().mean() < 0.4
    validation = data.val_dataloader()
    assert not isinstance(validation, list)
    image = next(iter(validation))
    assert image["image"].shape == (1, 3, 584, 565)
    inside = image["image"][0][:, image["valid"][0]]
    torch.testing.assert_close(inside.mean(1), torch.zeros(3), atol=1e-3, rtol=0)
    assert not image["image"][0][:, ~image["valid"][0]].any()
