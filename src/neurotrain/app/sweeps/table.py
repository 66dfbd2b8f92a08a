"""The table at the end of a sweep."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from neurotrain.app.sweeps.driver import SweepResult
from neurotrain.app.sweeps.trials import Outcome, Plan

Direction = Literal["maximize", "minimize"]


def show(result: SweepResult, *, objective: str | None, direction: Direction, folder: Path) -> None:
    """Print status, overrides, objective and seconds of every trial, and the best of them.

    Args:
        result: of the sweep.
        objective: name of the figure; None where there is none.
        direction: which values are better.
        folder: of the sweep.
    """
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table(title=str(folder), title_justify="left")
    for name in ("trial", "status", "overrides", objective or "objective", "seconds"):
        table.add_column(name, justify="left" if name in ("status", "overrides") else "right", overflow="fold")
    first = best(result, direction)
    for plan, outcome in result.outcomes:
        figure = "" if outcome.objective is None else f"{outcome.objective:.6g}"
        mark = " (best)" if first is not None and plan.number == first[0].number else ""
        row = (str(plan.number), f"{outcome.status}{mark}", " ".join(plan.overrides), figure, f"{outcome.seconds:.1f}")
        table.add_row(*row)
    console.print(table)


def best(result: SweepResult, direction: Direction) -> tuple[Plan, Outcome] | None:
    """Return the finished trial with the best objective, the earlier one of equals; None where there is none."""
    sign = 1 if direction == "maximize" else -1
    found = [
        (plan, outcome)
        for plan, outcome in result.outcomes
        if outcome.objective is not None and outcome.objective == outcome.objective  # NaN is never best
    ]
    return max(found, key=lambda pair: (sign * (pair[1].objective or 0.0), -pair[0].number), default=None)
