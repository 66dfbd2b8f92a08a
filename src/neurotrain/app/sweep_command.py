"""``train.py -m``, ``hparams_search=``, ``--resume SWEEP_DIR``: many runs of one command, each a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hydra.errors import HydraException

from neurotrain.app.compose import Configuration, compose
from neurotrain.app.jobs.leases import DriverLock, Leases, machine_folder, visible_devices
from neurotrain.app.overrides import MULTIRUN, folders
from neurotrain.app.strict import ConfigurationError, Problem
from neurotrain.app.sweeps.driver import Driver, Launcher, Source, SweepResult
from neurotrain.app.sweeps.grid import Grid, combinations
from neurotrain.app.sweeps.local import LocalLauncher, this_program, training_command
from neurotrain.app.sweeps.search import Search
from neurotrain.app.sweeps.search_settings import SearchSettings, Value, override, search_settings, with_defaults
from neurotrain.app.sweeps.settings import SweepSettings, split, sweep_settings
from neurotrain.app.sweeps.table import Direction, show
from neurotrain.app.sweeps.trials import TABLE, Plan, SweepError, SweepFolder
from neurotrain.app.train import MISTAKES

RESUME = "--resume"
_OWNED = ("paths.run_dir", "resume")
_FREE = ("jobs", "seconds", "grace", "slurm")
"""Settings that may change when a sweep is taken up."""
_SEARCH = "hparams_search"


@dataclass(frozen=True)
class _Request:
    """What was typed, now or when the sweep began.

    Attributes:
        overrides: of the runs.
        sweep: settings by dotted key.
        search: settings of ``hparams_search`` by dotted key, its name under the empty key; empty for a grid.
    """

    overrides: tuple[str, ...]
    sweep: dict[str, Any]
    search: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Names the sweep: the same for the same command, however many jobs run at once."""
        kept = {key: value for key, value in self.sweep.items() if key.split(".")[0] not in _FREE}
        search = {key: value for key, value in self.search.items() if key != "trials"}
        told = json.dumps([self.overrides, kept, search], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:8]


def main(arguments: Sequence[str]) -> NoReturn:
    """Run a sweep and end the process with what it came to; a user's mistake is one message and exit code 2.

    Args:
        arguments: of the command line.
    """
    try:
        code = sweep(arguments)
    except MISTAKES as error:
        sys.stderr.write(f"error: {error}\n")
        code = 2
    raise SystemExit(code)


def sweep(arguments: Sequence[str]) -> int:
    """Run a sweep, or go on with it; every configuration is checked before anything runs.

    Args:
        arguments: of the command line.

    Returns:
        0 where every trial finished or was pruned, 1 where one did not, 128 plus the signal that ended the sweep.

    Raises:
        ConfigurationError: if a trial's configuration is wrong.
        SweepError: if the sweep itself is wrong.
    """
    folder, request = _requested(arguments)
    settings = sweep_settings(request.sweep)
    if request.search:
        return _search(folder, request, settings)
    runs = combinations(request.overrides)
    configs = _all_checked([everything for _, everything in runs])
    folder = folder or _folder(request, settings, configs[0])
    objective, direction = _objective(settings, configs[0])
    _refuse_too_few(max(_devices(one.values["trainer"]) for one in configs), settings)
    lock = DriverLock(folder.path)
    try:
        stamp = _begin(folder, request, None)
        numbered = enumerate(zip(runs, configs, strict=True))
        plans = [_plan(number, *run, config, stamp) for number, (run, config) in numbered]
        for plan in plans:
            folder.keep(plan)
        result = _driver(folder, Grid(plans, objective=objective), settings).run()
    finally:
        lock.release()
    show(result, objective=objective, direction=direction, folder=folder.path)
    return _concluded(result, folder)


