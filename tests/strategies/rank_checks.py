"""What two ranks do together; each returns what a test compares."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch.distributed.fsdp import FSDPModule
from transformer_task import TokenTask, fit

from neurotrain.app.ranks import FirstRankError, agreed, is_first_rank
from neurotrain.app.run_directory import RunDirectory
from neurotrain.callbacks import NanGuard, RunCheckpoint, WeightAveraging
from neurotrain.shards import whole
from neurotrain.strategies import ReplicatedStrategy, ShardedStrategy, TensorParallelStrategy
from neurotrain.strategies.blocks import recompute_activations

# Keys' biases have no gradient but noise, which Adam would blow up to full steps without this epsilon.
ADAM = partial(torch.optim.AdamW, lr=3e-3, eps=1e-3)


def rank() -> int:
    return int(os.environ["RANK"])


def run_directory(folder: Path) -> dict[str, Any]:
    """Before there is a process group: the first rank decides, errors included, under torchrun and under SLURM."""

    def begin() -> RunDirectory:
        return RunDirectory(folder / f"run-of-{rank()}", folder / "step.ckpt")

    def fail() -> RunDirectory:
        raise ValueError("no disk")

    told = [agreed(begin), agreed(begin)]
    with pytest.raises(ValueError, match="no disk") as failure:
        agreed(fail)
    slurm = {
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_PROCID": str(rank()),
        "SLURM_LOCALID": str(rank()),
        "SLURM_NODEID": "0",
        "SLURM_JOB_ID": "1234567",
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(int(os.environ["MASTER_PORT"]) + 1),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"):
            patch.delenv(name)
        for name, value in slurm.items():
            patch.setenv(name, value)
        first = is_first_rank()
        told.append(agreed(lambda: RunDirectory(folder / f"slurm-{os.environ['SLURM_PROCID']}")))
    return {
        "paths": [(one.path.name, None if one.checkpoint is None else one.checkpoint.name) for one in told],
        "error": type(failure.value) is FirstRankError,
        "first": first,
    }


def replicated(folder: Path) -> dict[str, Any]:
    return _told(*fit(folder, ReplicatedStrategy(), devices=2, rank=rank()))


def sharded(folder: Path) -> dict[str, Any]:
    trainer, task = fit(folder, ShardedStrategy(), devices=2, rank=rank())
    local = sum(parameter.to_local().numel() for parameter in task.parameters() if parameter.ndim)
    parts = [name for name, part in trainer.strategy.model.named_modules() if isinstance(part, FSDPModule)]
    return {**_told(trainer, task), "local": local, "parts": parts}


def tensor_parallel(folder: Path) -> dict[str, Any]:
    joint = partial(torch.optim.SGD, lr=0.01, foreach=True)
    trainer, task = fit(folder, TensorParallelStrategy(), devices=2, replicas=1, rank=rank(), optimizer=joint)
    return {**_told(trainer, task), "rows": task.network.encoder.blocks[0].qkv.weight.to_local().shape[0]}


def saved(folder: Path) -> dict[str, Any]:
    """Two epochs of two steps, with all that depends on shards: clipping, accumulation, averages, checkpoints."""
    return _told(*fit_saving(folder, ShardedStrategy(), devices=2, rank=rank()))


def resumed(folder: Path) -> dict[str, Any]:
    """The second epoch of a run whose first was one process's."""
    checkpoint = folder.parent / "alone" / "checkpoints" / "step-00000002.ckpt"
    return _told(*fit_saving(folder, ShardedStrategy(), devices=2, rank=rank(), resume=checkpoint))


def cut_and_saved(folder: Path) -> dict[str, Any]:
    """The same, cut by layers, from the first epoch of the sharded run."""
    checkpoint = folder.parent / "saved" / "checkpoints" / "step-00000002.ckpt"
    strategy = TensorParallelStrategy()
    return _told(*fit_saving(folder, strategy, devices=2, replicas=1, rank=rank(), resume=checkpoint))


