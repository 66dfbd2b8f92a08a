"""Signals that ask a run to end: the step is finished and saved, the exit code says which it was, all ranks agree."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from ranks_apart import Ranks, Slowly

from neurotrain.callbacks import find_last


def _slowly(rank: int) -> list[Callback]:
    return [Slowly()]


def _very_slowly(rank: int) -> list[Callback]:
    return [Slowly(seconds=1.5)]


def _last_step(folder: Path) -> int:
    last = find_last(folder / "checkpoints")
    assert last is not None
    return torch.load(last, weights_only=True)["global_step"]


_RARE = [pytest.param(number, marks=pytest.mark.all_kills) for number in (signal.SIGUSR1, signal.SIGINT)]


@pytest.mark.parametrize("number", [signal.SIGTERM, *_RARE])
def test_the_step_is_finished_and_saved(number: signal.Signals, tmp_path: Path, tried: Callable[..., None]) -> None:
    tried(f"{number.name}, one process")
    run = Ranks(tmp_path, _slowly, world_size=1)
    run.wait_for("step 9 done")
    os.kill(run.pid(), number)
    assert run.end() == [128 + number]
    said = run.said()
    last = _last_step(tmp_path)
    assert last == said.count(" done")
    assert f"stopped by {number.name} after step {last} of" in said
    assert "Traceback" not in said


def test_a_stopped_run_goes_on_to_the_same_end(tmp_path: Path, tried: Callable[..., None]) -> None:
    tried("SIGTERM, gone on from")
    whole = Ranks(tmp_path / "whole", _none, world_size=1, max_epochs=3)
    run = Ranks(tmp_path / "run", _slowly, world_size=1, max_epochs=3)
    run.wait_for("step 7 done")
    os.kill(run.pid(), signal.SIGTERM)
    assert run.end() == [143]
    assert 7 <= _last_step(tmp_path / "run") < 18
    resume = str(find_last(tmp_path / "run" / "checkpoints"))
    again = Ranks(tmp_path / "run", _none, world_size=1, max_epochs=3, resume=resume)
    assert (whole.end(), again.end()) == ([0], [0])
    ours, theirs = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "whole")
    )
    assert all(torch.equal(ours[name], value) or value.isnan().all() for name, value in theirs.items())


def _none(rank: int) -> list[Callback]:
    return []


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.all_kills), 1])
def test_all_ranks_stop_at_one_step(rank: int, tmp_path: Path, tried: Callable[..., None]) -> None:
    tried("SIGTERM, one of two ranks")
    run = Ranks(tmp_path, _slowly, world_size=2)
    run.wait_for("step 5 done", rank=rank)
    os.kill(run.pid(rank), signal.SIGTERM)
    assert run.end() == [143, 143]
    steps = [run.said(rank).count(" done") for rank in range(2)]
    assert steps == [_last_step(tmp_path)] * 2


def test_inside_a_slurm_job_it_is_requeued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: Callable[..., None]
) -> None:
    tried("SIGUSR1, requeued")
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nls {tmp_path}/run/checkpoints >> {tmp_path}/asked\n'
    )
    scontrol.chmod(0o755)
    run = Ranks(tmp_path / "run", _InsideSlurm(tmp_path / "bin"), world_size=1)
    run.wait_for("step 3 done")
    os.kill(run.pid(), signal.SIGUSR1)
    assert run.end() == [138]
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == "requeue 4711"
    assert "last.ckpt" in asked  # it was there before SLURM was asked
    assert "SLURM runs job 4711 again" in run.said()


class _InsideSlurm:
    """Lets a rank find ``scontrol`` and its job once it trains: Lightning would else want to be started by srun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, rank: int) -> list[Callback]:
        return [_SlurmJob(self.folder), Slowly()]


class _SlurmJob(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, *_: object) -> None:
        os.environ.update(SLURM_JOB_ID="4711", PATH=f"{self.folder}:{os.environ['PATH']}")


def test_a_second_one_ends_at_once(tmp_path: Path, tried: Callable[..., None]) -> None:
    tried("SIGTERM twice")
    run = Ranks(tmp_path, _very_slowly, world_size=1, saving={"every_n_steps": 1})
    run.wait_for("step 2 done")
    os.kill(run.pid(), signal.SIGTERM)
    time.sleep(0.1)
    os.kill(run.pid(), signal.SIGTERM)  # an echo, as launchers make them
    time.sleep(0.6)
    asked = time.monotonic()
    os.kill(run.pid(), signal.SIGINT)
    assert run.end() == [-signal.SIGINT]
    assert time.monotonic() - asked < 0.5
    assert _last_step(tmp_path) == 1
