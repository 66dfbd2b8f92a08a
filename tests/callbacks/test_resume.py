"""A run that is stopped and resumed equals the one that never stopped, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from callback_toys import Kill, KilledError, ToyLoader, ToyTask, make_trainer, seed, val_loader
from lightning.pytorch import Trainer

from neurotrain.callbacks import MetricsCsv, RunCheckpoint, WeightAveraging, find_last


@dataclass
class Outcome:
    trainer: Trainer
    task: ToyTask
    average: WeightAveraging
    checkpoint: RunCheckpoint
    folder: Path


def _run(
    folder: Path,
    *,
    kill: Kill | None = None,
    resume: Path | None = None,
    validate: bool = True,
    saving: dict[str, Any],
    limits: dict[str, Any],
    horizon: bool = False,
) -> Outcome:
    seed()
    task, average = ToyTask(asks_for_the_horizon=horizon), WeightAveraging(decay=0.9)
    checkpoint = RunCheckpoint(monitor="val/score" if validate else None, **saving)
    # The checkpoint comes first here: Lightning has to put it last.
    callbacks = [checkpoint, average, *([kill] if kill is not None else [])]
    trainer = make_trainer(folder, callbacks, logger=MetricsCsv(directory=folder), **limits)
    try:
        trainer.fit(task, ToyLoader(), val_loader() if validate else None, ckpt_path=resume, weights_only=True)
    except KilledError:
        assert kill is not None
    return Outcome(trainer, task, average, checkpoint, folder)


def _assert_equal(one: Outcome, other: Outcome) -> None:
    for (name, a), (_, b) in zip(one.task.state_dict().items(), other.task.state_dict().items(), strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num()), name
    first, second = one.average.ema.state_dict(), other.average.ema.state_dict()
    assert first["updates"] == second["updates"] == one.trainer.global_step
    for name, value in first["average"].items():
        assert torch.equal(value, second["average"][name]), name
    moments = [run.trainer.optimizers[0].state_dict()["state"] for run in (one, other)]
    for index, state in moments[0].items():
        assert torch.equal(state["exp_avg_sq"], moments[1][index]["exp_avg_sq"])
    loops = [run.trainer.fit_loop for run in (one, other)]
    assert loops[0].epoch_progress.state_dict() == loops[1].epoch_progress.state_dict()
    assert loops[0].epoch_loop._batches_that_stepped == loops[1].epoch_loop._batches_that_stepped
    assert one.checkpoint.best_score == other.checkpoint.best_score
    tables = [(run.folder / "metrics.csv").read_text() for run in (one, other)]
    assert tables[0] == tables[1]
    files = [sorted(path.name for path in run.checkpoint.folder.iterdir()) for run in (one, other)]
    assert files[0] == files[1]


CASES = [
    # Six batches an epoch. Killed within step `kill`: what was saved last is named in the comment.
    pytest.param(9, {"every_n_steps": 1}, {"max_epochs": 3}, True, id="within an epoch"),
    pytest.param(7, {"every_n_steps": 2}, {"max_epochs": 3}, True, id="at the end of an epoch"),
    pytest.param(10, {}, {"max_epochs": 3}, False, id="at the end of an epoch, no validation"),
    pytest.param(8, {"every_n_steps": 4, "every_n_epochs": 9}, {"max_steps": 15}, True, id="max_steps, within"),
    pytest.param(8, {}, {"max_steps": 15}, True, id="max_steps, at the end of an epoch"),
    pytest.param(8, {}, {"max_steps": 15}, False, id="max_steps, at the end of an epoch, no validation"),
    pytest.param(9, {"every_n_steps": 2}, {"max_epochs": 2, "val_check_interval": 2}, True, id="validation within"),
    pytest.param(
        4,
        {"every_n_steps": 1},
        {"max_epochs": 3, "accumulate_grad_batches": 4},
        True,
        id="accumulation",
    ),
]


@pytest.mark.parametrize(("kill", "saving", "limits", "validate"), CASES)
def test_killed_and_resumed_equals_never_killed(
    tmp_path: Path, kill: int, saving: dict[str, Any], limits: dict[str, Any], validate: bool
) -> None:
    settings: dict[str, Any] = {"saving": saving, "limits": limits, "validate": validate}
    whole = _run(tmp_path / "whole", **settings)
    _run(tmp_path / "parts", kill=Kill(kill), **settings)
    last = find_last(tmp_path / "parts" / "checkpoints")
    assert last is not None
    resumed = _run(tmp_path / "parts", resume=last, **settings)
    _assert_equal(whole, resumed)


@pytest.mark.parametrize("limits", [{"max_epochs": 3}, {"max_steps": 15}])
@pytest.mark.parametrize("kill", [7, 10])  # last saved at the end of an epoch, and within one
def test_a_task_that_asks_for_its_horizon(tmp_path: Path, kill: int, limits: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"saving": {"every_n_steps": 2}, "limits": limits, "horizon": True}
    whole = _run(tmp_path / "whole", **settings)
    _run(tmp_path / "parts", kill=Kill(kill), **settings)
    last = find_last(tmp_path / "parts" / "checkpoints")
    _assert_equal(whole, _run(tmp_path / "parts", resume=last, **settings))


@pytest.mark.parametrize("limits", [{"max_epochs": 2}, {"max_epochs": 2, "val_check_interval": 2}])
def test_killed_in_a_validation_it_is_not_left_out(tmp_path: Path, limits: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"saving": {"every_n_steps": 1}, "limits": limits}
    whole = _run(tmp_path / "whole", **settings)
    _run(tmp_path / "parts", kill=Kill(6, in_validation=True), **settings)
    last = find_last(tmp_path / "parts" / "checkpoints")
    assert last is not None
    assert torch.load(last, weights_only=True)["global_step"] == 5
    _assert_equal(whole, _run(tmp_path / "parts", resume=last, **settings))


def test_killed_three_times(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"saving": {"every_n_steps": 5}, "limits": {"max_epochs": 3}}
    whole = _run(tmp_path / "whole", **settings)
    parts = tmp_path / "parts"
    for kill in (6, 12, 13):
        _run(parts, kill=Kill(kill), resume=find_last(parts / "checkpoints"), **settings)
    _assert_equal(whole, _run(parts, resume=find_last(parts / "checkpoints"), **settings))


@pytest.mark.parametrize("saving", [{}, {"every_n_steps": 2}])
def test_a_run_that_reached_max_steps_within_an_epoch_can_be_prolonged(tmp_path: Path, saving: dict[str, Any]) -> None:
    whole = _run(tmp_path / "whole", saving=saving, limits={"max_steps": 14})
    _run(tmp_path / "parts", saving=saving, limits={"max_steps": 9})
    last = find_last(tmp_path / "parts" / "checkpoints")
    _assert_equal(whole, _run(tmp_path / "parts", saving=saving, limits={"max_steps": 14}, resume=last))


def test_resumed_from_an_earlier_checkpoint_the_later_ones_go(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"saving": {"every_n_steps": 2, "keep": 99}, "limits": {"max_epochs": 2}}
    whole = _run(tmp_path, **settings)
    earlier = tmp_path / "checkpoints" / "step-00000004.ckpt"
    resumed = _run(tmp_path, resume=earlier, kill=Kill(6), **settings)
    assert sorted(path.name for path in resumed.checkpoint.folder.glob("step*.ckpt")) == [
        "step-00000002.ckpt",
        "step-00000004.ckpt",
    ]
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert rows[-1].split(",")[0] == "5"
    assert whole.trainer.global_step == 12
