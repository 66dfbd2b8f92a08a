"""A small task without batch statistics and what trains it on one rank of several."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

BATCHES, GLOBAL_BATCH = 20, 8
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
ADAMW = partial(torch.optim.AdamW, lr=0.05)


class ZeroTask(LightningModule):
    """Sizes that two ranks do not share evenly, a frozen layer, a tied one, groups and a schedule; notes its losses."""

    def __init__(self, optimizer: partial[torch.optim.Optimizer] = SGD) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.tied = nn.Linear(3, 5), nn.Linear(5, 5)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.again = nn.Linear(5, 5)
        self.again.weight = self.tied.weight
        self.last, self.scale = nn.Linear(5, 1), nn.Parameter(torch.tensor(1.5))
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))
        self.optimizer = optimizer
        self.losses: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.tied(torch.tanh(self.first(x))))
        return self.last(torch.tanh(self.again(self.frozen(x)))) * self.scale

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = (self(batch.to(self.last.weight.dtype)).float() - batch.sum(1, keepdim=True)).square().mean()
        self.losses.append(loss.item())
        self.seen += 1
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/mean", self(batch).mean(), sync_dist=True, batch_size=len(batch))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("test/mean", self(batch).mean(), sync_dist=True, batch_size=len(batch))

    def configure_optimizers(self) -> dict[str, Any]:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups = [
            {"params": [parameter for parameter in trained if parameter.ndim > 1]},
            {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = self.optimizer(groups)
        schedule = LambdaLR(optimizer, lambda step: 0.97**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Batches:
    """A rank's share of each global batch, the same in each epoch."""

    def __init__(self, count: int, *, rank: int, size: int) -> None:
        data = torch.randn(count, GLOBAL_BATCH, 3, generator=torch.Generator().manual_seed(5))
        self.batches = list(data[:, rank::size])

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        """All of them."""
        return iter(self.batches)


def fit(
    folder: Path,
    strategy: Strategy | str,
    *,
    rank: int,
    size: int = 2,
    optimizer: partial[torch.optim.Optimizer] = SGD,
    epochs: int = 1,
    batches: int = BATCHES,
    callbacks: list[Callback] | None = None,
    resume: Path | None = None,
    task: LightningModule | None = None,
    **settings: Any,  # noqa: ANN401
) -> tuple[Trainer, Any]:
    """Train the same global batches on this rank."""
    trainer = Trainer(
        accelerator="cpu",
        devices=size,
        strategy=strategy,
        max_epochs=epochs,
        default_root_dir=str(folder),
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=any("Checkpoint" in type(one).__name__ for one in callbacks or ()),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        deterministic=True,
        **settings,
    )
    task = ZeroTask(optimizer) if task is None else task
    # One rank has a batch more than the other to validate.
    held_out = Batches(2 + (rank == 0), rank=rank, size=size)
    path = None if resume is None else str(resume)
    trainer.fit(task, Batches(batches, rank=rank, size=size), held_out, ckpt_path=path, weights_only=True)
    return trainer, task
