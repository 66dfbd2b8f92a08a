"""Every combination of comma-separated values, by Hydra's own grammar."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from neurotrain.app.sweeps.trials import Outcome, Plan, Status, SweepError


def combinations(overrides: Sequence[str]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Expand sweeps such as ``seed=0,1``, ``lr=choice(1,2)`` and ``width=range(1,4)`` into single runs.

    Args:
        overrides: as typed.

    Returns:
        For each run what varies, and everything that it is told; the last override varies fastest.

    Raises:
        SweepError: if an override cannot be parsed.

    Example:
        >>> for varied, everything in combinations(["experiment=a", "seed=0,1"]):
        ...     print(varied, everything)
        ('seed=0',) ('experiment=a', 'seed=0')
        ('seed=1',) ('experiment=a', 'seed=1')
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise SweepError(" ".join(str(error).split())) from None
    values: list[list[str]] = []
    swept: list[bool] = []
    for override, typed in zip(parsed, overrides, strict=True):
        swept.append(override.is_sweep_override())
        key = typed.partition("=")[0]
        expanded = [f"{key}={value}" for value in override.sweep_string_iterator()] if swept[-1] else [typed]
        values.append(expanded)
    runs = itertools.product(*values)
    return [(tuple(text for text, varies in zip(run, swept, strict=True) if varies), run) for run in runs]


class Grid:
    """Trials that are all known from the start.

    Args:
        plans: in order.
        objective: name of the figure that the table shows; None for none.
    """

    def __init__(self, plans: Sequence[Plan], *, objective: str | None = None) -> None:
        self.plans = list(plans)
        self._objective = objective

    @property
    def objective(self) -> str | None:
        """Name of the figure that the table shows."""
        return self._objective

    def known(self) -> list[Plan]:
        """Return all trials."""
        return self.plans

    def next(self) -> Plan | None:
        """Return None: all trials are known."""
        return None

    def watch(self, plan: Plan) -> str | None:
        """Return None: a trial of a grid runs to its end."""
        return None

    def done(self, plan: Plan, outcome: Outcome) -> None:
        """Do nothing: the sweep's folder knows."""

    def repeats(self, outcome: Outcome) -> bool:
        """Return whether the trial did not finish, by whatever cause."""
        return outcome.status in (Status.FAILED, Status.INTERRUPTED)
