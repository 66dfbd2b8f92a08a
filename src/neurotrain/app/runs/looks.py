"""What one look at a run directory shows: figures, speed, time left, and what its process uses."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from neurotrain.app.runs.devices import usage
from neurotrain.app.runs.process import ProcessRecord
from neurotrain.app.runs.reading import RunFacts, read_run
from neurotrain.app.runs.rows import METRICS, metric_rows
from neurotrain.app.runs.status import Status, is_resumable, status_of

_SPEED = "throughput/samples_per_second"


@dataclass(frozen=True, kw_only=True)
class Look:
    """A run at one moment.

    Attributes:
        run: path of its directory.
        status: of the run.
        resumable: whether it can go on.
        step: optimizer steps done; None before the first row.
        epoch: of the last row.
        total_steps: of the whole run; None where neither the configuration nor the epochs so far tell.
        samples_per_second: as last logged.
        seconds_left: estimate from the steps that this process has done; None where it does not run or cannot tell.
        silent_seconds: since the files changed.
        metrics: last values, without steps and epochs.
        usage: of the process, by name; empty where it does not run here.
    """

    run: str
    status: Status
    resumable: bool
    step: int | None
    epoch: int | None
    total_steps: int | None
    samples_per_second: float | None
    seconds_left: float | None
    silent_seconds: float
    metrics: dict[str, float]
    usage: dict[str, str]


def look(run_dir: Path) -> Look:
    """Read a run directory, which another process may be writing to."""
    facts = read_run(run_dir, run_dir.parent)
    rows = list(metric_rows(run_dir / METRICS))
    last: dict[str, float] = {}
    for row in rows:
        last.update(row)
    step = None if "step" not in last else int(last["step"])
    total = _total_steps(facts, rows)
    now, status = time.time(), status_of(facts)
    running = facts.process if status == "running" else None
    return Look(
        run=str(run_dir),
        status=status,
        resumable=is_resumable(facts, status),
        step=step,
        epoch=_epoch(facts, last),
        total_steps=total,
        samples_per_second=last.get(_SPEED),
        seconds_left=None if running is None else _left(running, step, total, now=_changed(run_dir, now)),
        silent_seconds=max(0.0, now - facts.changed),
        metrics={name: value for name, value in last.items() if name not in ("step", "epoch")},
        usage={} if running is None or not running.is_here else usage(running.pid),
    )


def _epoch(facts: RunFacts, last: dict[str, float]) -> int | None:
    """The epoch of the last row; what is logged behind the last epoch belongs to it."""
    limit = facts.parameters.get("trainer.max_epochs")
    if "epoch" not in last:
        return None
    epoch = int(last["epoch"])
    return min(epoch, limit - 1) if isinstance(limit, int) and limit > 0 else epoch


def _changed(run_dir: Path, now: float) -> float:
    try:
        return (run_dir / METRICS).stat().st_mtime
    except FileNotFoundError:
        return now


def _left(record: ProcessRecord, step: int | None, total: int | None, *, now: float) -> float | None:
    """Seconds for what is left at the mean speed of this process, evaluations included."""
    if step is None or total is None or step <= record.first_step or now <= record.began:
        return None
    return (now - record.began) / (step - record.first_step) * max(0, total - step)


def _total_steps(facts: RunFacts, rows: list[dict[str, float]]) -> int | None:
    """The lower of ``max_steps`` and ``max_epochs`` times the steps of an epoch, which finished epochs tell."""
    limits: list[int] = []
    steps, epochs = (facts.parameters.get(f"trainer.{name}") for name in ("max_steps", "max_epochs"))
    if isinstance(steps, int) and steps > 0:
        limits.append(steps)
    if isinstance(epochs, int) and epochs > 0 and rows:
        current = max(row.get("epoch", 0.0) for row in rows)
        # The last row of an epoch that is over stands at its last step.
        over = [row for row in rows if "step" in row and row.get("epoch", current) < current]
        if over:
            done = over[-1]
            limits.append(round(done["step"] / (done["epoch"] + 1) * epochs))
    return min(limits) if limits else None
