"""``train.py``'s arguments, composed once where that is enough, or handed to Hydra's command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra import main as hydra_main
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from neurotrain.app.compose import PRIMARY, VERSION_BASE, checked, prepare
from neurotrain.app.hydra_section import checked_sections, refuse_pickles
from neurotrain.app.overrides import config_folder, force_values, readable, substituted
from neurotrain.app.secrets import Secrets
from neurotrain.app.train import MISTAKES, train


def launch() -> None:
    """Run ``train`` for the arguments of the command line (``--help``, ``--cfg job``, ``-m``, completion are Hydra's).

    Hydra's command line composes twice, first only to learn whether it is to sweep. Where no flag was typed this
    composes once; what cannot be composed goes to Hydra all the same, which says what is wrong with it.
    """
    prepare()
    try:
        refuse_pickles(sys.argv[1:])
        typed, notice = substituted(sys.argv[1:])
    except ValueError as error:
        _end(error)
    sys.argv[1:] = arguments = force_values(typed)
    if is_plain(arguments):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(config_folder()), version_base=VERSION_BASE):
            try:
                raw = _composed(arguments)
            except ValueError as error:
                _end(error)
            if raw is not None:
                _run(raw, arguments, notice)
                return

    def job(raw: DictConfig) -> dict[str, float]:
        return _run(raw, list(HydraConfig.get().overrides.task), notice)

    with checked_sections():
        hydra_main(config_path=str(config_folder()), config_name=PRIMARY, version_base=VERSION_BASE)(job)()


def is_plain(arguments: Sequence[str]) -> bool:
    """Whether the arguments are neither flags nor for Hydra itself.

    Example:
        >>> is_plain(["experiment=drive_unet", "++seed=3"]), is_plain(["-m", "++seed=1,2"])
        (True, False)
    """
    return not any(argument.startswith("-") or argument.lstrip("+~").startswith("hydra") for argument in arguments)


def _composed(arguments: Sequence[str]) -> DictConfig | None:
    """Compose one run; None where the arguments are wrong, or an experiment asks for a sweep."""
    try:
        with readable():
            raw = hydra_compose(PRIMARY, overrides=list(arguments), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        return None
    if raw.hydra.mode not in (None, RunMode.RUN):
        return None
    with open_dict(raw):
        del raw["hydra"]
    return raw


def _run(raw: DictConfig, overrides: list[str], notice: str | None) -> dict[str, float]:
    full_trace = bool(raw.get("full_trace", False))
    try:
        return train(checked(raw, overrides=overrides, notice=notice), keep_predictions=False).metrics
    except MISTAKES as error:
        if full_trace:
            raise
        _end(error)


def _end(error: Exception) -> NoReturn:
    sys.stderr.write(Secrets.of({}).hide(f"error: {error}\n"))
    raise SystemExit(2) from None
