"""What the data cost: printed when training has begun, kept in the run directory."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from neurotrain.callbacks.telemetry import training_loaders
from neurotrain.data import PlannedDataModule
from neurotrain.data.report import Stages, forget_peak, told

log = logging.getLogger(__name__)

FILE = "data_report.json"


class DataReport(Callback):
    """Tells the stages of the data on rank 0: index, caches, workers, first batch, epochs.

    Printed once the first batch is there, and written to ``data_report.json`` of the run directory then and after each
    epoch: seconds, memory of this process at the end of each stage and at its peak; of each source what it has (nobody
    knows that of a stream), what was handed out in this epoch and its share beside the target, what was replaced and
    skipped, and whether it keeps the promised order; counts of the loader, and what the sources count, such as hits of
    caches (workers' included). It reads two files of the system a stage, and nothing at all in a step.
    """

    def __init__(self) -> None:
        self._stages = Stages()
        self._began = 0.0
        self._waits = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first batch is asked for soon."""
        data = _data(trainer)
        self._stages = Stages() if data is None else data.stages
        self._waits = trainer.is_global_zero
        forget_peak()
        self._began = time.perf_counter()

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Tells and writes the report, at the first one only."""
        if not self._waits:
            return
        self._waits = False
        passed = time.perf_counter() - self._began
        starting = sum(loader.worker_seconds for loader in training_loaders(trainer))
        if starting:
            self._stages.add("workers", seconds=starting)
        self._stages.add("first batch", seconds=passed - starting)
        forget_peak()
        self._began = time.perf_counter()
        for line in told(self._write(trainer)):
            log.info("%s", line)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the report with one epoch more; its evaluation counts too."""
        if trainer.is_global_zero and not self._waits:
            now = time.perf_counter()
            self._stages.add("epochs", seconds=now - self._began)
            self._began = now
            self._write(trainer)

    def _write(self, trainer: Trainer) -> dict[str, Any]:
        loaders, data = training_loaders(trainer), _data(trainer)
        counters: dict[str, int] = {}
        statistics: dict[str, int] = {}
        sources: dict[str, dict[str, Any]] = {}
        for loader in loaders:
            counters |= loader.counters()
            statistics |= loader.statistics()
            sources |= loader.sources_told()
        entries = {} if data is None else {part.name: len(part) for part in data.training().parts}
        report = {
            "stages": self._stages.as_dict(),
            "samples": entries,
            "sources": {name: {"entries": entries.get(name), **row} for name, row in sources.items()},
            "loader": statistics,
            "workers": sum(loader.num_workers for loader in loaders),
            "counters": counters,
        }
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # Complete or not there: the run may be killed at any moment.
        unfinished = folder / f".{FILE}.unfinished"
        unfinished.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(folder / FILE)
        return report


def _data(trainer: Trainer) -> PlannedDataModule | None:
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue] - set by fit
    return data if isinstance(data, PlannedDataModule) else None
