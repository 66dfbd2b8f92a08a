"""A small task without batch statistics, with every block that can be cut, and what trains it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from neurotrain.metrics import ClassificationReport
from neurotrain.networks.blocks import TransformerLayer
from neurotrain.networks.text import TextTransformer, WordTokenizer

CLASSES, GLOBAL_BATCH, BATCHES, STEPS = 5, 8, 10, 20
WORDS = ["a", "cat", "on", "the", "mat", "dogs", "run", "far"]


class Tokens(nn.Module):
    """A text transformer, layers with a gate and shared heads, and a head."""

    def __init__(self, tokenizer: WordTokenizer) -> None:
        super().__init__()
        self.encoder = TextTransformer(tokenizer=tokenizer, width=16, layers=1, heads=4, length=8, pooling="mean")
        self.layers = nn.ModuleList(
            TransformerLayer(width=16, heads=4, kv_heads=2, hidden=24, activation="swiglu", context_width=16)
            for _ in range(1)
        )
        self.head = nn.Linear(16, CLASSES)
        self.picture = nn.Conv2d(1, 4, 3, padding=1).to(memory_format=torch.channels_last)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, tokens_BL: Tensor) -> Tensor:
        features = self.encoder(tokens_BL)
        x_BLD = features.sequence
        for layer in self.layers:
            x_BLD = layer(x_BLD, features.sequence)
        if self.training:
            self.seen += 1
        picture = self.picture(x_BLD.unsqueeze(1)).mean((1, 2))
        return self.head(x_BLD.mean(1) + features.pooled + picture)


class TokenTask(LightningModule):
    """Classifies texts; notes each loss."""

    def __init__(self, *, optimizer: partial[torch.optim.Optimizer]) -> None:
        super().__init__()
        self.network = Tokens(WordTokenizer(size=300))
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("counted", torch.zeros(()))
        self.report = ClassificationReport(mode="multiclass", num_classes=CLASSES, top_k=None)
        self._optimizer = optimizer
        self.losses: list[float] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        flat = [parameter for parameter in self.parameters() if parameter.ndim < 2]
        return self._optimizer([{"params": [p for p in self.parameters() if p.ndim > 1]}, {"params": flat}])

    def forward(self, tokens: Tensor) -> Tensor:
        return self.network(tokens) * self.scale

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch["tokens"]), batch["label"])
        self.losses.append(loss.item())
        self.counted += 1
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.report.update(self(batch["tokens"]).softmax(1), batch["label"], ids=batch["id"])

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": value.float() for name, value in self.report.compute().items()})
        self.report.reset()

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end


class Texts(Dataset[Any]):
    """Texts of random words, with random labels."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(count)
        words = torch.randint(len(WORDS), (count, 4), generator=generator)
        self.texts = [" ".join(WORDS[word] for word in row) for row in words.tolist()]
        self.tokens = WordTokenizer(size=300).batch(self.texts, length=8)
        self.labels = torch.randint(CLASSES, (count,), generator=generator)

    def __len__(self) -> int:  # noqa: D105
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:  # noqa: D105
        return {"tokens": self.tokens[index], "label": self.labels[index], "id": f"{index}"}


class EveryNth:
    """A rank's samples of each global batch, as the loaders of this package deal them out."""

    def __init__(self, count: int, batch: int, rank: int, size: int) -> None:
        self.batches = [list(range(begin, min(begin + batch, count)))[rank::size] for begin in range(0, count, batch)]
        self.batches = [own for own in self.batches if own]

    def __iter__(self) -> Iterator[list[int]]:  # noqa: D105
        return iter(self.batches)

    def __len__(self) -> int:  # noqa: D105
        return len(self.batches)


def loader(count: int, batch: int, *, rank: int, size: int) -> DataLoader[Any]:
    """A loader of one rank."""
    return DataLoader(Texts(count), batch_sampler=EveryNth(count, batch, rank, size))


def fit(
    folder: Path,
    strategy: Strategy | str,
    *,
    devices: int,
    optimizer: partial[torch.optim.Optimizer] | None = None,
    replicas: int | None = None,
    steps: int = STEPS,
    callbacks: list[Callback] | None = None,
    resume: Path | None = None,
    accumulate: int = 1,
    clip: float | None = None,
    precision: Any = "32-true",  # noqa: ANN401
    task: TokenTask | None = None,
    rank: int = 0,
    batches: int = BATCHES,
) -> tuple[Trainer, TokenTask]:
    """Train for some steps, validating at the end with a number of samples that no two ranks share evenly."""
    seed_everything(3, verbose=False)
    task = TokenTask(optimizer=optimizer or partial(torch.optim.SGD, lr=0.01)) if task is None else task
    size = devices if replicas is None else replicas
    place = rank if size > 1 else 0
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        max_steps=steps,
        default_root_dir=str(folder),
        callbacks=callbacks,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip,
        precision=precision,
        logger=False,
        enable_checkpointing=any("Checkpoint" in type(one).__name__ for one in callbacks or ()),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        deterministic=True,
    )
    trainer.fit(
        task,
        loader(GLOBAL_BATCH * batches, GLOBAL_BATCH, rank=place, size=size),
        loader(5, 2, rank=place, size=size),
        ckpt_path=None if resume is None else str(resume),
        weights_only=True,
    )
    return trainer, task
