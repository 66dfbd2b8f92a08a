"""What a configuration may say to Hydra itself: its section is constructed by Hydra, past our own strict pass.

A file of ``configs/experiment`` may hold a section ``hydra``, whose callbacks, sweeper, launcher and logging name
classes too, and which may set environment variables of a job. All of it is looked at before Hydra acts on it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from neurotrain.app.allow import AllowList, TargetRefused
from neurotrain.app.compose import origin_of
from neurotrain.app.strict import ConfigurationError, Problem

_HANDLERS = frozenset(
    {
        *("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter"),
        *("logging.handlers.RotatingFileHandler", "logging.handlers.TimedRotatingFileHandler"),
        "colorlog.ColoredFormatter",
    }
)
"""What a logging section may build; ``logging.config`` would import and call any other name as well."""

_STREAMS = frozenset({"ext://sys.stdout", "ext://sys.stderr"})
_IMPORTED = re.compile(r"(?:ext|cfg)://|(?!\$\{hydra\.runtime\.output_dir\}/).*\$\{", re.DOTALL)
"""What ``logging.config`` imports, or what an interpolation could turn into that."""

_LOGGING = ("hydra_logging", "job_logging")
_STEERING = re.compile(r"NEUROTRAIN_.*|HYDRA_.*|LD_.*|DYLD_.*|PYTHON.*|PATH")
"""Environment variables that decide what code runs."""

_RERUN = "--experimental-rerun"


def section_problems(
    section: Mapping[str, Any], *, origin: Callable[[str], str | None] = lambda key: None
) -> list[Problem]:
    """Everything in Hydra's section that could run code which nobody registered.

    Args:
        section: plain containers, interpolations resolved or not.
        origin: names the file that set a dotted key, or returns None.

    Returns:
        One problem for each refused target, logging factory and environment variable.

    Example:
        >>> for problem in section_problems({"callbacks": {"x": {"_target_": "os.system"}}}):
        ...     print(problem)
        hydra.callbacks.x._target_: target 'os.system' is refused: it is not registered, and this library is ...
    """
    allow = AllowList.from_environment(_plugins())
    problems: list[Problem] = []
    for key, value in section.items():
        found = _logging_problems(value) if key in _LOGGING else _target_problems(value, allow)
        problems += [_problem(f"{key}.{place}", reason, origin) for place, reason in found]
    job = section.get("job")
    named = job.get("env_set") if isinstance(job, Mapping) else None
    for name in named if isinstance(named, Mapping) else ():
        if _STEERING.fullmatch(str(name)):
            reason = "decides what code runs: set it in the environment, no configuration may"
            problems.append(_problem(f"job.env_set.{name}", reason, origin))
    return problems


def _problem(place: str, reason: str, origin: Callable[[str], str | None]) -> Problem:
    return Problem(f"hydra.{place}", reason, origin(f"hydra.{place}"))


@contextmanager
def checked_sections() -> Generator[None]:
    """See to it that Hydra acts on no section that :func:`section_problems` refuses; the process then ends with 2."""
    # Hydra's command line composes in one method whatever flags were typed, and offers no hook behind it.
    compose = ConfigLoaderImpl.load_configuration

    def composed(
        self: ConfigLoaderImpl,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        config = compose(self, config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        section = OmegaConf.to_container(config.hydra, resolve=False)
        problems = section_problems(cast("Mapping[str, Any]", section), origin=origin_of(overrides))
        if problems:
            sys.stderr.write(f"error: {ConfigurationError(problems)}\n")
            raise SystemExit(2)
        return config

    ConfigLoaderImpl.load_configuration = composed
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = compose


def refuse_pickles(arguments: Sequence[str]) -> None:
    """Refuse Hydra's flag that unpickles a file; argparse takes any of its beginnings for it.

    Raises:
        ConfigurationError: if it was typed.

    Example:
        >>> refuse_pickles(["experiment=drive_unet", "--exp=config.pickle"])
        Traceback (most recent call last):
        neurotrain.app.strict.ConfigurationError: --experimental-rerun: reads a pickle, which ... resume=PATH ...
    """
    typed = (argument.partition("=")[0] for argument in arguments)
    if any(len(flag) > len("--") and _RERUN.startswith(flag) for flag in typed):
        reason = "reads a pickle, which can run any code: use resume=PATH or ckpt=PATH of a run directory"
        raise ConfigurationError([Problem(_RERUN, reason, None)])


def _plugins() -> dict[str, object]:
    """Launchers and sweepers that are installed, those of Hydra included."""
    found = [*Plugins.instance().discover(Launcher), *Plugins.instance().discover(Sweeper)]
    return {f"{plugin.__module__}.{plugin.__qualname__}": plugin for plugin in found}


def _target_problems(value: object, allow: AllowList) -> Iterator[tuple[str, str]]:
    for place, key, leaf in _leaves(value):
        if key == "_target_":
            try:
                allow.resolve(str(leaf))
            except TargetRefused as refusal:
                yield place, str(refusal)
        elif key.startswith("_zen_"):
            yield place, f"{key!r} is reserved"


def _logging_problems(value: object) -> Iterator[tuple[str, str]]:
    for place, key, leaf in _leaves(value):
        if key in ("class", "()", "factory", "_target_") and leaf not in _HANDLERS:
            yield place, f"{leaf!r} may not be built by a configuration; these may: {', '.join(sorted(_HANDLERS))}"
        elif isinstance(leaf, str) and leaf not in _STREAMS and _IMPORTED.match(leaf):
            yield place, f"{leaf!r} may import a name; of such these may stand here: {', '.join(sorted(_STREAMS))}"


def _leaves(value: object, place: str = "", key: str = "") -> Iterator[tuple[str, str, object]]:
    """Dotted place, own key and value of all that is neither mapping nor list."""
    items: list[tuple[str, object]] = []
    if isinstance(value, Mapping):
        items = [(str(name), inner) for name, inner in cast("Mapping[object, object]", value).items()]
    elif isinstance(value, (list, tuple)):
        items = [(str(index), inner) for index, inner in enumerate(cast("Sequence[object]", value))]
    else:
        yield place, key, value
    for name, inner in items:
        yield from _leaves(inner, f"{place}.{name}" if place else name, name)
