"""Points of a Gaussian mixture, drawn as they are needed: the smallest data that generative models are judged on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

import torch
from lightning import LightningDataModule
from torch import Tensor

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


class PointLoader:
    """Batches that are a function of seed, epoch, place and rank; goes on where it was.

    Args:
        mixture: to draw from.
        batch_size: points a batch and rank.
        batches: of an epoch.
        seed: of all points.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self, *, mixture: GaussianMixture, batch_size: int, batches: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self._mixture, self._batch_size, self._batches = mixture, batch_size, batches
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._epoch, self._position = 0, 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self._batches

    def __iter__(self) -> Iterator[PointBatch]:
        """The rest of the epoch."""
        epoch, first = self._epoch, self._position
        for position in range(first, self._batches):
            done = position + 1 == self._batches
            self._epoch, self._position = (epoch + 1, 0) if done else (epoch, position + 1)
            yield self._batch(epoch, position)

    def state_dict(self) -> dict[str, int]:
        """Epoch and position of the batch that comes next."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from there."""
        self._epoch, self._position = state["epoch"], state["position"]

    def _batch(self, epoch: int, position: int) -> PointBatch:
        place = position * self._world_size + self._rank
        digest = hashlib.blake2b(f"points/{self._seed}/{epoch}/{place}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        point, label = self._mixture.sample(self._batch_size, generator=generator)
        return {"point": point, "label": label}


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

    def train_dataloader(self) -> PointLoader:
        """Fresh points."""
        rank = 0 if self.trainer is None else self.trainer.global_rank
        world_size = 1 if self.trainer is None else self.trainer.world_size
        return PointLoader(
            mixture=self.mixture,
            batch_size=self._batch_size,
            batches=self._batches,
            seed=self._seed,
            rank=rank,
            world_size=world_size,
        )

    def val_dataloader(self) -> PointLoader:
        """One batch, which says that it is time to sample."""
        return self._once()

    def test_dataloader(self) -> PointLoader:
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

    def _once(self) -> PointLoader:
        return PointLoader(mixture=self.mixture, batch_size=1, batches=1, seed=self._seed + 1)
