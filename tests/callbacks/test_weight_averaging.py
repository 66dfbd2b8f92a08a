"""The averaged weights: updated by steps, used by evaluations, kept in checkpoints."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from callback_toys import Fixed, ToyLoader, ToyTask, make_trainer, seed, val_loader
from lightning.pytorch import Callback, LightningModule, Trainer

from neurotrain.callbacks import RunCheckpoint, WeightAveraging
from neurotrain.ema import ExponentialMovingAverage


class Watch(Callback):
    """Averages by hand, and notes the weights that evaluations see."""

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.twin: ToyTask | None = None
        self.ema = ExponentialMovingAverage(decay=0.9)
        self.seen: list[torch.Tensor] = []
        self.step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.twin = copy.deepcopy(pl_module)
        self.ema.attach(pl_module.network)

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        if trainer.global_step != self.step and trainer.global_step % self.every == 0:
            self.ema.update()
        self.step = trainer.global_step

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        self.seen.append(pl_module.network[0].weight.detach().clone())


@pytest.mark.parametrize(("accumulate", "every"), [(1, 1), (4, 1), (1, 3)])
def test_updates_with_optimizer_steps_and_validates_with_the_average(
    tmp_path: Path, accumulate: int, every: int
) -> None:
    seed()
    watch, average, task = Watch(every), WeightAveraging(decay=0.9, every_n_steps=every), ToyTask()
    trainer = make_trainer(
        tmp_path, [watch, average], max_epochs=2, accumulate_grad_batches=accumulate, enable_checkpointing=False
    )
    trainer.fit(task, ToyLoader(), val_loader(1))
    expected = watch.ema.state_dict()
    assert average.ema.updates == expected["updates"] == (12 // every if accumulate == 1 else 4)
    for name, value in expected["average"].items():
        assert torch.equal(average.ema.state_dict()["average"][f"network.{name}"], value), name
    assert torch.equal(watch.seen[-1], expected["average"]["0.weight"])
    assert not torch.equal(task.network[0].weight, watch.seen[-1])
    assert task.threshold == 0.5  # written during the validation, and not averaged


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_every_evaluation_uses_the_average_also_from_a_file(tmp_path: Path, stage: str) -> None:
    seed()
    average, task = WeightAveraging(decay=0.9), ToyTask()
    trainer = make_trainer(tmp_path, [average, RunCheckpoint()], max_epochs=1)
    trainer.fit(task, ToyLoader(), val_loader(1))
    expected = average.ema.state_dict()["average"]["network.0.weight"].clone()
    live = task.network[0].weight.detach().clone()
    assert not torch.equal(expected, live)
    _assert_evaluates_with(trainer, task, stage, expected, ckpt=None)
    assert torch.equal(task.network[0].weight, live)

    fresh, watch = ToyTask(), WeightAveraging()
    trainer = make_trainer(tmp_path, [watch], enable_checkpointing=False)
    _assert_evaluates_with(trainer, fresh, stage, expected, ckpt=tmp_path / "checkpoints" / "last.ckpt")
    assert torch.equal(fresh.network[0].weight, live)
    # The average is a normal tensor, although evaluations run in inference mode.
    assert not watch.ema.state_dict()["average"]["network.0.weight"].is_inference()


def _assert_evaluates_with(
    trainer: Trainer, task: ToyTask, stage: str, expected: torch.Tensor, *, ckpt: Path | None
) -> None:
    watch = Watch()
    trainer.callbacks.append(watch)
    batches = Fixed(val_loader(1).batches)
    # The trainer of the file has a callback that this one lacks, which Lightning says.
    with pytest.warns(match="callbacks used to create") if ckpt is not None else nullcontext():
        if stage == "predict":
            (value,) = trainer.predict(task, batches, ckpt_path=ckpt, weights_only=True)
            assert value == expected.sum()
        elif stage == "test":
            trainer.test(task, batches, ckpt_path=ckpt, verbose=False, weights_only=True)
            assert trainer.callback_metrics["test/weight"] == expected.sum()
        else:
            trainer.validate(task, batches, ckpt_path=ckpt, verbose=False, weights_only=True)
            assert torch.equal(watch.seen[0], expected)


def test_without_an_average_the_weights_are_evaluated(tmp_path: Path) -> None:
    task = ToyTask()
    trainer = make_trainer(tmp_path, [WeightAveraging()], enable_checkpointing=False)
    trainer.test(task, Fixed(val_loader(1).batches), verbose=False)
    assert trainer.callback_metrics["test/weight"] == task.network[0].weight.sum()


class FailLate(Callback):
    """Raises within the validation of the second epoch."""

    def on_validation_batch_end(self, trainer: Trainer, *args: object) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("in validation")


def test_an_error_in_validation_puts_the_weights_back(tmp_path: Path) -> None:
    seed()
    average, task = WeightAveraging(), ToyTask()
    trainer = make_trainer(tmp_path, [average, FailLate()], max_epochs=3, enable_checkpointing=False)
    with pytest.raises(RuntimeError, match="in validation"):
        trainer.fit(task, ToyLoader(), val_loader(1))
    assert not torch.equal(task.network[0].weight, average.ema.state_dict()["average"]["network.0.weight"])
    average.ema.update()  # not swapped


def test_refuses_senseless_settings() -> None:
    with pytest.raises(ValueError, match="every_n_steps=0"):
        WeightAveraging(every_n_steps=0)
    with pytest.raises(ValueError, match=r"decay=-0\.1"):
        WeightAveraging(decay=-0.1)
