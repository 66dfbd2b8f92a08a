"""Points of a Gaussian mixture, drawn as they are needed: the smallest data that generative models are judged on."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any, TypedDict

import torch
from lightning import LightningDataModule
from torch import Tensor

from neurotrain.data.generated import GeneratedLoader
from neurotrain.networks.gaussian_mixture import GaussianMixture


class PointBatch(TypedDict):
    """Points with the components that they come from.

    They have no names: each is drawn once and lies nowhere, and moving a thousand names to a device takes longer than
    the points' whole training step.

    Attributes:
        point: float32 ``(B, 2)``.
        label: int64 ``(B,)``.
    """

    point: Tensor
    label: Tensor


class PointDataModule(LightningDataModule):
    """Points of a mixture: fresh ones in every batch.

    Args:
        mixture: to draw from.
        batch_size: points a training step and rank.
        batches: steps of an epoch.
        seed: of all points.

    Raises:
        ValueError: if a number is below 1.
    """

    def __init__(self, *, mixture: GaussianMixture, batch_size: int = 1024, batches: int = 1000, seed: int = 0) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("batches", batches)):
            if value < 1:
                raise ValueError(f"{name}={value}: expected 1 or more")
        self.mixture = mixture
        self._batch_size, self._batches, self._seed = batch_size, batches, seed

    def train_dataloader(self) -> GeneratedLoader[PointBatch]:
        """Fresh points."""
        rank = 0 if self.trainer is None else self.trainer.global_rank
        world_size = 1 if self.trainer is None else self.trainer.world_size
        return GeneratedLoader(
            name="points",
            make=partial(self._batch, self._batch_size),
            batches=self._batches,
            seed=self._seed,
            rank=rank,
            world_size=world_size,
        )

    def val_dataloader(self) -> GeneratedLoader[PointBatch]:
        """One batch, which says that it is time to sample."""
        return self._once()

    def test_dataloader(self) -> GeneratedLoader[PointBatch]:
        """One batch, which says that it is time to sample."""
        return self._once()

    def summary(self) -> dict[str, Any]:
        """Name, fingerprint and size."""
        values = repr([value.tolist() for value in self.mixture.buffers()])
        return {
            "name": "gaussian_mixture",
            "fingerprint": hashlib.blake2b(values.encode(), digest_size=8).hexdigest(),
            "synthetic": True,
            "counts": {"train": self._batches * self._batch_size},
        }

    def _once(self) -> GeneratedLoader[PointBatch]:
        return GeneratedLoader(name="points", make=partial(self._batch, 1), batches=1, seed=self._seed + 1)

    def _batch(self, count: int, generator: torch.Generator) -> PointBatch:
        point, label = self.mixture.sample(count, generator=generator)
        return {"point": point, "label": label}
