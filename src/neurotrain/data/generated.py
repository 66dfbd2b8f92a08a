"""Batches that are made as they are needed: a function of seed, epoch, place and rank."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

import torch

Batch = TypeVar("Batch")


class GeneratedLoader(Generic[Batch]):
    """Makes batches, and goes on where it was.

    Args:
        name: of the data: two of different names draw different numbers from one seed.
        make: a batch out of a generator.
        batches: of an epoch.
        seed: of all batches.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        *,
        name: str,
        make: Callable[[torch.Generator], Batch],
        batches: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._name, self._make, self._batches = name, make, batches
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._epoch, self._position = 0, 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch."""
        epoch, first = self._epoch, self._position
        for position in range(first, self._batches):
            done = position + 1 == self._batches
            self._epoch, self._position = (epoch + 1, 0) if done else (epoch, position + 1)
            yield self._make(self._generator(epoch, position))

    def state_dict(self) -> dict[str, int]:
        """Epoch and position of the batch that comes next."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from there."""
        self._epoch, self._position = state["epoch"], state["position"]

    def _generator(self, epoch: int, position: int) -> torch.Generator:
        place = position * self._world_size + self._rank
        digest = hashlib.blake2b(f"{self._name}/{self._seed}/{epoch}/{place}".encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
