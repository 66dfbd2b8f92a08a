"""One rank raises, stalls or vanishes: all end, soon, not with success, and what happened is said."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from ranks_apart import PATIENCE, Ranks

from neurotrain.callbacks import NanGuard, find_last

DEADLINE = 2.0


class At(Callback):
    """Raises, sleeps, stops or kills its own process in the backward pass of the fourth step."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:  # noqa: ANN401
        if trainer.global_step != 3:
            return
        os.write(2, b"the fault comes\n")
        if self.fault == "raises":
            raise RuntimeError("a rank has its own trouble")
        if self.fault == "sleeps":
            time.sleep(3600)
        os.kill(os.getpid(), {"is stopped": signal.SIGSTOP, "is killed": signal.SIGKILL}[self.fault])


class OnRank:
    """The fault on one rank, nothing on the others."""

    def __init__(self, rank: int, fault: str) -> None:
        self.rank = rank
        self.fault = fault

    def __call__(self, rank: int) -> list[Callback]:
        return [At(self.fault)] if rank == self.rank else []


def _ended(folder: Path, rank: int, fault: str) -> tuple[Ranks, list[int]]:
    run = Ranks(folder, OnRank(rank, fault), world_size=2, deadline=DEADLINE, saving={"every_n_steps": 1})
    run.wait_for("the fault comes", rank=rank)
    started = time.monotonic()
    codes = run.end()
    assert time.monotonic() - started < PATIENCE
    assert 0 not in codes
    assert find_last(folder / "checkpoints") == folder / "checkpoints" / "step-00000003.ckpt"
    return run, codes


_ALWAYS_RANK_1 = [pytest.param(0, marks=pytest.mark.all_kills), 1]


@pytest.mark.parametrize("rank", _ALWAYS_RANK_1)
def test_one_rank_raises(rank: int, tmp_path: Path, tried: Callable[..., None]) -> None:
    tried("one rank raises")
    run, codes = _ended(tmp_path, rank, "raises")
    assert codes[rank] == 1
    assert "Traceback" in run.said(rank)
    assert "RuntimeError: a rank has its own trouble" in run.said(rank)


_RARE = [(0, "sleeps"), (1, "sleeps"), (0, "is stopped")]
_STALLS = [(1, "is stopped"), *(pytest.param(*one, marks=pytest.mark.all_kills) for one in _RARE)]


@pytest.mark.parametrize(("rank", "fault"), _STALLS)
def test_one_rank_stalls(rank: int, fault: str, tmp_path: Path, tried: Callable[..., None]) -> None:
    tried(f"one rank {fault}")
    run, codes = _ended(tmp_path, rank, fault)
    # Rank 0 reports first; where it cannot, because it is stopped itself, the other one does.
    reporter = 1 if (rank, fault) == (0, "is stopped") else 0
    assert codes[reporter] == 1
    said = run.said(reporter)
    assert "nothing has happened for" in said
    assert "deadline=2" in said
    assert "in which the gradients of all ranks are brought together, at step 3" in said
    assert f"rank {1 - reporter} (pid {run.pids[1 - reporter]}" in said
    if reporter != rank:
        assert "the process is stopped (SIGSTOP)" in said or "test_ranks.py" in said  # where the other one stands


@pytest.mark.all_kills
@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_is_killed(rank: int, tmp_path: Path, tried: Callable[..., None]) -> None:
    tried("one rank is killed")
    _, codes = _ended(tmp_path, rank, "is killed")
    assert codes[rank] == -signal.SIGKILL


class Poison(Callback):
    """Makes a batch NaN, on one rank, before the loss of the fourth step."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        if trainer.global_step == 3 and trainer.global_rank == 1:
            batch["image"].fill_(float("nan"))


def _poison(rank: int) -> list[Callback]:
    return [NanGuard(), Poison()]


def test_a_loss_that_is_no_number_on_one_rank(tmp_path: Path, tried: Callable[..., None]) -> None:
    tried("NaN on one rank")
    run = Ranks(tmp_path, _poison, world_size=2, saving={"every_n_steps": 1})
    codes = run.end()
    assert 0 not in codes
    assert "loss is nan at step 3 of epoch 0 (both from 0), rank 1 of 2, samples 0-3-0, 0-3-1" in run.said(1)
    assert find_last(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-00000003.ckpt"


@pytest.mark.all_kills
def test_a_run_that_is_well_is_left_alone(tmp_path: Path) -> None:
    run = Ranks(tmp_path, _none, world_size=2, deadline=DEADLINE, max_epochs=1)
    assert run.end() == [0, 0]


def _none(rank: int) -> list[Callback]:
    return []