def _search(folder: SweepFolder | None, request: _Request, settings: SweepSettings) -> int:
    typed = {key: value for key, value in request.search.items() if key}
    search = search_settings(request.search[""], typed, folders())
    given = tuple(with_defaults(search.overrides, request.overrides))
    _refuse_what_a_search_decides(search, given, settings)
    probes = [(*given, *(override(key, value) for key, value in probe.items())) for probe in search.probes()]
    config = _all_checked(probes)[0]
    _refuse_too_few(_devices(config.values["trainer"]), settings)
    folder = place = folder or _folder(request, settings, config)

    def plan(number: int, parameters: dict[str, Value]) -> Plan:
        varied = tuple(override(key, value) for key, value in parameters.items())
        made = _plan(number, varied, (*given, *varied), config, stamp)
        place.keep(made)
        return made

    lock = DriverLock(folder.path)
    try:
        stamp = _begin(folder, request, search.model_dump(mode="json", exclude={"trials"}))
        source = Search(search, folder=folder.path, plan=plan)
        result = _driver(folder, source, settings).run()
    finally:
        lock.release()
    show(result, objective=search.objective, direction=search.direction, folder=folder.path)
    return _concluded(result, folder)


def _refuse_what_a_search_decides(search: SearchSettings, given: Sequence[str], settings: SweepSettings) -> None:
    for name in ("objective", "direction"):
        if name in settings.model_fields_set:
            raise SweepError(f"sweep.{name}: has no effect on a search: type hparams_search.{name}")
    if len(combinations(given)) > 1:
        raise SweepError("several values for one key: a search chooses them; put the key into hparams_search.space")
    keys = {text.lstrip("+~").partition("=")[0] for text in given}
    for key in search.space:
        if key in keys:
            raise SweepError(f"{key}: was typed, and is in the space of the search as well")


def _concluded(result: SweepResult, folder: SweepFolder) -> int:
    _tell(f"table: {folder.path / TABLE}")
    if result.exit_code:
        _tell(f"go on with what is left: the same command, or {RESUME} {folder.path}")
    return result.exit_code


def _requested(arguments: Sequence[str]) -> tuple[SweepFolder | None, _Request]:
    """Read the command line; with ``--resume`` also what the sweep was told when it began."""
    rest = [argument for argument in arguments if argument not in MULTIRUN]
    place: str | None = None
    if RESUME in rest:
        index = rest.index(RESUME)
        if index + 1 == len(rest):
            raise SweepError(f"{RESUME} needs the folder of a sweep")
        place = rest[index + 1]
        del rest[index : index + 2]
    sweep_values, rest = split(rest, "sweep")
    search_values, rest = split(rest, _SEARCH)
    names = [override.partition("=")[2] for override in rest if override.startswith(f"{_SEARCH}=")]
    rest = [override for override in rest if not override.startswith(f"{_SEARCH}=")]
    if names:
        search_values[""] = names[-1]
    elif search_values and place is None:
        raise SweepError(f"{_SEARCH}.{next(iter(search_values))}: has no effect without {_SEARCH}=NAME")
    if place is None:
        return None, _owned(_Request(tuple(rest), sweep_values, search_values))
    return _taken_up(Path(place), rest, sweep_values, search_values)


def _taken_up(
    place: Path, rest: Sequence[str], sweep_values: dict[str, Any], search_values: dict[str, Any]
) -> tuple[SweepFolder, _Request]:
    folder = SweepFolder(place.absolute())
    told = folder.told()
    typed = [*rest, *(f"sweep.{key}" for key in sweep_values if key.split(".")[0] not in _FREE)]
    typed += [f"{_SEARCH}.{key}" for key in search_values if key != "trials"]
    if typed:
        free = ", ".join(f"sweep.{name}" for name in _FREE)
        raise SweepError(f"{RESUME} {place}: {typed[0]} was decided when the sweep began; only {free} may be given")
    os.chdir(told["cwd"])  # relative paths, and the user's own configs
    search = {**told["search"], **search_values}
    return folder, _Request(tuple(told["overrides"]), {**told["sweep"], **sweep_values}, search)


def _owned(request: _Request) -> _Request:
    for text in request.overrides:
        key = text.lstrip("+").partition("=")[0]
        if key in _OWNED:
            raise SweepError(f"{key}: each trial of a sweep has a run directory of its own, which the sweep names")
    return request


def _all_checked(runs: Sequence[Sequence[str]]) -> list[Configuration]:
    """Compose every run; raise with the mistakes of all, each once."""
    configs: list[Configuration] = []
    problems: dict[str, Problem] = {}
    for run in runs:
        try:
            configs.append(compose(None, run))
        except HydraException as error:
            raise SweepError(" ".join(str(error).split())) from None
        except ConfigurationError as error:
            problems.update({str(problem): problem for problem in error.problems})
    if problems:
        raise ConfigurationError(list(problems.values()))
    notices = {config.notice: None for config in configs if config.notice is not None}
    for notice in notices:
        _tell(notice)
    return configs


