"""The report of the data in a run: when it is told, what stands in its file; further values of the loader."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from callback_toys import make_trainer
from lightning import LightningModule
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from neurotrain.callbacks import DataReport, LoaderMetric, LoaderTelemetry, LoaderThroughput, MetricsCsv, read_metrics
from neurotrain.data import PlannedLoader, SegmentationDataModule
from neurotrain.data.datasets import SyntheticDrive
from neurotrain.data.transforms import CentreCrop, Identity


class Thresholds(LightningModule):
    """One weight on the image's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return (self.weight * batch["image"].mean() - 1).square()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Never called: nothing is held out."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ReadsAtFirstBatch(Callback):
    """Keeps the file as it is while the first batch is trained on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = {}

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if not self.found:
            self.found = json.loads(self.path.read_text())


def _fit(folder: Path, callbacks: list[Callback], *, workers: int = 0, **settings: Any) -> None:  # noqa: ANN401
    data = SegmentationDataModule(
        dataset=SyntheticDrive(root=folder / "data", train=4, test=1, size=(64, 64)),
        train_transform=CentreCrop(size=32),
        eval_transform=Identity(),
        batch_size=2,
        num_workers=workers,
        cache_bytes=2**20,
    )
    settings = {"use_distributed_sampler": False, "max_epochs": 2, "limit_val_batches": 0, **settings}
    make_trainer(folder, callbacks, **settings).fit(Thresholds(), data)


@pytest.mark.parametrize("workers", [0, 1])
def test_is_told_at_the_first_batch_and_written_each_epoch(
    workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "data_report.json"
    early = ReadsAtFirstBatch(path)
    with caplog.at_level(logging.INFO, logger="neurotrain"):
        _fit(tmp_path, [DataReport(), early], workers=workers)
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("data_report")]
    assert lines[0].startswith("data: 4 samples (")
    stages = ["index", *(["memory", "workers"] if workers else []), "first batch"]
    assert [line.partition(":")[0].strip() for line in lines[1 : 1 + len(stages)]] == stages
    assert list(early.found["stages"]) == stages
    report = json.loads(path.read_text())
    assert report["stages"]["epochs"]["times"] == 2
    assert report["loader"]["read"] == 8
    assert report["workers"] == workers
    assert report["stages"]["first batch"]["seconds"] > 0
    assert not list(tmp_path.glob(".data_report*"))


class Constant(LoaderMetric):
    """Always the same."""

    def values(self, told: Mapping[str, Any], *, loader: PlannedLoader) -> Mapping[str, float]:
        return {"batches": told["batches"], "workers": float(loader.num_workers)}


def test_further_values_stand_beside_the_loaders_own(tmp_path: Path) -> None:
    telemetry = LoaderTelemetry(every_n_steps=2, metrics={"mine": Constant(), "pace": LoaderThroughput()})
    _fit(tmp_path, [telemetry], logger=MetricsCsv(directory=tmp_path))
    rows = [row for row in read_metrics(tmp_path / "metrics.csv") if "data/mine/batches" in row]
    assert [row["data/mine/batches"] for row in rows] == [2.0, 2.0]
    assert all(row["data/pace/samples_per_second"] > 0 for row in rows)
    assert all("data/wait_share" in row for row in rows)
