"""Tables of runs for people, and the same for programs."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from neurotrain.app.runs.differences import Difference
from neurotrain.app.runs.reading import RunFacts, Value
from neurotrain.app.runs.selection import values_of
from neurotrain.app.runs.status import is_resumable, status_of

_FIGURES = 3  # columns of a list where nobody said which


def as_json(facts: RunFacts) -> dict[str, Any]:
    """Return everything that is known of a run, as JSON knows it: NaN and infinities are null."""
    status = status_of(facts)
    values = {**asdict(facts), "status": status, "resumable": is_resumable(facts, status)}
    values["metrics"] = {name: value if math.isfinite(value) else None for name, value in facts.metrics.items()}
    return values


def print_json(value: object) -> None:
    """Write a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def default_figures(runs: Sequence[RunFacts]) -> list[str]:
    """Return the figures that most runs have, those of tests before those of validations."""
    counts = Counter(name for facts in runs for name in facts.metrics if name.startswith(("test/", "val/")))
    order = sorted(counts, key=lambda name: (not name.startswith("test/"), -counts[name], name.count("/"), name))
    return order[:_FIGURES]


def list_rows(runs: Sequence[RunFacts], columns: Sequence[str]) -> list[list[str]]:
    """Return a header and one row a run: its id, status, start, time, and the named figures or parameters."""
    rows = [["run", "status", "started", "time", *columns]]
    for facts in runs:
        values = values_of(facts)
        status = status_of(facts)
        mark = status + (" (resumable)" if is_resumable(facts, status) else "")
        cells = (shown(values.get(name)) for name in columns)
        rows.append([facts.id, mark, _started(facts), _duration(facts.wall_seconds), *cells])
    return rows


def show_rows(facts: RunFacts) -> list[list[str]]:
    """Return everything that is known of one run, parameters included, by name."""
    status = status_of(facts)
    error = facts.process.error if facts.process is not None and status == "failed" else None
    values: dict[str, Value] = {
        "run": facts.id,
        "status": status + (", resumable" if is_resumable(facts, status) else ""),
        "error": error,
        "started": _started(facts),
        "time": _duration(facts.wall_seconds),
        "overrides": " ".join(facts.overrides),
        **{f"environment.{name}": value for name, value in facts.environment.items()},
        **{f"data.{name}": value for name, value in facts.data.items() if name in ("name", "fingerprint")},
        **dict(sorted(facts.metrics.items())),
        **facts.parameters,
    }
    return [[name, shown(value)] for name, value in values.items() if value not in (None, "")]


def difference_rows(rows: Sequence[Difference], runs: Sequence[RunFacts], *, gain: bool = False) -> list[list[str]]:
    """Return a header and one row a difference, one column a run.

    Args:
        rows: to show.
        runs: of the columns.
        gain: whether two runs get a column of second minus first.
    """
    gain = gain and len(runs) == 2
    told = [["name", *(facts.id for facts in runs), *(["second - first"] if gain else [])]]
    for row in rows:
        told.append([row.name, *map(shown, row.values), *([_gap(*row.values)] if gain else [])])
    return told


def _gap(first: Value, second: Value) -> str:
    if isinstance(first, int | float) and isinstance(second, int | float):
        return f"{second - first:+.4g}"
    return ""


def differences_json(rows: Sequence[Difference], runs: Sequence[RunFacts]) -> Mapping[str, Mapping[str, Value]]:
    """Return values by name and run; NaN and infinities are null."""
    return {
        row.name: {
            facts.id: None if isinstance(value, float) and not math.isfinite(value) else value
            for facts, value in zip(runs, row.values, strict=True)
        }
        for row in rows
    }


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return rows as lines of columns, as wide as they must be.

    Args:
        rows: of one length each.
        left: how many columns, from the first on, begin at their left; the others, of numbers, end at their right.

    Example:
        >>> print(aligned([["run", "dice"], ["long/name", "0.5"]]), end="")
        run        dice
        long/name   0.5
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def shown(value: Value) -> str:
    """Return a value as a cell: numbers in six digits.

    Example:
        >>> shown(0.123456789), shown(None), shown(True), shown(100000)
        ('0.123457', '', 'true', '100000')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())


def _started(facts: RunFacts) -> str:
    try:
        moment = None if facts.started is None else datetime.fromisoformat(facts.started)
    except ValueError:
        return str(facts.started)
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
