"""``stage=sample``: pictures of trained students, a row a number of steps, teachers and other runs' students beside."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from neurotrain.app.expansion import check_expansion
from neurotrain.app.overrides import readable
from neurotrain.app.registry import register
from neurotrain.app.strict import ConfigurationError, Problem, check, instantiate
from neurotrain.app.yaml_loading import bound_loaders
from neurotrain.callbacks import PictureSamples
from neurotrain.callbacks.picture_samples import FOLDER, save_grid
from neurotrain.storage.tensors import read_checkpoint, state_of
from neurotrain.tasks import DistillationTask

logger = logging.getLogger(__name__)


def sample(values: Mapping[str, Any], trainer: Trainer, model: LightningModule, folder: Path) -> dict[str, Tensor]:
    """Load a checkpoint, sample, and write ``figures/samples.png``.

    Args:
        values: of the run: ``ckpt``, and under ``beside`` checkpoints of other runs, whose configurations lie in their
            run directories.
        trainer: says where to compute; its ``PictureSamples`` says what.
        model: the task.
        folder: the run directory.

    Returns:
        Pictures ``(N, C, H, W)`` in [0, 1] of each row, by its title.

    Raises:
        ConfigurationError: if there is nothing that samples pictures, or another run does not say what it was.
    """
    drawing = [callback for callback in trainer.callbacks if isinstance(callback, PictureSamples)]  # pyright: ignore[reportAttributeAccessIssue]
    if len(drawing) != 1 or not isinstance(model, DistillationTask):
        problem = "stage=sample needs one PictureSamples and a DistillationTask: callbacks=diffusion_pictures"
        raise ConfigurationError([Problem("stage", problem, None)])
    device = trainer.strategy.root_device
    _restore(model, Path(values["ckpt"]), device)
    rows = drawing[0].rows(model, name=values["name"])
    for name, path in (values["beside"] or {}).items():
        other = _rebuilt(name, Path(path))
        _restore(other, Path(path), device)
        found = drawing[0].rows(other, name=name)
        rows |= {title: samples for title, samples in found.items() if title not in rows}
    if trainer.is_global_zero:
        save_grid(rows, folder / FOLDER / "samples.png")
        logger.info("%d rows of %d pictures: %s", len(rows), len(next(iter(rows.values()))), folder / FOLDER)
    return rows


def _restore(task: DistillationTask, path: Path, device: torch.device) -> None:
    """Weights, averages and the method's state of a checkpoint."""
    found = read_checkpoint(path)
    state = state_of(found, path)
    task.on_load_checkpoint(found)
    task.load_state_dict(state, strict=True)
    task.to(device)
    task.on_test_start()  # frozen roles come to the device, averages to their networks


def _rebuilt(name: str, path: Path) -> DistillationTask:
    """The task of another run, out of the configuration in its run directory."""
    told = path.resolve().parent.parent / "config.yaml"
    if not path.is_file() or not told.is_file():
        missing = path if not path.is_file() else told
        raise ConfigurationError(
            [Problem(f"beside.{name}", f"no file {missing}: a checkpoint in its run directory", None)]
        )
    task = instantiate(_told_model(told, key=f"beside.{name}"), allow=register(), key=f"beside.{name}")
    if not isinstance(task, DistillationTask):
        raise ConfigurationError([Problem(f"beside.{name}", f"{type(task).__name__} samples no pictures", None)])
    return task


def _told_model(file: Path, *, key: str) -> dict[str, Any]:
    """The task's node in a run's configuration, checked like a composed one: others may have written it."""
    bound_loaders()
    try:
        with readable():
            told = OmegaConf.load(file)
            written = OmegaConf.to_container(told, resolve=False)
            check_expansion({str(name): value for name, value in written.items()} if isinstance(written, dict) else {})
            values = OmegaConf.to_container(told, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError([Problem(key, str(error).splitlines()[0], str(file))]) from None
    model = values.get("model") if isinstance(values, dict) else None
    if not isinstance(model, dict):
        raise ConfigurationError([Problem(key, "holds no model: a run's configuration is expected", str(file))])
    problems = check({"model": model}, allow=register(), origin=lambda _: str(file), root=None)
    if problems:
        raise ConfigurationError(problems)
    return {str(name): value for name, value in model.items()}
