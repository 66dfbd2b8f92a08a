"""A loss that is no number stops the run, and nothing poisoned is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from callback_toys import ToyLoader, ToyTask, make_trainer
from lightning.pytorch import Callback

from neurotrain.callbacks import NanGuard, NonFiniteLossError, RunCheckpoint, find_last


class BadTask(ToyTask):
    """Gives ``value`` as loss at ``step``, or puts it into a weight."""

    def __init__(self, *, value: float, step: int = 3, poison_weight: bool = False) -> None:
        super().__init__()
        self.value = value
        self.at = step
        self.poison_weight = poison_weight

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.trainer.global_step != self.at:
            return loss
        if self.poison_weight:
            with torch.no_grad():
                self.network[0].weight[0, 0] = self.value
            return loss
        return loss + self.value


def _fit(folder: Path, task: BadTask, *callbacks: Callback) -> NonFiniteLossError:
    trainer = make_trainer(folder, [*callbacks, RunCheckpoint(every_n_steps=1)], max_epochs=2)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(task, ToyLoader(batches=6))
    return caught.value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_stops_before_the_weights_are_touched(tmp_path: Path, value: float) -> None:
    task = BadTask(value=value)
    error = _fit(tmp_path, task, NanGuard())
    assert str(error) == f"loss is {value} at step 3 of epoch 0 (both from 0), samples 0-3-0, 0-3-1"
    assert all(torch.isfinite(parameter).all() for parameter in task.parameters())
    last = find_last(tmp_path / "checkpoints")
    assert last is not None
    assert torch.load(last, weights_only=True)["global_step"] == 3


def test_names_the_batch_among_those_of_its_step(tmp_path: Path) -> None:
    class InTheMiddle(ToyTask):
        def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
            return super().training_step(batch, batch_idx) * (float("nan") if batch_idx == 4 else 1.0)

    trainer = make_trainer(tmp_path, [NanGuard()], max_epochs=1, accumulate_grad_batches=3, enable_checkpointing=False)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(InTheMiddle(), ToyLoader(batches=6))
    assert str(caught.value) == (
        "loss is nan at step 1 of epoch 0 (both from 0), batch 2 of its 3, samples 0-4-0, 0-4-1"
    )


def test_rare_checks_cover_all_batches_and_refuse_checkpoints_in_between(tmp_path: Path) -> None:
    error = _fit(tmp_path, BadTask(value=float("nan")), NanGuard(every_n_steps=100))
    assert "at step 4 of epoch 0" in str(error)  # where the next checkpoint would have been written
    assert "samples 0-3-0, 0-3-1" in str(error)
    last = find_last(tmp_path / "checkpoints")
    assert last is not None
    assert torch.load(last, weights_only=True)["global_step"] == 3


def test_rare_checks_without_checkpoints(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, [NanGuard(every_n_steps=5)], max_epochs=2, enable_checkpointing=False)
    with pytest.raises(NonFiniteLossError, match="or in the 4 batches before it"):
        trainer.fit(BadTask(value=float("inf")), ToyLoader(batches=6))


def test_a_poisoned_weight_is_not_saved(tmp_path: Path) -> None:
    # The loss of that step was computed before; the next one would be NaN, after the checkpoint.
    error = _fit(tmp_path, BadTask(value=float("nan"), poison_weight=True), NanGuard())
    assert "network.0.weight is not finite after step 4" in str(error)
    last = find_last(tmp_path / "checkpoints")
    assert last is not None
    state = torch.load(last, weights_only=True)
    assert state["global_step"] == 3
    assert all(torch.isfinite(value).all() for name, value in state["state_dict"].items() if name != "threshold")


def test_a_healthy_run_is_left_alone(tmp_path: Path) -> None:
    for every in (1, 4):
        trainer = make_trainer(tmp_path, [NanGuard(every_n_steps=every)], max_epochs=1, enable_checkpointing=False)
        trainer.fit(ToyTask(), ToyLoader())
        assert trainer.global_step == 6


def test_refuses_senseless_settings() -> None:
    with pytest.raises(ValueError, match="every_n_steps=0"):
        NanGuard(every_n_steps=0)
