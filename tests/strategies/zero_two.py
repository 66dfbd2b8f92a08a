"""What two ranks do with ZeRO; each returns plain values and tensors that a test compares."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import Strategy
from torch.optim.lr_scheduler import LambdaLR
from zero_task import ADAMW, SGD, Batches, ZeroTask, fit

from neurotrain.callbacks import NanGuard, NonFiniteLossError, RunCheckpoint, WeightAveraging, find_last
from neurotrain.strategies import ReplicatedStrategy, ZeroStrategy, consolidate_zero

Stage = Literal[1, 2, 3]
STAGES: tuple[Stage, ...] = (1, 2, 3)


def sharing(stage: Stage, **settings: bool) -> ZeroStrategy:
    """ZeRO that shares out parameters of any size; of less than 100,000 elements each rank would keep all of them."""
    strategy = ZeroStrategy(stage=stage, **settings)
    assert isinstance(strategy.config, dict)
    strategy.config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return strategy


def _told(trainer: Trainer, task: ZeroTask) -> dict[str, Any]:
    state = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {"losses": task.losses, "weights": state, "metrics": metrics, "steps": trainer.global_step}


def steps_of_sgd(folder: Path, rank: int) -> dict[str, Any]:
    """Twenty steps of each."""
    return {name: _told(*fit(folder, made, rank=rank)) for name, made in _strategies()}


def steps_of_adamw(folder: Path, rank: int) -> dict[str, Any]:
    """Gradients clipped, batches accumulated, with a last window in each epoch that is not full."""
    settings: dict[str, Any] = {"accumulate_grad_batches": 3, "gradient_clip_val": 0.3, "batches": 10, "epochs": 2}
    return {name: _told(*fit(folder, made, rank=rank, optimizer=ADAMW, **settings)) for name, made in _strategies()}


def clipped_steps_of_sgd(folder: Path, rank: int) -> dict[str, Any]:
    """A norm that is exceeded in every step."""
    return {
        name: _told(*fit(folder, made, rank=rank, batches=8, gradient_clip_val=0.05)) for name, made in _strategies()
    }


def _strategies() -> list[tuple[str, Strategy]]:
    return [("ddp", ReplicatedStrategy()), *((f"zero{stage}", sharing(stage)) for stage in STAGES)]


def offloaded(folder: Path, rank: int) -> dict[str, Any]:
    """Optimizer and parameters in main memory."""
    strategies = {
        "zero2": sharing(2, offload_optimizer=True),
        "zero3": sharing(3, offload_optimizer=True, offload_parameters=True),
    }
    return {name: _told(*fit(folder, made, rank=rank)) for name, made in strategies.items()}


def broken_off_and_resumed(folder: Path, rank: int) -> dict[str, Any]:
    """Two epochs at once, and one after the other through a checkpoint of the run."""
    found: dict[str, Any] = {}
    cases: tuple[tuple[Stage, str], ...] = ((1, "32-true"), (2, "32-true"), (3, "32-true"), (3, "bf16-mixed"))
    for stage, precision in cases:
        own = folder / f"{stage}-{precision}"
        settings: dict[str, Any] = {"rank": rank, "optimizer": ADAMW, "batches": 5, "precision": precision}
        whole = fit(own / "whole", sharing(stage), epochs=2, **settings)
        fit(own / "parts", sharing(stage), callbacks=[RunCheckpoint()], **settings)
        last = find_last(own / "parts" / "checkpoints")
        more = [RunCheckpoint()]
        parts = fit(own / "parts", sharing(stage), epochs=2, callbacks=more, resume=last, **settings)
        found[f"{stage}-{precision}"] = {"whole": _told(*whole), "parts": _told(*parts)}
    return found


def averaged(folder: Path, rank: int) -> dict[str, Any]:
    """A moving average under stage 2, validated with, through a checkpoint."""
    found: dict[str, Any] = {}
    for name, made in (("ddp", ReplicatedStrategy), ("zero2", partial(sharing, 2))):
        own = folder / name
        settings: dict[str, Any] = {"rank": rank, "batches": 5}
        fit(own, made(), callbacks=[WeightAveraging(), RunCheckpoint()], **settings)
        last = find_last(own / "checkpoints")
        average = WeightAveraging()
        told = _told(*fit(own, made(), epochs=2, callbacks=[average, RunCheckpoint()], resume=last, **settings))
        found[name] = {**told, "average": dict(average.ema.state_dict()["average"])}
    return found


def tested_after_a_fit(folder: Path, rank: int) -> dict[str, Any]:
    """The weights of the end, and those of a checkpoint; the second fit begins anew with the same task."""
    found: dict[str, Any] = {}
    for name, made in (("ddp", ReplicatedStrategy), ("zero3", partial(sharing, 3))):
        trainer, task = fit(folder / name, made(), rank=rank, batches=5, callbacks=[RunCheckpoint()])
        batches = Batches(2 + rank, rank=rank, size=2)
        (end,) = trainer.test(task, batches, verbose=False)
        with torch.no_grad():
            task.scale.fill_(9.0)
        last = find_last(folder / name / "checkpoints")
        (read,) = trainer.test(task, batches, ckpt_path=str(last), verbose=False, weights_only=True)
        _, again = fit(folder / f"{name}-again", made(), rank=rank, batches=5, task=task)
        found[name] = {"end": end, "read": read, "losses": again.losses}
    return found


class _TwoSchedules(ZeroTask):
    def configure_optimizers(self) -> Any:  # noqa: ANN401
        optimizer = SGD(self.first.parameters())
        return [optimizer], [LambdaLR(optimizer, float), LambdaLR(optimizer, float)]


class _OwnSteps(ZeroTask):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class _SaveShards(Callback):
    """Saves as DeepSpeed itself does."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        strategy = trainer.strategy
        assert isinstance(strategy, ZeroStrategy)
        strategy.deepspeed_engine.save_checkpoint(str(trainer.default_root_dir), tag="shards")


