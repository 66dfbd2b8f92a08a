"""What a user types, before Hydra composes it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from neurotrain.documents import parse_yaml

SHIPPED = Path(__file__).parents[1] / "configs"
IN_CHECKOUT = Path(__file__).parents[3] / "configs"
EXPERIMENT = "experiment"
MULTIRUN = ("-m", "--multirun")
COMPLETION = frozenset({"-sc", "--shell-completion"})


def config_folder() -> Path:
    """Return the folder of the shipped configurations: package data, or the checkout's ``configs``."""
    return SHIPPED if SHIPPED.is_dir() else IN_CHECKOUT


def user_folder() -> Path | None:
    """Return ``./configs`` of the working directory, which is searched first, unless it is the shipped one."""
    own = Path.cwd() / "configs"
    return own if own.is_dir() and own.resolve() != config_folder().resolve() else None


def folders() -> tuple[Path, ...]:
    """Return the searched folders, the user's first."""
    own = user_folder()
    return (config_folder(),) if own is None else (own, config_folder())


def force_values(overrides: Sequence[str]) -> list[str]:
    """Prefix plain value overrides with ``++``, so that an unknown key reaches the strict check.

    Hydra stops at the first unknown key and suggests ``+``; the strict check names all of them with the nearest
    valid ones. Group selections (``model/network=unet``), Hydra's own keys and flags stay as they are.

    Args:
        overrides: the arguments as typed.

    Returns:
        The same arguments, values prefixed, the flag for a sweep last.

    Example:
        >>> force_values(["model.lr=1", "seed=3", "experiment=drive_unet", "--cfg", "job"])
        ['++model.lr=1', '++seed=3', 'experiment=drive_unet', '--cfg', 'job']
    """
    if not COMPLETION.isdisjoint(overrides):
        return list(overrides)  # install=bash is no value
    groups = {entry.name for folder in folders() for entry in folder.iterdir() if entry.is_dir()}

    def forced(argument: str) -> str:
        key, separator, _ = argument.partition("=")
        plain = separator and key[:1].isalpha() and not any(mark in key for mark in "/@")
        if not plain or key in groups or key.split(".")[0] == "hydra":
            return argument
        return f"++{argument}"

    # argparse takes positional arguments in one run only: a flag between them would end it.
    multirun = [argument for argument in overrides if argument in MULTIRUN]
    return [*(forced(argument) for argument in overrides if argument not in MULTIRUN), *multirun]


def substituted(overrides: Sequence[str]) -> tuple[list[str], str | None]:
    """Replace an experiment whose data are not on this machine by the one that it names for that case.

    Only an experiment that declares ``when_absent`` is replaced, and only where neither ``data=`` nor
    ``paths.data_dir=`` was typed: whoever types one insists on it; nor ``source=``, which needs no data set.

    Args:
        overrides: the arguments as typed.

    Returns:
        The arguments, and the line to print where the experiment was replaced.
    """
    pairs = [argument.lstrip("+").partition("=") for argument in overrides]
    typed = {key: value for key, separator, value in pairs if separator}
    name = typed.get(EXPERIMENT)
    insists = {"data", "data/dataset", "paths.data_dir", "data.dataset.root", "source"}
    if name is None or not typed.keys().isdisjoint(insists):
        return list(overrides), None
    declared = _read(f"{EXPERIMENT}/{name}.yaml").get("when_absent")
    if declared is None:
        return list(overrides), None
    wanted = Path(_read("paths/default.yaml")["data_dir"]) / declared["path"]
    if wanted.exists():
        return list(overrides), None
    replaced = [
        f"{EXPERIMENT}={declared['experiment']}" if argument.startswith(f"{EXPERIMENT}=") else argument
        for argument in overrides
    ]
    message = f"{wanted} is not there: running experiment={declared['experiment']} instead. {declared['advice']}"
    return replaced, message


@contextmanager
def readable() -> Generator[None]:
    """Tell of YAML that cannot be read, a tag that would call something among it, as one mistake of one line.

    Raises:
        ValueError: with the file, the line and the reason.

    Example:
        >>> with readable():
        ...     parse_yaml("!!python/object/apply:os.system [ls]")
        Traceback (most recent call last):
        ValueError: unreadable YAML: could not determine a constructor for the tag ...os.system' in ...
    """
    try:
        yield
    except yaml.YAMLError as error:
        raise ValueError(f"unreadable YAML: {' '.join(str(error).split())}") from None


def _read(relative: str) -> dict[str, Any]:
    for folder in folders():
        path = folder / relative
        if path.is_file():
            with path.open(encoding="utf-8") as file, readable():
                return parse_yaml(file) or {}
    return {}
