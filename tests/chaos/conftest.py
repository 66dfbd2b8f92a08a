"""The report of the faults: which were tried, how many were survived, and how long it took."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

# Processes that are killed and compared, and the tiny task, are those of these folders.
sys.path[:0] = [str(Path(__file__).parent.parent / folder) for folder in ("e2e", "callbacks")]

_FAULT, _SURVIVED = "fault", "survived"


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Say which fault a test tries, and how often; unless told otherwise a test that passes survived all."""

    def note(fault: str, *, times: int = 1, survived: int | None = None) -> None:
        record_property(_FAULT, (fault, times))
        if survived is not None:
            record_property(_SURVIVED, survived)

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One row a fault."""
    rows: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0.0])
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            told = dict(report.user_properties)
            if report.when != "call" or _FAULT not in told:
                continue
            fault, times = told[_FAULT]
            row = rows[fault]
            row[0] += times
            row[1] += told.get(_SURVIVED, times if outcome == "passed" else 0)
            row[2] += report.duration
    if not rows:
        return
    width = max(len(fault) for fault in rows)
    terminalreporter.section("faults")
    terminalreporter.write_line(f"{'fault':<{width}}  {'tried':>6}  {'survived':>8}  {'seconds':>8}")
    for fault, (times, survived, seconds) in sorted(rows.items()):
        terminalreporter.write_line(f"{fault:<{width}}  {times:>6.0f}  {survived:>8.0f}  {seconds:>8.1f}")
