"""Runs in processes of their own that end without any warning, and the comparison of what they leave."""

from __future__ import annotations

import csv
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import server
from lightning import Callback, LightningModule, Trainer


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
