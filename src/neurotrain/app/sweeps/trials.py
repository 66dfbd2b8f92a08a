"""A sweep's folder: the trials that were planned, and what became of each, whoever was killed meanwhile."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from neurotrain.app.jobs.names import nearest
from neurotrain.app.jobs.process import Ending, attempts, seconds_spent
from neurotrain.app.jobs.supervisor import write_record
from neurotrain.documents import parse_json

SWEEP = "sweep.json"
TABLE = "trials.csv"
PRUNED = "pruned"


class SweepError(ValueError):
    """A sweep is refused or cannot go on."""


class Status(StrEnum):
    """What became of a trial."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def is_final(self) -> bool:
        """Whether the trial is never run again."""
        return self in (Status.FINISHED, Status.PRUNED)


@dataclass(frozen=True)
class Plan:
    """One trial as it was planned.

    Attributes:
        number: from 0.
        overrides: what tells it from the other trials.
        arguments: all that its process is told.
        run_dir: where its run lies; its ``summary.json`` is the proof that it finished.
        devices: GPUs that it needs; 0 for a place on the CPU.
        resumes: whether an interrupted run goes on from its checkpoint.
    """

    number: int
    overrides: tuple[str, ...]
    arguments: tuple[str, ...]
    run_dir: str
    devices: int = 0
    resumes: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        status: of it.
        objective: final figure; None where there is none.
        seconds: wall time over all attempts.
        attempts: how many times it was started.
        note: why it is not finished, or nothing.
    """

    status: Status
    objective: float | None = None
    seconds: float = 0.0
    attempts: int = 0
    note: str = ""


class SweepFolder:
    """Folder of one sweep: ``sweep.json``, ``trials.csv`` and ``trials/0003/`` with the log and records of each trial.

    Args:
        path: of the folder; may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Write what the sweep was told, or return what it was told when it began.

        Args:
            told: plain values.

        Returns:
            What stands in ``sweep.json``.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if (self.path / SWEEP).is_file():
            return self.told()
        write_record(self.path / SWEEP, told)
        return dict(told)

    def told(self) -> dict[str, Any]:
        """Return what the sweep was told when it began.

        Raises:
            SweepError: if this is no sweep's folder.
        """
        try:
            return parse_json((self.path / SWEEP).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise SweepError(f"{self.path}: no {SWEEP}: not the folder of a sweep") from None

    def of(self, plan: Plan) -> Path:
        """Return a trial's folder."""
        return self.path / "trials" / f"{plan.number:04d}"

    def keep(self, plan: Plan) -> None:
        """Write a plan down.

        Raises:
            SweepError: if the trial was planned otherwise before.
        """
        folder = self.of(plan)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "trial.json"
        written = json.loads(json.dumps(asdict(plan)))
        if not path.is_file():
            write_record(path, written)
        elif (earlier := parse_json(path.read_text(encoding="utf-8"))) != written:
            differing = [name for name in written if earlier.get(name) != written[name]]
            raise SweepError(
                f"{path}: trial {plan.number} was planned with other {', '.join(differing)}: "
                "go on with --resume, or type another sweep.dir"
            )

    def outcome(self, plan: Plan, ending: Ending | None, objective: str | None) -> Outcome:
        """Say what became of a trial.

        Args:
            plan: of it.
            ending: of its newest attempt; None where it was never started.
            objective: name of the figure; None where none was asked for.

        Returns:
            The outcome; a run that wrote its summary before it was killed is finished.
        """
        if ending is None:
            return Outcome(Status.WAITING)
        folder = self.of(plan)
        summary = read_summary(Path(plan.run_dir))
        status, note = _status(ending, finished=summary is not None)
        value: float | None = None
        if status is Status.FINISHED and objective is not None:
            figures: dict[str, float] = (summary or {}).get("metrics", {})
            value = figures.get(objective)
            if value is None:
                hint = nearest(objective, figures)
                status, note = Status.FAILED, f"the run has no figure {objective!r}{hint}"
        return Outcome(status, value, seconds_spent(folder), attempts(folder), note)

    def write_table(self, rows: Iterable[tuple[Plan, Outcome]]) -> Path:
        """Write ``trials.csv`` atomically: one row a trial, overrides in a column each."""
        listed = list(rows)
        pairs = [_pairs(plan.overrides) for plan, _ in listed]
        varied = list(dict.fromkeys(key for pair in pairs for key in pair))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["trial", "status", *varied, "objective", "seconds", "attempts", "run_dir", "note"])
        for (plan, outcome), pair in zip(listed, pairs, strict=True):
            objective = "" if outcome.objective is None else repr(outcome.objective)
            figures = (objective, f"{outcome.seconds:.3f}", outcome.attempts, plan.run_dir, outcome.note)
            writer.writerow([plan.number, outcome.status, *(pair.get(key, "") for key in varied), *figures])
        path = self.path / TABLE
        temporary = path.with_name(f".{TABLE}.tmp")
        temporary.write_text(text.getvalue(), encoding="utf-8")
        temporary.replace(path)
        return path


def read_summary(run_dir: Path) -> dict[str, Any] | None:
    """Return a run's ``summary.json``; None where the run did not get so far."""
    try:
        return parse_json((run_dir / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def read_rows(run_dir: Path, name: str) -> list[float]:
    """Return a figure's values in ``metrics.csv``, oldest first; a torn last line is left out.

    Args:
        run_dir: of the run.
        name: of the column.
    """
    try:
        text = (run_dir / "metrics.csv").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    whole: Sequence[str] = text[: text.rfind("\n") + 1].splitlines()
    return [float(row[name]) for row in csv.DictReader(whole) if row.get(name)]


def _pairs(overrides: Iterable[str]) -> dict[str, str]:
    parts = (override.lstrip("+").partition("=") for override in overrides)
    return {key: value for key, _, value in parts}


def _status(ending: Ending, *, finished: bool) -> tuple[Status, str]:
    if ending.reason == PRUNED:
        return Status.PRUNED, ""
    if ending.ok:
        return (Status.FINISHED, "") if finished else (Status.INTERRUPTED, "ended early, without summary.json")
    if ending.reason == "exited" and (ending.returncode or 0) > 0:
        return Status.FAILED, str(ending)
    if finished:  # killed on its last breath, with everything written
        return Status.FINISHED, ""
    return (Status.FAILED if ending.reason == "timeout" else Status.INTERRUPTED), str(ending)
