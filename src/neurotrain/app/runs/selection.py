"""Which runs are meant: by a part of their name, a condition, a time; and in which order."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from neurotrain.app.runs.conditions import Value, parse
from neurotrain.app.runs.errors import RunsError, nearest
from neurotrain.app.runs.reading import RunFacts
from neurotrain.app.runs.status import status_of

_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def values_of(facts: RunFacts) -> dict[str, Value]:
    """Return everything that conditions and sorting may name: a run's own facts before figures before parameters."""
    return {
        **facts.parameters,
        **facts.metrics,
        "id": facts.id,
        "experiment": facts.experiment,
        "status": status_of(facts),
        "stage": facts.stage,
        "seed": facts.seed,
        "started": facts.started,
        "wall_seconds": facts.wall_seconds,
    }


def chosen(
    runs: Sequence[RunFacts],
    *,
    experiment: str | None = None,
    where: Sequence[str] = (),
    since: str | None = None,
) -> list[RunFacts]:
    """Return the runs that meet all conditions.

    Args:
        runs: all of them.
        experiment: name of theirs.
        where: conditions of :func:`neurotrain.app.runs.conditions.parse`.
        since: earliest start: see :func:`moment`.

    Raises:
        RunsError: if no run knows the experiment or a name in a condition, or a condition cannot be read.
    """
    if experiment is not None:
        names = {facts.experiment for facts in runs}
        if runs and experiment not in names:
            raise RunsError(f"--experiment {experiment}: no run of it{nearest(experiment, names)}")
        runs = [facts for facts in runs if facts.experiment == experiment]
    if since is not None:
        first = moment(since)
        runs = [facts for facts in runs if (started := start_of(facts)) is not None and started >= first]
    conditions = [parse(text) for text in where]
    if not conditions:
        return list(runs)
    values = [values_of(facts) for facts in runs]
    check_names([name for condition in conditions for name in condition.names], values)
    pairs = zip(runs, values, strict=True)
    return [facts for facts, known in pairs if all(condition.holds(known) for condition in conditions)]


def check_names(names: Iterable[str], values: Sequence[dict[str, Value]]) -> None:
    """Refuse a name that no run has.

    Raises:
        RunsError: with the nearest one.
    """
    known = {name for one in values for name in one}
    for name in names:
        if known and name not in known:
            raise RunsError(f"{name!r} is neither a figure nor a parameter of these runs{nearest(name, known)}")


def ordered(runs: Sequence[RunFacts], name: str, *, descending: bool = False) -> list[RunFacts]:
    """Sort runs by a name; those without a value, or with NaN, come last.

    Raises:
        RunsError: if no run has the name.
    """
    values = {facts.id: values_of(facts) for facts in runs}
    check_names([name], list(values.values()))

    def place(facts: RunFacts) -> tuple[bool, float, str]:
        value = values[facts.id].get(name)
        if isinstance(value, bool | int | float):
            return (False, float(value), "")
        return (True, 0.0, str(value))

    def missing(facts: RunFacts) -> bool:
        value = values[facts.id].get(name)
        return value is None or (isinstance(value, float) and math.isnan(value))

    there = sorted((facts for facts in runs if not missing(facts)), key=place, reverse=descending)
    return there + [facts for facts in runs if missing(facts)]


def best(runs: Sequence[RunFacts], metric: str, mode: Literal["max", "min"]) -> RunFacts:
    """Return the run with the best figure; NaN never wins, and of equal runs the oldest does.

    Raises:
        RunsError: if no run has the figure.
    """
    having = [facts for facts in runs if not math.isnan(facts.metrics.get(metric, math.nan))]
    if not having:
        known = {name for facts in runs for name in facts.metrics}
        raise RunsError(f"--metric {metric}: none of {len(runs)} runs has it{nearest(metric, known)}")
    sign = 1 if mode == "max" else -1
    oldest_first = sorted(having, key=lambda one: one.started or "~")
    return max(oldest_first, key=lambda one: sign * one.metrics[metric])


def found(runs: Sequence[RunFacts], name: str) -> RunFacts:
    """Return the one run that is meant by its id, its path, its folder's name, or a beginning or end of that.

    Raises:
        RunsError: if there is none, or more than one.
    """
    typed = name.rstrip("/").removeprefix("./")
    exact = [facts for facts in runs if facts.id == typed or typed.endswith(f"/{facts.id}")]
    if exact:
        return max(exact, key=lambda facts: len(facts.id))
    folders = [(facts.id.rpartition("/")[2], facts) for facts in runs]
    near = [facts for folder, facts in folders if folder == typed]
    near = near or [facts for folder, facts in folders if folder.startswith(typed) or folder.endswith(typed)]
    if len(near) == 1:
        return near[0]
    if not near:
        raise RunsError(f"{name}: no such run{nearest(typed, [facts.id for facts in runs])}")
    shown = ", ".join(facts.id for facts in near[:4])
    raise RunsError(f"{name}: {len(near)} runs are meant: {shown}{', …' if len(near) > 4 else ''}")


def moment(text: str) -> datetime:
    """Read ``2026-11-20``, ``2026-11-20T10:30`` (local time without a zone), or ``3d``, ``12h``, ``30m``, ``2w`` ago.

    Raises:
        RunsError: if it is neither.

    Example:
        >>> moment("2026-11-20T10:30+00:00").isoformat()
        '2026-11-20T10:30:00+00:00'
    """
    match = _AGO.fullmatch(text)
    if match is not None:
        return datetime.now(UTC) - timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise RunsError(f"--since {text}: expected a date as 2026-11-20, or an age as 3d, 12h, 30m") from None


def start_of(facts: RunFacts) -> datetime | None:
    """Return when a run was started last; None where it does not say."""
    try:
        return None if facts.started is None else datetime.fromisoformat(facts.started).astimezone()
    except ValueError:
        return None
