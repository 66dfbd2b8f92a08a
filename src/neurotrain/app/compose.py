"""From overrides to a checked configuration: compose, name the file of each key, refuse what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neurotrain.app.defaults_lists import lean_defaults_lists
from neurotrain.app.expansion import check_expansion
from neurotrain.app.overrides import EXPERIMENT, config_folder, force_values, readable, substituted, user_folder
from neurotrain.app.precision import fastest_precision
from neurotrain.app.registry import OWNED_BY_THE_RUN, register
from neurotrain.app.settings import RunSettings
from neurotrain.app.strict import ConfigurationError, Problem, check
from neurotrain.app.yaml_loading import bound_loaders

PRIMARY = "train"
VERSION_BASE = "1.3"
UNBOUND = Path("the-run-directory")  # stands for paths.run_dir until a run has one


class UserFolder(SearchPathPlugin):
    """Puts ``./configs`` of the working directory before the shipped configurations."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Prepend the user's folder where there is one."""
        own = user_folder()
        if own is not None:
            search_path.prepend(provider="user", path=f"file://{own}")


@dataclass(frozen=True)
class Configuration:
    """A composed and checked configuration.

    Attributes:
        values: resolved plain containers, ready to construct.
        raw: as composed, interpolations and environment variables unresolved: what is saved with the run.
        overrides: what was typed.
        notice: a line that the user must see first, or None.
    """

    values: dict[str, Any]
    raw: DictConfig
    overrides: tuple[str, ...] = field(default=())
    notice: str | None = None

    def bound_to(self, run_dir: Path) -> dict[str, Any]:
        """Return the values with ``paths.run_dir``, and all that refers to it, set to the run's directory."""
        return _resolve(self.raw, run_dir)


def prepare() -> None:
    """Register nodes, resolvers and the user's folder; safe to call twice."""
    register()
    bound_loaders()
    lean_defaults_lists()
    OmegaConf.register_new_resolver("fastest_precision", fastest_precision, replace=True)
    if UserFolder not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(UserFolder)


def compose(experiment: str | None = None, overrides: Sequence[str] = ()) -> Configuration:
    """Compose and check an experiment, as ``train.py`` does from the command line.

    Args:
        experiment: name of a file under ``configs/experiment``.
        overrides: as typed on the command line: ``["trainer.max_epochs=3", "model/network=wnet"]``.

    Returns:
        The checked configuration, for ``neurotrain.train``.

    Raises:
        ConfigurationError: with every problem found.
        ValueError: if a file is no YAML of plain values.

    Example:
        >>> config = compose("drive_unet", ["seed=3", "data=synthetic_drive"])
        >>> config.values["seed"]
        3
    """
    prepare()
    typed = [*([f"{EXPERIMENT}={experiment}"] if experiment else []), *overrides]
    effective, notice = substituted(typed)
    effective = force_values(effective)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base=VERSION_BASE):
        with readable():
            raw = hydra_compose(PRIMARY, overrides=effective)
        return checked(raw, overrides=effective, notice=notice)


def checked(raw: DictConfig, *, overrides: Sequence[str], notice: str | None = None) -> Configuration:
    """Resolve and check a composed configuration; Hydra must be initialised, to name the files.

    Raises:
        ConfigurationError: with every problem found.
    """
    plain = _resolve(raw, UNBOUND)
    origin = origin_of(overrides)
    problems = check(plain, allow=register(), origin=origin, root=RunSettings)
    problems += _owned(plain, origin)
    if problems:
        raise ConfigurationError(problems)
    return Configuration(values=plain, raw=raw, overrides=tuple(overrides), notice=notice)


def _resolve(raw: DictConfig, run_dir: Path) -> dict[str, Any]:
    bound = raw.copy()
    if bound.get("paths") is not None and bound.paths.get("run_dir") is None:
        OmegaConf.update(bound, "paths.run_dir", str(run_dir), force_add=True)
    written = OmegaConf.to_container(bound, resolve=False)
    assert isinstance(written, dict)
    check_expansion({str(key): value for key, value in written.items() if key != "hydra"})
    try:
        values = OmegaConf.to_container(bound, resolve=True)
    except RecursionError:
        raise ConfigurationError([Problem("", "references lead to references without end", None)]) from None
    except OmegaConfBaseException as error:
        problem = Problem(key=str(error.full_key or ""), message=str(error.msg or error).splitlines()[0], file=None)
        raise ConfigurationError([problem]) from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items() if key != "hydra"}


def _owned(values: Mapping[str, Any], origin: Callable[[str], str | None]) -> list[Problem]:
    trainer = values.get("trainer")
    keys = [key for key in OWNED_BY_THE_RUN if isinstance(trainer, dict) and key in trainer]
    advice = "is decided by the groups `callbacks` and `logger` and by `paths.run_dir`, not by the trainer"
    return [Problem(f"trainer.{key}", advice, origin(f"trainer.{key}")) for key in keys]


def origin_of(overrides: Sequence[str]) -> Callable[[str], str | None]:
    """Return a function that names the file, or the command line, that last set a key."""
    typed = {argument.lstrip("+~").partition("=")[0] for argument in overrides}
    layers: list[tuple[str, DictConfig]] = []

    def load() -> None:
        loader = GlobalHydra.instance().config_loader()
        found = loader.compute_defaults_list(PRIMARY, list(overrides), RunMode.RUN)
        for default in found.defaults:
            path = default.config_path
            if path is None or path.startswith("hydra/") or Path(path).name.startswith("_"):
                continue
            layers.append((path, _packaged(path, default.package or "")))

    def name(key: str) -> str | None:
        if any(f"{other}.".startswith(f"{key}.") or f"{key}.".startswith(f"{other}.") for other in typed):
            return "command line"
        if not layers:
            load()
        holders = [path for path, config in layers if _holds(config, key)]
        return f"configs/{holders[-1]}.yaml" if holders else None

    return name


def _packaged(path: str, package: str) -> DictConfig:
    """Read one YAML file and put its keys under its package."""
    for folder in (user_folder(), config_folder()):
        file = None if folder is None else folder / f"{path}.yaml"
        if file is not None and file.is_file():
            content = OmegaConf.load(file)
            wrapped = OmegaConf.create({})
            if package in ("", "_global_"):
                return OmegaConf.merge(wrapped, content)  # pyright: ignore[reportReturnType]
            OmegaConf.update(wrapped, package, content, force_add=True)
            return wrapped
    return OmegaConf.create({})


def _holds(config: DictConfig, key: str) -> bool:
    node: Any = OmegaConf.to_container(config, resolve=False)
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True