class _Canary:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import pathlib; pathlib.Path('fired').touch()",)


def merged(folder: Path, rank: int) -> dict[str, Any]:
    """Shards of DeepSpeed, merged, with the weights that they should be; and shards with an object in them."""
    found: dict[str, Any] = {}
    for stage in STAGES:
        trainer, task = fit(folder / str(stage), sharing(stage), rank=rank, batches=3, callbacks=[_SaveShards()])
        trainer.strategy.barrier()
        found[str(stage)] = {**_told(trainer, task), "merged": consolidate_zero(folder / str(stage))}
    poisoned = next((folder / "1" / "shards").glob("*optim_states.pt"))
    torch.distributed.barrier()
    if rank == 0:
        torch.save({"optimizer_state_dict": _Canary()}, poisoned)
        try:
            consolidate_zero(folder / "1")
        except ValueError as error:
            found["refused"] = str(error)
    return found


class _Poisoned(ZeroTask):
    """Its weights are spoilt by the last step, whose loss was finite."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        optimizer = self.trainer.optimizers[0]
        if self.trainer.global_rank == 1 and batch_idx == 1:
            optimizer.fp32_partitioned_groups_flat[0].data.fill_(float("nan"))  # pyright: ignore[reportAttributeAccessIssue]


def not_finite(folder: Path, rank: int) -> str:
    """What is said where one rank's part of the weights is not finite when it is to be saved."""
    callbacks: list[Callback] = [NanGuard(), RunCheckpoint()]
    try:
        fit(folder, sharing(3), rank=rank, batches=2, callbacks=callbacks, task=_Poisoned())
    except NonFiniteLossError as error:
        return f"refused: {error}"
    return "saved"


def refused(folder: Path, rank: int) -> dict[str, Any]:
    """The message of each refusal, and whether a step was made."""
    cases: dict[str, tuple[LightningModule, dict[str, Any], Stage]] = {
        "two schedules": (_TwoSchedules(), {}, 2),
        "own steps": (_OwnSteps(), {}, 2),
        "average": (ZeroTask(), {"callbacks": [WeightAveraging()]}, 3),
        "clipping": (ZeroTask(), {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "value"}, 1),
    }
    found: dict[str, Any] = {}
    for name, (task, settings, stage) in cases.items():
        try:
            fit(folder / name, sharing(stage), rank=rank, task=task, **settings)
        except ValueError as error:
            found[name] = {"message": str(error), "steps": len(task.losses)}  # pyright: ignore[reportArgumentType]
    return found
