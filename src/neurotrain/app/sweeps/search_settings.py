"""What a search is told: the files of ``configs/hparams_search``, checked to the last key before anything runs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from neurotrain.app.jobs.names import nearest
from neurotrain.app.jobs.strict_files import Strict, read_mapping, validated
from neurotrain.app.sweeps.settings import Positive
from neurotrain.app.sweeps.trials import SweepError

GROUP = "hparams_search"
Scalar = bool | int | float | str | None
Value = Scalar | list[int] | list[float] | list[str]
Count = Annotated[int, Field(ge=0)]
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_RESERVED = frozenset({"true", "false", "null", "nan", "inf"})


class FloatRange(Strict):
    """Numbers between two bounds.

    Attributes:
        low: included.
        high: included.
        log: whether equal ratios are equally likely.
        step: between values, or None for all of them; not with ``log``.
    """

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatRange:
        _check_range(self.low, self.high, log=self.log, stepped=self.step is not None)
        return self

    def corners(self) -> list[Value]:
        """Return the values at the bounds."""
        return [self.low, self.high]


class IntRange(Strict):
    """Whole numbers between two bounds.

    Attributes:
        low: included.
        high: included.
        log: whether equal ratios are equally likely.
        step: between values; not with ``log``.
    """

    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    step: Positive = 1

    @model_validator(mode="after")
    def _is_a_range(self) -> IntRange:
        _check_range(self.low, self.high, log=self.log, stepped=self.step != 1)
        return self

    def corners(self) -> list[Value]:
        """Return the values at the bounds."""
        return [self.low, self.high]


class Categorical(Strict):
    """One of some values, without order.

    Attributes:
        choices: at least two, all different.
    """

    type: Literal["categorical"]
    choices: Annotated[list[Value], Field(min_length=2)]

    @model_validator(mode="after")
    def _are_different(self) -> Categorical:
        if len({repr(choice) for choice in self.choices}) < len(self.choices):
            raise ValueError(f"choices {self.choices} repeat")
        return self

    def corners(self) -> list[Value]:
        """Return all choices."""
        return list(self.choices)


Parameter = Annotated[FloatRange | IntRange | Categorical, Field(discriminator="type")]


class Sampler(Strict):
    """How the next trial is chosen.

    Attributes:
        type: ``tpe``, the tree-structured Parzen estimator, or ``random``.
        seed: of its draws; each trial draws from ``seed`` and its own number, so that a killed search goes on alike.
        startup_trials: drawn at random before TPE begins.
    """

    type: Literal["tpe", "random"] = "tpe"
    seed: Count = 0
    startup_trials: Positive = 10


class Pruner(Strict):
    """When a trial ends early.

    Attributes:
        type: ``median`` ends what is worse than the median of the others after as many rows; ``none`` ends nothing.
        startup_trials: that run to their end before any is compared.
        warmup_rows: of the objective that each trial may log before it is compared.
    """

    type: Literal["median", "none"] = "median"
    startup_trials: Count = 5
    warmup_rows: Count = 0


class SearchSettings(Strict):
    """A search.

    Attributes:
        objective: figure of ``summary.json``; its rows in ``metrics.csv`` are what trials are pruned by.
        direction: which values of it are better.
        trials: in all; may be raised to go on.
        space: of each parameter, by its key on the command line.
        overrides: that every trial is told, before what was typed.
        sampler: how the next trial is chosen.
        pruner: when a trial ends early.
    """

    objective: str
    direction: Literal["maximize", "minimize"]
    trials: Positive
    space: Annotated[dict[str, Parameter], Field(min_length=1)]
    overrides: list[str] = Field(default_factory=list[str])
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()

    def probes(self) -> list[dict[str, Value]]:
        """Return parameters that between them take every bound and every choice, to check configurations with."""
        corners = {key: parameter.corners() for key, parameter in self.space.items()}
        count = max(len(values) for values in corners.values())
        return [{key: values[index % len(values)] for key, values in corners.items()} for index in range(count)]


def search_settings(name: str, typed: Mapping[str, Any], folders: Sequence[Path]) -> SearchSettings:
    """Read a search by name and lay what was typed over it.

    Args:
        name: of a file under ``configs/hparams_search``.
        typed: values by dotted key.
        folders: of configurations, the first one wins.

    Returns:
        The settings.

    Raises:
        SweepError: with one line for each mistake.
    """
    files = {path.stem: path for folder in reversed(folders) for path in sorted((folder / GROUP).glob("*.yaml"))}
    if name not in files:
        raise SweepError(f"{GROUP}={name}: no such search{nearest(name, files)}")
    content = read_mapping(files[name], SweepError)
    for key, value in typed.items():
        _lay_over(content, key, value)
    _refuse_strangers(content.get("space"))
    return validated(SearchSettings, content, where=f"{GROUP}/{name}", error=SweepError)


def override(key: str, value: Value) -> str:
    """Return a parameter as it is typed on the command line.

    Example:
        >>> override("lr", 1e-05), override("model/network", "unet"), override("name", "a b"), override("x", None)
        ('lr=1e-05', 'model/network=unet', "name='a b'", 'x=null')
    """
    return f"{key}={_text(value)}"


def _text(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if not isinstance(value, str):
        return repr(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def with_defaults(defaults: Sequence[str], typed: Sequence[str]) -> list[str]:
    """Return what was typed after those defaults that it does not replace.

    Example:
        >>> with_defaults(["experiment=a", "test=false"], ["experiment=b"])
        ['test=false', 'experiment=b']
    """
    keys = {_key(text) for text in typed}
    return [*(text for text in defaults if _key(text) not in keys), *typed]


def _key(text: str) -> str:
    return text.lstrip("+~").partition("=")[0]


def _lay_over(content: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key; a parameter's own name may have dots."""
    parts = key.split(".")
    if parts[0] == "space" and len(parts) > 2:
        parts = ["space", ".".join(parts[1:-1]), parts[-1]]
    node = content
    for part in parts[:-1]:
        inner = node.setdefault(part, {})
        if not isinstance(inner, dict):
            raise SweepError(f"{GROUP}.{key}: {part} has no keys")
        node = inner
    node[parts[-1]] = value


def _refuse_strangers(space: object) -> None:
    """Name a parameter that was only half typed, for a mistyped one is."""
    if not isinstance(space, dict):
        return
    parameters = cast("dict[str, object]", space)
    whole = [key for key, given in parameters.items() if not isinstance(given, dict) or "type" in given]
    for key in parameters:
        if key not in whole:
            raise SweepError(f"{GROUP}.space.{key}: no such parameter (a new one needs type){nearest(key, whole)}")


def _check_range(low: float, high: float, *, log: bool, stepped: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low={low} and high={high}: expected finite numbers, low below high")
    if log and low <= 0:
        raise ValueError(f"low={low}: expected more than 0 with log=true")
    if log and stepped:
        raise ValueError("step has no effect with log=true")