def _folder(request: _Request, settings: SweepSettings, config: Configuration) -> SweepFolder:
    if settings.dir is not None:
        return SweepFolder(Path(settings.dir).absolute())
    runs_dir = Path(config.values["paths"]["runs_dir"])
    return SweepFolder((runs_dir / "sweeps" / f"{config.values['name']}-{request.fingerprint}").absolute())


def _begin(folder: SweepFolder, request: _Request, search: dict[str, Any] | None) -> str:
    """Write what the sweep is told, and return what the names of its runs begin with.

    Raises:
        SweepError: if the folder holds another sweep, or the search's file has changed since.
    """
    told = {
        "fingerprint": request.fingerprint,
        "stamp": f"{time.strftime('%Y%m%d-%H%M%S')}-{request.fingerprint}",
        "cwd": str(Path.cwd()),
        "overrides": list(request.overrides),
        "sweep": request.sweep,
        "search": request.search,
        "definition": search,
    }
    kept = folder.begin(told)
    if kept["fingerprint"] != request.fingerprint:
        raise SweepError(f"{folder.path} holds another sweep ({' '.join(kept['overrides'])}): type another sweep.dir")
    if kept["definition"] != search:
        changed = [key for key in search or {} if (kept["definition"] or {}).get(key) != (search or {})[key]]
        raise SweepError(f"{folder.path}: the search began with other {', '.join(changed)}: type another sweep.dir")
    return kept["stamp"]


def _plan(number: int, varied: tuple[str, ...], everything: tuple[str, ...], config: Configuration, stamp: str) -> Plan:
    values = config.values
    run_dir = (Path(values["paths"]["runs_dir"]) / values["name"] / f"{stamp}-{number:04d}").absolute()
    devices = _devices(values["trainer"])
    return Plan(number, varied, everything, str(run_dir), devices, resumes=values["stage"] == "fit")


def _devices(trainer: Mapping[str, Any]) -> int:
    """Say how many GPUs a run needs; 0 where it runs on the CPU.

    Raises:
        SweepError: if the run names its devices, which is the lease's to do.
    """
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and bool(visible_devices(os.environ)))
    if not on_gpu:
        return 0
    if devices == "auto":
        return 1
    if not isinstance(devices, int) or devices < 1:
        raise SweepError(f"trainer.devices={devices}: a sweep leases devices; give their number")
    return devices


def _refuse_too_few(devices: int, settings: SweepSettings) -> None:
    known = visible_devices(os.environ)
    if settings.launcher == "local" and devices > len(known):
        raise SweepError(f"trainer.devices={devices}: there are {len(known)} GPUs here")


def _objective(settings: SweepSettings, config: Configuration) -> tuple[str | None, Direction]:
    checkpoint = config.values["callbacks"].get("checkpoint") or {}
    monitor = settings.objective or checkpoint.get("monitor")
    mode: Direction = "minimize" if checkpoint.get("mode") == "min" else "maximize"
    if settings.objective is not None and settings.objective != checkpoint.get("monitor") and not settings.direction:
        raise SweepError("sweep.objective needs sweep.direction=maximize or sweep.direction=minimize")
    return monitor, settings.direction or mode


def _driver(folder: SweepFolder, source: Source, settings: SweepSettings) -> Driver:
    return Driver(folder=folder, source=source, launcher=_launcher(folder, settings), tell=_tell)


def _launcher(folder: SweepFolder, settings: SweepSettings) -> Launcher:
    command = training_command(this_program())
    if settings.launcher == "slurm":
        from neurotrain.app.sweeps.slurm import ClusterLauncher

        return ClusterLauncher(
            folder=folder,
            command=command,
            slurm=settings.slurm,
            jobs=settings.jobs,
            cwd=Path.cwd(),
            seconds=settings.seconds,
            grace=settings.grace,
        )
    leases = Leases(
        folder=machine_folder(),
        devices=visible_devices(os.environ),
        places=settings.jobs,
        places_folder=folder.path / "places",
    )
    return LocalLauncher(
        folder=folder,
        command=command,
        leases=leases,
        cwd=Path.cwd(),
        seconds=settings.seconds,
        grace=settings.grace,
    )


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
