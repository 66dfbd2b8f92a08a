"""Clips of moving shapes: the smallest videos that generative models are judged on."""

from __future__ import annotations

import hashlib
from typing import Any, TypedDict

import torch
from lightning import LightningDataModule
from torch import Tensor

from neurotrain.data.generated import GeneratedLoader
from neurotrain.networks.moving_shapes import MovingShapes


class ClipBatch(TypedDict):
    """Clips.

    Attributes:
        video: float32 ``(B, 1, T, H, W)`` in [-1, 1].
    """

    video: Tensor


class MovingShapesDataModule(LightningDataModule):
    """Clips of moving shapes: fresh ones in every batch.

    Args:
        clips: to draw from.
        batch_size: clips a training step and rank.
        batches: steps of an epoch.
        seed: of all clips.

    Raises:
        ValueError: if a number is below 1.
    """

    def __init__(self, *, clips: MovingShapes, batch_size: int = 64, batches: int = 500, seed: int = 0) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("batches", batches)):
            if value < 1:
                raise ValueError(f"{name}={value}: expected 1 or more")
        self.clips = clips
        self._batch_size, self._batches, self._seed = batch_size, batches, seed

    def train_dataloader(self) -> GeneratedLoader[ClipBatch]:
        """Fresh clips."""
        rank = 0 if self.trainer is None else self.trainer.global_rank
        world_size = 1 if self.trainer is None else self.trainer.world_size
        return GeneratedLoader(
            name="clips", make=self._batch, batches=self._batches, seed=self._seed, rank=rank, world_size=world_size
        )

    def val_dataloader(self) -> GeneratedLoader[ClipBatch]:
        """One batch, which says that it is time to sample."""
        return self._once()

    def test_dataloader(self) -> GeneratedLoader[ClipBatch]:
        """One batch, which says that it is time to sample."""
        return self._once()

    def summary(self) -> dict[str, Any]:
        """Name, fingerprint and size."""
        values = self.clips.clips.to(torch.int8).numpy().tobytes()
        return {
            "name": "moving_shapes",
            "fingerprint": hashlib.blake2b(values, digest_size=8).hexdigest(),
            "synthetic": True,
            "counts": {"train": self._batches * self._batch_size},
        }

    def _batch(self, generator: torch.Generator) -> ClipBatch:
        return {"video": self.clips.sample(self._batch_size, generator=generator)}

    def _once(self) -> GeneratedLoader[ClipBatch]:
        return GeneratedLoader(
            name="clips",
            make=lambda generator: {"video": self.clips.sample(1, generator=generator)},
            batches=1,
            seed=self._seed + 1,
        )
