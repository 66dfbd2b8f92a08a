"""Runs in processes of their own that end without any warning, and the comparison of what they leave."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from forked import server
from lightning import Callback, LightningModule, Trainer

STEPS_PER_EPOCH, EPOCHS, SAVE_EVERY = 6, 3, 4
"""Of :func:`small_drive`."""


class KillAt(Callback):
    """Sends SIGKILL to this process after a batch, or in the middle of its backward pass.

    Args:
        step: number of finished optimizer steps at which to kill.
        inside: kill between the backward pass and the optimizer's step that would follow.
    """

    def __init__(self, *, step: int, inside: bool = False) -> None:
        self.step = step
        self.inside = inside

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Kill after the optimizer's step."""
        if not self.inside and trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Kill before the optimizer's step."""
        if self.inside and trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class KillWorkerAt(Callback):
    """Sends SIGKILL to a worker of the loader after a batch.

    Args:
        step: number of finished optimizer steps at which to kill.
    """

    def __init__(self, *, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Kill the first one that lives."""
        if trainer.global_step == self.step:
            worker = next(child for child in multiprocessing.active_children() if child.name.startswith("loader-"))
            os.kill(worker.pid or 0, signal.SIGKILL)


class TroubleOnRank(Callback):
    """Lets one rank raise, or be stopped, in the backward pass of a step.

    Args:
        rank: which.
        step: number of finished optimizer steps at which it comes.
        fault: ``raises`` or ``is stopped``.
    """

    def __init__(self, *, rank: int, step: int, fault: Literal["raises", "is stopped"]) -> None:
        self.rank = rank
        self.step = step
        self.fault = fault

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Let it come."""
        if trainer.global_rank != self.rank or trainer.global_step != self.step:
            return
        if self.fault == "raises":
            raise RuntimeError("a rank has its own trouble")
        os.kill(os.getpid(), signal.SIGSTOP)


def chosen(kills: list[Any], *, always: tuple[int, ...]) -> list[Any]:
    """All kills as parameters; those at other places than these are run with ``--all-kills`` only."""
    rare = pytest.mark.all_kills
    return [kill if place in always else pytest.param(*kill, marks=rare) for place, kill in enumerate(kills)]


def run(experiment: str, overrides: list[str], *, environment: Mapping[str, str] | None = None) -> int:
    """Train in a fresh process and return its exit code."""
    process = server().Process(target=_train, args=(experiment, overrides, dict(environment or {})))
    process.start()
    process.join(timeout=120)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def _train(experiment: str, overrides: list[str], environment: dict[str, str]) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ.update(environment, NEUROTRAIN_ALLOW="killing")
    torch.set_num_threads(1)
    import neurotrain

    neurotrain.train(neurotrain.compose(experiment, overrides))


def small_drive(data: Path, run_dir: Path, workers: int) -> list[str]:
    """Overrides of a run on a few rendered images that has dropout, patches, a schedule and averaged weights."""
    return [
        "data=synthetic_drive",
        f"paths.data_dir={data}",
        f"paths.run_dir={run_dir}",
        "data.dataset.size=[96,96]",
        "data.dataset.train=4",
        "data.dataset.test=1",
        "data.validation=1",
        "data.batch_size=2",
        "data.train_transform.steps.patch.size=32",
        f"data.samples_per_epoch={2 * STEPS_PER_EPOCH}",
        f"data.num_workers={workers}",
        "model.network.widths=[4,8]",
        "model.network.dropout=0.1",
        "model.threshold=null",
        "model/inferer=full_image",
        f"trainer.max_epochs={EPOCHS}",
        "trainer.check_val_every_n_epoch=1",
        f"callbacks.checkpoint.every_n_steps={SAVE_EVERY}",
        "callbacks.figures=null",
        "test=false",
        "trainer.log_every_n_steps=1",
    ]


def killed_at(step: int, *, inside: bool) -> list[str]:
    """Overrides that kill a run."""
    return ["callbacks.kill._target_=killing.KillAt", f"callbacks.kill.step={step}", f"callbacks.kill.inside={inside}"]


def assert_runs_equal(ours: Path, theirs: Path, *, steps: int) -> None:
    """Compare weights, optimizer, schedule, averaged weights and every row of the metrics, bit by bit."""
    left, right = (torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True) for run_dir in (ours, theirs))
    assert left["global_step"] == right["global_step"] == steps
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        _assert_equal(left[part], right[part], part)
    average = next(key for key in right["callbacks"] if "WeightAveraging" in key)
    _assert_equal(left["callbacks"][average], right["callbacks"][average], average)
    assert _rows(ours) == _rows(theirs)


def _assert_equal(ours: Any, theirs: Any, where: str = "") -> None:  # noqa: ANN401
    assert type(ours) is type(theirs), where
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs) or (ours.isnan().all() and theirs.isnan().all()), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            _assert_equal(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for index, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            _assert_equal(left, right, f"{where}/{index}")
    else:
        assert ours == theirs, where


def _rows(run_dir: Path) -> list[dict[str, str]]:
    """Rows of the metrics, without what depends on the clock."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if not name.startswith("throughput/")}
            for row in csv.DictReader(file)
        ]
