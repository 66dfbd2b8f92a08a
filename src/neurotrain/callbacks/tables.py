"""Tables beside the totals: a row for each test image, and the second human observer as a reference."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from neurotrain.data import SegmentationDataModule
from neurotrain.metrics import SegmentationReport
from neurotrain.tasks import SegmentationTask

SECOND_OBSERVER = "second observer"


class SampleTable(Callback):
    """Writes ``test_samples.csv``: every figure of every test image, and the second observer's rows.

    The second observer is scored against the first, inside the same validity mask, exactly as the network is: what a
    person reaches. Its means are logged as ``reference/second_observer_<figure>``.

    Args:
        filename: of the table in the run directory.
        second_observer: whether to score the second observer where the data have one.
    """

    def __init__(self, *, filename: str = "test_samples.csv", second_observer: bool = True) -> None:
        self.filename = filename
        self.second_observer = second_observer

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table, on rank 0."""
        assert isinstance(pl_module, SegmentationTask)
        rows: list[dict[str, str | float]] = [{"observer": "network", **row} for row in pl_module.report.rows()]
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if self.second_observer and isinstance(data, SegmentationDataModule):
            report = observer_report(data, tolerance=pl_module.report.tolerance)
            if report is not None:
                rows += [{"observer": SECOND_OBSERVER, **row} for row in report.rows()]
                figures = {f"reference/second_observer_{name}": value for name, value in _means(report).items()}
                trainer.callback_metrics.update(figures)
                for log in trainer.loggers:
                    log.log_metrics({name: float(value) for name, value in figures.items()}, step=trainer.global_step)
        if trainer.is_global_zero:
            write_table(Path(trainer.default_root_dir) / self.filename, rows)


def _means(report: SegmentationReport) -> dict[str, Tensor]:
    figures = report.compute()
    return {name: figures[name] for name in ("dice", "sensitivity", "specificity", "nsd")}


def observer_report(data: SegmentationDataModule, *, tolerance: float) -> SegmentationReport | None:
    """Score the second human observer of the test images against the first.

    Args:
        data: set up for testing.
        tolerance: of the normalized surface Dice.

    Returns:
        The filled report, or None where no test image has a second observer (or the labels are not binary).
    """
    dataset = data.dataset
    if dataset.mode != "binary":
        return None
    report = SegmentationReport(tolerance=tolerance, auc=False)
    seen = 0
    for record in data.records("test"):
        second = dataset.read_second(record)
        if second is None:
            continue
        sample = dataset.read(record)
        preds = second[None, None].to(torch.float32)
        report.update(preds, sample["mask"][None], sample["valid"][None], ids=[record.id], threshold=0.5)
        seen += 1
    return report if seen else None


def write_table(path: Path, rows: list[dict[str, str | float]]) -> None:
    """Write rows as CSV with the union of their columns, in order of appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
