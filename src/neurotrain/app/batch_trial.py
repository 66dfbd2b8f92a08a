"""One batch size, tried: some real steps in a process that is thrown away."""

from __future__ import annotations

import logging
import resource
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything

from neurotrain.app.compose import compose
from neurotrain.app.registry import register
from neurotrain.app.strict import instantiate
from neurotrain.app.train import trainer_factory
from neurotrain.callbacks.memory import is_out_of_memory


def run_trial(answer: Connection, experiment: str, overrides: list[str], steps: int, memory: int | None) -> None:
    """Body of the process.

    Args:
        answer: gets peak bytes and seconds of a step, or why it does not fit, or an error that is none of memory.
        experiment: name under ``configs/experiment``.
        overrides: as on ``train.py``.
        steps: of the optimizer.
        memory: bytes that the process may use.
    """
    # Of every try Lightning would say which accelerators it sees and that it is done.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    try:
        with tempfile.TemporaryDirectory() as folder:
            answer.send(_steps(experiment, overrides, steps, Path(folder)))
    except Exception as error:
        if is_out_of_memory(error):
            answer.send((str(error) or "out of memory").splitlines()[0])
        else:
            answer.send(ValueError(f"{type(error).__name__}: {error}"))


class _Clock(Callback):
    """Seconds of the last step."""

    def __init__(self) -> None:
        self.seconds = self._begun = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self._begun = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self.seconds = time.perf_counter() - self._begun


def _steps(experiment: str, overrides: list[str], steps: int, folder: Path) -> tuple[int, float]:
    values = compose(experiment, overrides).bound_to(folder)
    seed_everything(values["seed"], workers=True, verbose=False)
    data = instantiate(values["data"], allow=register(), key="data")
    model = instantiate(values["model"], allow=register(), key="model")
    assert isinstance(data, LightningDataModule)
    assert isinstance(model, LightningModule)
    clock = _Clock()
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    limits: dict[str, Any] = {"max_epochs": -1, "max_steps": steps, "limit_val_batches": 0}
    one_device: dict[str, Any] = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    trainer = trainer_factory(values)(callbacks=[clock], default_root_dir=str(folder), **quiet, **limits, **one_device)
    trainer.fit(model, datamodule=data)
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device), clock.seconds
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, clock.seconds
