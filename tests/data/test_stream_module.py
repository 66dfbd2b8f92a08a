"""The data module of streamed sources: under a Trainer, killed and resumed, and over CIFAR-10 as configured."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import signal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from toy_stream import TOTAL, Numbers, stream, write_shards

from neurotrain.callbacks import DataReport
from neurotrain.data import MixtureDataModule, StreamDataModule
from neurotrain.data.engine import Quarantine
from neurotrain.data.sources import WebDatasetSource
from neurotrain.storage import LocalStorage

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


def module(folder: Path, **settings: Any) -> StreamDataModule:
    given = {"batch_size": 4, "samples_per_epoch": TOTAL, **settings}
    return StreamDataModule(train=stream(folder), decoder=Numbers(), **given)


class Seen(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[list[int]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.batches.append(batch["number"].tolist())
        return self.weight * 1

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Interruption(Callback):
    """Saves at one step and ends there: politely, or as a SIGKILL does."""

    def __init__(self, step: int, path: Path, *, kill: bool = False) -> None:
        self.step, self.path, self.kill = step, path, kill

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            torch.save(pl_module.batches, self.path.with_suffix(".seen"))
        if trainer.global_step == self.step + self.kill:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise InterruptedError


def fit(data: Any, root: Path, callback: Callback | None = None, resume: Path | None = None) -> list[list[int]]:
    model = Seen()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        max_epochs=2,
        default_root_dir=root,
        callbacks=[callback] if callback else [],
    )
    with contextlib.suppress(InterruptedError):
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    return model.batches


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[list[int]]]:
    root = tmp_path_factory.mktemp("whole")
    return {workers: fit(module(folder, num_workers=workers), root) for workers in (0, 2)}


@pytest.mark.parametrize(("step", "workers"), [(5, 2), (12, 2), (17, 0)])
def test_an_interrupted_run_sees_what_remains(
    folder: Path, tmp_path: Path, uninterrupted: dict[int, list[list[int]]], workers: int, step: int
) -> None:
    path = tmp_path / "interrupted.ckpt"
    validation = WebDatasetSource(name="held", storage=LocalStorage(root=folder), shards="0.tar")
    before = fit(module(folder, num_workers=workers, validation=validation), tmp_path, Interruption(step, path))
    data = module(folder, num_workers=workers, validation=validation)
    assert before + fit(data, tmp_path, resume=path) == uninterrupted[workers]
    assert data.statistics()["read"] == 2 * TOTAL
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_sees_what_remains(
    folder: Path, tmp_path: Path, uninterrupted: dict[int, list[list[int]]], workers: int
) -> None:
    path = tmp_path / "killed.ckpt"
    run = multiprocessing.get_context("fork").Process(
        target=fit, args=(module(folder, num_workers=workers), tmp_path, Interruption(7, path, kill=True))
    )
    run.start()
    run.join(timeout=60)
    assert run.exitcode == -signal.SIGKILL
    before = torch.load(path.with_suffix(".seen"), weights_only=True)
    after = fit(module(folder, num_workers=workers), tmp_path, resume=path)
    assert before + after == uninterrupted[workers]


def test_says_that_it_is_streamed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = module(folder, num_workers=2)
    with pytest.raises(ValueError, match="toy: WebDatasetStream is streamed and has no index"):
        MixtureDataModule(sources={"toy": data}).setup("fit")
    data.setup("fit")
    with caplog.at_level(logging.INFO, logger="neurotrain"):
        data.train_dataloader()
    assert r"toy is streamed: its order depends on the number of ranks (1) and workers (2)" in caplog.text
    assert data.summary()["streamed"] is True


def test_the_report_has_a_row_for_a_stream_and_says_that_it_is_exempt(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="neurotrain"):
        fit(module(folder, num_workers=2, quarantine=Quarantine(max_bad_share=1.0)), tmp_path, DataReport())
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("data_report")]
    assert lines[:2] == [
        "data: 1 stream (toy)",
        "  toy: streamed, exempt from one order for any number of ranks and workers",
    ]
    report = json.loads((tmp_path / "data_report.json").read_text())
    (row,) = report["sources"].values()
    assert row == {
        "entries": None,
        "order": "streamed",
        "samples": TOTAL,
        "share": 1.0,
        "target": None,
        "replaced": 0,
        "skipped": 0,
    }
    assert (report["loader"]["read"], report["workers"]) == (2 * TOTAL, 2)
    assert "workers" in report["stages"]


def test_a_rank_without_data_is_an_error_at_set_up(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"4 shards for 5 readers \(workers x ranks\), 1 would have nothing"):
        module(folder, num_workers=5).setup("fit")
    with pytest.raises(ValueError, match="needs 64 samples per epoch, there are 48"):
        module(folder, batch_size=64).setup("fit")


def test_cifar_streams_as_configured(shared_data: Path) -> None:
    if not (shared_data / "CIFAR10").is_dir():
        pytest.skip(f"{shared_data / 'CIFAR10'} is not there")
    from neurotrain.app.data_commands import load_data

    overrides = [f"paths.data_dir={shared_data}", "data.num_workers=2", "data.train.shuffle_buffer=64"]
    data = load_data("cifar10_stream", overrides)
    data.setup("fit")
    train: Any = data.train_dataloader()
    assert len(train) == 390
    running = iter(train)
    head = [next(running)["id"] for _ in range(3)]
    state = train.state_dict()
    tail = [next(running) for _ in range(2)]
    train.close()
    assert tail[0]["image"].shape == (128, 3, 32, 32)
    assert len({name for batch in head for name in batch}) == 3 * 128
    resumed: Any = data.train_dataloader()
    resumed.load_state_dict(state)
    assert [batch["id"] for batch in islice(resumed, 2)] == [batch["id"] for batch in tail]
    resumed.close()
