"""What a sweep is told beside its trials: ``sweep.jobs=2`` and its like on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from neurotrain.app.jobs.strict_files import Strict, validated
from neurotrain.app.sweeps.trials import SweepError
from neurotrain.documents import parse_yaml

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Slurm(Strict):
    """What each job asks SLURM for.

    Attributes:
        partition: of the cluster; its default where None.
        account: to charge; the user's default where None.
        qos: quality of service; the default where None.
        minutes: limit of time of a job.
        cpus: for each task.
        memory_gb: for each node; the cluster's default where None.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    minutes: Positive = 1440
    cpus: Positive = 4
    memory_gb: Positive | None = None


class SweepSettings(Strict):
    """How trials are run.

    Attributes:
        dir: folder of the sweep; None makes one that the same command finds again.
        jobs: on the CPU, or in SLURM's queue, at once; GPUs are leased one by one instead.
        seconds: limit of time for an attempt of a trial; None for no limit.
        grace: seconds between asking a trial to save and end, and killing it.
        launcher: ``local``, or ``slurm`` by submitit.
        objective: figure of ``summary.json`` that the table shows; None takes what ``best.ckpt`` is chosen by.
        direction: which values of it are better; None takes the checkpoint's ``mode``.
        slurm: what each job asks for.
    """

    dir: str | None = None
    jobs: Positive = 1
    seconds: Seconds | None = None
    grace: Seconds = 60.0
    launcher: Literal["local", "slurm"] = "local"
    objective: str | None = None
    direction: Literal["maximize", "minimize"] | None = None
    slurm: Slurm = Slurm()


def split(overrides: Sequence[str], prefix: str) -> tuple[dict[str, Any], list[str]]:
    """Take the overrides under a prefix out of a command line.

    Args:
        overrides: as typed.
        prefix: with which dotted keys begin.

    Returns:
        Values by dotted key without the prefix, read as YAML; and the other overrides.

    Example:
        >>> split(["seed=1", "sweep.jobs=2"], "sweep")
        ({'jobs': 2}, ['seed=1'])
    """
    found: dict[str, Any] = {}
    others: list[str] = []
    for override in overrides:
        key, separator, value = override.lstrip("+").partition("=")
        if separator and key.startswith(f"{prefix}."):
            found[key.removeprefix(f"{prefix}.")] = _read(override, value)
        else:
            others.append(override)
    return found, others


def _read(override: str, value: str) -> Any:  # noqa: ANN401 - any YAML
    try:
        return parse_yaml(value)
    except yaml.YAMLError as error:
        raise SweepError(f"{override}: {' '.join(str(error).split())}") from None


def sweep_settings(values: dict[str, Any]) -> SweepSettings:
    """Check and keep ``sweep.*``.

    Args:
        values: by dotted key, from :func:`split`.

    Raises:
        SweepError: with one line for each mistake.

    Example:
        >>> sweep_settings({"jbos": 2})
        Traceback (most recent call last):
            ...
        neurotrain.app.sweeps.trials.SweepError: sweep: jbos: unknown key; did you mean 'jobs'?
    """
    nested: dict[str, Any] = {}
    for key, value in values.items():
        holder, _, name = key.rpartition(".")
        if not holder:
            nested[name] = value
        else:
            nested.setdefault(holder, {})[name] = value
    return validated(SweepSettings, nested, where="sweep", error=SweepError)
