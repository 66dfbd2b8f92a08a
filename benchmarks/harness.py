"""What every benchmark shares: interleaved repeats, medians, one result shape, one command line.

``python benchmarks/NAME.py [--json] [--quick]``: ours and its peers do the same work in one run, turn by turn, so that
a busy minute of the machine hits both. ``--json`` prints one object a line, otherwise there is a table.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Literal

from rich.console import Console
from rich.table import Table

QUICK_SECONDS = 40.0
"""With ``--quick`` no round starts that would end later than this after the start; 50 seconds are allowed in all."""

_STARTED = time.perf_counter()


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of a benchmark.

    Attributes:
        name: what was done.
        ours: median of our repeats, in ``unit``.
        peer: median of the peer's repeats, in the same unit; None where the peer is not installed.
        peer_name: who did the same work.
        unit: of ``ours`` and ``peer``.
        goal: upper limit.
        limits: what the goal is a limit of: ``ratio`` (ours / peer), or ``ours`` for a row that states an added time.
    """

    name: str
    ours: float
    peer: float | None
    peer_name: str
    unit: str
    goal: float
    limits: Literal["ratio", "ours"] = "ratio"

    @property
    def ratio(self) -> float | None:
        """``ours / peer``; None where the peer was left out."""
        return None if self.peer is None else self.ours / self.peer

    @property
    def met(self) -> bool | None:
        """Whether the goal is kept; None where it can't be told."""
        value = self.ours if self.limits == "ours" else self.ratio
        return None if value is None else value <= self.goal

    def as_json(self) -> str:
        """One object on one line: name, ours, peer, peer_name, unit, ratio, goal, met."""
        fields = ("name", "ours", "peer", "peer_name", "unit", "ratio", "goal", "met")
        return json.dumps({field: _rounded(getattr(self, field)) for field in fields})


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Attributes:
        json: one object a line in place of the table.
        quick: fewer, shorter repeats.
    """

    json: bool
    quick: bool


def main(benchmark: Callable[[Options], Iterable[Result]], *, description: str) -> None:
    """Read the command line, run the benchmark and print its results as they come.

    Args:
        benchmark: yields results.
        description: first line of the help text.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repeats: at most 50 seconds in all")
    given = parser.parse_args()
    options = Options(json=given.json, quick=given.quick)
    results: list[Result] = []
    for result in benchmark(options):
        results.append(result)
        if options.json:
            print(result.as_json(), flush=True)
    if not options.json:
        Console(width=None if sys.stdout.isatty() else 140).print(table(results, title=description))


def interleaved(
    candidates: Mapping[str, Callable[[], float]], *, rounds: int, options: Options, share: float = 1.0
) -> dict[str, float]:
    """Measure every candidate once a round, in alternating order.

    Args:
        candidates: each does its work once and returns what it measured (seconds per step, or per run).
        rounds: how many; with ``quick`` fewer where the time is over.
        options: of the command line.
        share: part of the time of ``quick`` after which these rounds must be done, in (0, 1].

    Returns:
        The median of each candidate's measurements.
    """
    measured: dict[str, list[float]] = {name: [] for name in candidates}
    longest = 0.0
    for turn in range(rounds):
        started = time.perf_counter()
        if turn and options.quick and started - _STARTED + longest > share * QUICK_SECONDS:
            break
        for name in list(candidates)[:: 1 if turn % 2 == 0 else -1]:
            measured[name].append(candidates[name]())
        longest = max(longest, time.perf_counter() - started)
    return {name: median(values) for name, values in measured.items()}


def is_installed(module: str) -> bool:
    """Whether a peer can be imported; one that can't is left out with :func:`left_out`."""
    return find_spec(module) is not None


def left_out(*, name: str, ours: float, peer_name: str, unit: str, goal: float) -> Result:
    """A result whose peer is not installed, which its name says."""
    return Result(
        name=name, ours=ours, peer=None, peer_name=f"{peer_name} (left out: not installed)", unit=unit, goal=goal
    )


def table(results: Iterable[Result], *, title: str) -> Table:
    """Results for people."""
    shown = Table(title=title, title_justify="left")
    for column in ("what", "unit", "ours", "peer", "ours / peer", "goal", "met", "peer is"):
        shown.add_column(column, justify="left" if column in ("what", "unit", "peer is") else "right")
    for result in results:
        goal = f"{'ours' if result.limits == 'ours' else 'ratio'} <= {result.goal:g}"
        met = "-" if result.met is None else "yes" if result.met else "NO"
        numbers = [_text(result.ours), _text(result.peer), _text(result.ratio)]
        shown.add_row(result.name, result.unit, *numbers, goal, met, result.peer_name)
    return shown


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _rounded(value: object) -> object:
    """Numbers to five significant digits: a measurement has no more."""
    if isinstance(value, float) and value and math.isfinite(value):
        return round(value, 4 - math.floor(math.log10(abs(value))))
    return value