def replicated_and_saved(folder: Path) -> dict[str, Any]:
    """The same under DDP, from the first epoch of the sharded run."""
    checkpoint = folder.parent / "saved" / "checkpoints" / "step-00000002.ckpt"
    return _told(*fit_saving(folder, ReplicatedStrategy(), devices=2, rank=rank(), resume=checkpoint))


def reductions(folder: Path) -> dict[str, Any]:
    """How often gradients travel in two steps, of one batch each and of two."""
    counts = {}
    for accumulate in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            calls = _counted(patch)
            fit(folder, ShardedStrategy(), devices=2, rank=rank(), steps=2, accumulate=accumulate)
        counts[accumulate] = len(calls)
    callback = GradientsApart()
    fit(folder, ReplicatedStrategy(), devices=2, rank=rank(), steps=2, accumulate=2, callbacks=[callback])
    return {"sharded": counts, "replicated": callback.apart}


def recomputed(folder: Path) -> dict[str, Any]:
    """Two sharded steps in bfloat16, with and without activations that are kept."""
    told = {}
    for name in ("kept", "recomputed"):
        torch.manual_seed(5)
        task = TokenTask(optimizer=partial(torch.optim.SGD, lr=0.01))
        if name == "recomputed":
            recompute_activations(task)
        fit(folder, ShardedStrategy(), devices=2, rank=rank(), steps=2, task=task, precision="bf16-mixed")
        told[name] = [*task.losses, *(whole(parameter).sum().item() for parameter in task.parameters())]
    return told


def refused(folder: Path) -> list[str]:
    """What is not done says so, on both ranks, before a step."""
    told = []
    for strategy, task, replicas in (
        (TensorParallelStrategy(), Plain(manual=False), 1),
        (ShardedStrategy(), Plain(manual=True), 2),
        (TensorParallelStrategy(), None, 2),
    ):
        with pytest.raises(ValueError, match=r"trainer\.strategy") as failure:
            fit(folder, strategy, devices=2, rank=rank(), task=task, replicas=replicas)
        told.append(str(failure.value))
    return told


class Plain(TokenTask):
    """No attention, no perceptron; or a task that goes backward itself."""

    def __init__(self, *, manual: bool) -> None:
        super().__init__(optimizer=partial(torch.optim.SGD, lr=0.01))
        self.automatic_optimization = not manual
        if not manual:
            self.network = torch.nn.Linear(2, 2)  # type: ignore[assignment]


class GradientsApart(Callback):
    """After each backward pass: whether the ranks have different gradients."""

    def __init__(self) -> None:
        self.apart: list[bool] = []

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        own = torch.cat(
            [parameter.grad.flatten() for parameter in pl_module.parameters() if parameter.grad is not None]
        )
        first = own.clone()
        torch.distributed.broadcast(first, src=0)
        apart = torch.tensor(float(not torch.equal(first, own)))
        torch.distributed.all_reduce(apart)
        self.apart.append(bool(apart))


def fit_saving(folder: Path, strategy: Any, **how: Any) -> tuple[Trainer, TokenTask]:  # noqa: ANN401
    callbacks = [WeightAveraging(decay=0.9), NanGuard(), RunCheckpoint(keep=3)]
    return fit(folder, strategy, optimizer=ADAM, steps=4, batches=4, accumulate=2, clip=0.3, callbacks=callbacks, **how)


def _told(trainer: Trainer, task: TokenTask) -> dict[str, Any]:
    return {
        "losses": task.losses,
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "counted": float(task.counted),
    }


def _counted(patch: pytest.MonkeyPatch) -> list[str]:
    """Notes each reduction of sharded gradients, under either of the names that torch has for it."""
    calls: list[str] = []
    for name in {"reduce_scatter_single", "reduce_scatter_tensor"} & vars(torch.distributed).keys():
        patch.setattr(torch.distributed, name, _noting(calls, name))
    return calls


def _noting(calls: list[str], name: str) -> Callable[..., Any]:
    usual = getattr(torch.distributed, name)

    def noting(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        calls.append(name)
        return usual(*args, **kwargs)

    return noting
