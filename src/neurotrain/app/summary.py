"""The end of a run: ``summary.json`` for programs and a table for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning import LightningDataModule, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from neurotrain.app.run_directory import RunDirectory
from neurotrain.callbacks.predictions import FOLDER
from neurotrain.documents import parse_json


@runtime_checkable
class Described(Protocol):
    """A data module that says what it holds, as all of neurotrain's do."""

    def summary(self) -> dict[str, Any]:
        """Return name, fingerprint, whether the data are synthetic, counts and ids of each split."""
        ...


def describe(data: LightningDataModule) -> dict[str, Any]:
    """Return the data module's own summary; a foreign one gives its class's name and nulls for what is unknown."""
    if isinstance(data, Described):
        return data.summary()
    return {"name": type(data).__name__, "fingerprint": None, "synthetic": None, "counts": {}}


def summarize(
    values: Mapping[str, Any],
    directory: RunDirectory,
    trainer: Trainer,
    model: LightningModule,
    data: LightningDataModule,
    *,
    seconds: float,
) -> dict[str, Any]:
    """Collect the final figures and write ``summary.json`` on rank 0.

    Args:
        values: the run's configuration.
        directory: where to write.
        trainer: after its last stage.
        model: the task.
        data: the data module, set up.
        seconds: wall time of this process's stages, data preparation included.

    Returns:
        What was written. ``wall_seconds`` and ``test_evaluations`` add up over the processes of a resumed run that
        reached its end. ``predictions`` is their folder in the run directory, where there is one.
    """
    path = directory.path / "summary.json"
    earlier: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"), where=path) if path.is_file() else {}
    metrics = {**earlier.get("metrics", {}), **{name: float(value) for name, value in trainer.callback_metrics.items()}}
    described = describe(data)
    tested = any(name.startswith("test/") for name in trainer.callback_metrics)
    summary = {
        "name": values["name"],
        "stage": values["stage"],
        "seed": values["seed"],
        "metrics": dict(sorted(metrics.items())),
        "data": described,
        "synthetic": described["synthetic"],
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "wall_seconds": round(earlier.get("wall_seconds", 0.0) + seconds, 3),
        "test_evaluations": earlier.get("test_evaluations", 0) + int(tested),
    }
    if (directory.path / FOLDER).is_dir():
        summary["predictions"] = FOLDER
    if trainer.is_global_zero:
        directory.write_summary(summary)
    return summary


def final_table(summary: Mapping[str, Any], path: Path) -> None:
    """Print the figures of the last stage, per image beside pooled, and where the run lies."""
    metrics: Mapping[str, float] = summary["metrics"]
    stages = [stage for stage in ("test", "val", "train") if any(name.startswith(f"{stage}/") for name in metrics)]
    console = Console()
    if not stages:
        predictions = f"predictions: {path / summary['predictions']}, " if "predictions" in summary else ""
        console.print(f"{predictions}run directory: {path}", highlight=False, soft_wrap=True)
        return
    stage = stages[0]
    title = f"{summary['name']}: {stage}" + (" (SYNTHETIC DATA)" if summary["synthetic"] else "")
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    table.add_column("mean per image", justify="right")
    table.add_column("pooled", justify="right")
    figures = {name.removeprefix(f"{stage}/"): value for name, value in metrics.items() if name.startswith(f"{stage}/")}
    for name, value in figures.items():
        if not name.startswith("pooled_"):
            table.add_row(name, _figure(value), _figure(figures.get(f"pooled_{name}")))
    for name, value in metrics.items():
        if name.startswith("reference/"):
            table.add_row(name, _figure(value), "")
    console.print(table)
    console.print(
        f"{summary['parameters']:,} parameters, {summary['steps']:,} steps, {summary['wall_seconds']:.0f} s, "
        f"run directory: {path}",
        highlight=False,
        soft_wrap=True,
    )


def _figure(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4f}"
