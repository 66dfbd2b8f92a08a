"""A tiny task and a loader that is as awkward as a resumable one may be."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn


class ToyLoader:
    """Stateful; counts its own epochs; draws from every global generator when it begins and for every batch."""

    def __init__(self, *, batches: int = 6) -> None:
        self.batches = batches
        self.epoch = 0
        self.position = 0
        self.seen: list[tuple[int, int]] = []

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rest of the epoch."""
        torch.rand(1)
        epoch, start = self.epoch, self.position
        return self._pass(epoch, start)

    def _pass(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        order = torch.randperm(self.batches, generator=torch.Generator().manual_seed(epoch)).tolist()
        for position in range(start, self.batches):
            self.epoch, self.position = epoch, position + 1
            if self.position == self.batches:
                self.epoch, self.position = epoch + 1, 0
            self.seen.append((epoch, position))
            noise = torch.randn(2, 3) * 0.1 + random.random() + float(np.random.rand())
            yield {"image": noise + order[position], "id": [f"{epoch}-{position}-{i}" for i in range(2)]}

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


class ToyTask(LightningModule):
    """Dropout and batch normalisation, so that generators and buffers matter; a buffer that is state, not weight."""

    def __init__(self, *, asks_for_the_horizon: bool = False) -> None:
        super().__init__()
        self.asks_for_the_horizon = asks_for_the_horizon
        self.network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 1))
        self.threshold: Tensor
        self.register_buffer("threshold", torch.tensor(float("nan")))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = (self.network(batch["image"]) - 1).square().mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=2)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.log("val/score", -self.network(batch["image"]).square().mean(), prog_bar=True, batch_size=2)

    def on_validation_epoch_end(self) -> None:
        self.threshold.fill_(0.5)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.log("test/weight", self.network[0].weight.sum(), batch_size=2)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self.network[0].weight.sum()

    def configure_optimizers(self) -> dict[str, Any]:
        if self.asks_for_the_horizon:  # which makes Lightning load the data before it reads the checkpoint
            assert self.trainer.estimated_stepping_batches > 0
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.05)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.97**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Fixed:
    """The same batches each time; no list, which Lightning takes for several loaders."""

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All of them."""
        return iter(self.batches)


def val_loader(count: int = 2) -> Fixed:
    generator = torch.Generator().manual_seed(7)
    return Fixed([{"image": torch.randn(2, 3, generator=generator), "id": ["a", "b"]} for _ in range(count)])


class KilledError(Exception):
    """Stands for SIGKILL: nothing is saved on it."""


class Kill(Callback):
    """Stops the run within the training step that would be number ``step`` (from 1), or the validation after it."""

    def __init__(self, step: int, *, in_validation: bool = False) -> None:
        self.step = step
        self.in_validation = in_validation

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if not self.in_validation and trainer.global_step + 1 == self.step:
            raise KilledError

    def on_validation_batch_end(self, trainer: Trainer, *args: object) -> None:
        if self.in_validation and trainer.global_step == self.step:
            raise KilledError


class Fail(Callback):
    """Raises in one hook; within a step in the fourth."""

    def __init__(self, hook: str, error: type[BaseException] = RuntimeError) -> None:
        self.hook = hook
        self.error = error

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if trainer.global_step == 3:
            self._fail("on_before_backward")

    def on_validation_batch_end(self, *args: object) -> None:
        self._fail("on_validation_batch_end")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fail("on_train_start")

    def _fail(self, hook: str) -> None:
        if self.hook == hook:
            raise self.error(f"in {hook}")


def seed() -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)


def make_trainer(folder: Path, callbacks: list[Callback], **settings: Any) -> Trainer:  # noqa: ANN401
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "default_root_dir": folder,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    return Trainer(callbacks=callbacks, **{**quiet, **settings})
