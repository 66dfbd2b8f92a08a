"""What differs between runs: what they were told, what they ran on, and what they reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neurotrain.app.runs.reading import RunFacts, Value

_OWN = ("paths.run_dir",)
"""Parameters that are a run's own in any case."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One name, and its value in each run; None where a run lacks it.

    Attributes:
        name: of a parameter or figure.
        values: in the order of the runs.
    """

    name: str
    values: tuple[Value, ...]


def parameter_differences(runs: Sequence[RunFacts]) -> list[Difference]:
    """Return the parameters that are not equal in all runs, by name."""
    return [one for one in _differences(runs, lambda facts: facts.parameters) if one.name not in _OWN]


def environment_differences(runs: Sequence[RunFacts]) -> list[Difference]:
    """Return versions, devices, commits and data that are not equal in all runs."""
    return _differences(
        runs,
        lambda facts: {
            **{f"environment.{name}": value for name, value in facts.environment.items()},
            **{f"data.{name}": value for name, value in facts.data.items() if name in ("name", "fingerprint")},
        },
    )


def metric_differences(runs: Sequence[RunFacts]) -> list[Difference]:
    """Return the figures that are not equal in all runs, by name; NaN is equal to NaN."""
    return _differences(runs, lambda facts: dict(facts.metrics))


def _differences(runs: Sequence[RunFacts], read: Callable[[RunFacts], dict[str, Value]]) -> list[Difference]:
    values = [read(facts) for facts in runs]
    names = sorted({name for one in values for name in one})
    rows = [Difference(name=name, values=tuple(one.get(name) for one in values)) for name in names]
    return [row for row in rows if not _all_equal(row.values)]


def _all_equal(values: tuple[Value, ...]) -> bool:
    first = values[0]
    return all(
        type(value) is type(first) and (value == first or (_is_nan(value) and _is_nan(first))) for value in values
    )


def _is_nan(value: Value) -> bool:
    return isinstance(value, float) and math.isnan(value)
