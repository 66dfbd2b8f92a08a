"""Which sample at which position of which epoch, and with which random numbers: pure functions of one seed.

Nothing here knows about ranks, workers or what was read before, which is what makes the order of a run independent of
all three and a resumed run equal to one that was never interrupted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurotrain.data.plan.base import PlanBlock, SampleKey
from neurotrain.data.plan.seeds import FIRST, GOLDEN, SECOND, mix_seed

_ORDER = 1  # a fourth word keeps the permutations' seeds apart from the samples'


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """The global order of samples: a pure function of (epoch, position).

    An epoch is a sequence of permutations of the dataset, each drawn anew, of which the last may be cut short. So each
    sample occurs equally often within an epoch, give or take one, whatever ``samples_per_epoch`` is.

    Args:
        count: samples in the dataset.
        samples_per_epoch: positions of an epoch; None: ``count``.
        shuffle: False: every permutation is the dataset's own order.
        seed: of the order and of every sample's random numbers.

    Raises:
        ValueError: if ``count`` or ``samples_per_epoch`` is below 1.

    Example:
        >>> plan = EpochPlan(count=3, samples_per_epoch=5, shuffle=False)
        >>> [plan.key(epoch=0, position=i).index for i in range(len(plan))]
        [0, 1, 2, 0, 1]
    """

    count: int
    samples_per_epoch: int | None = None
    shuffle: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.count < 1:
            raise ValueError(f"count={self.count}: a plan needs at least 1 sample")
        if self.samples_per_epoch is not None and self.samples_per_epoch < 1:
            raise ValueError(f"samples_per_epoch={self.samples_per_epoch}: must be at least 1, or None for all samples")

    def __len__(self) -> int:
        """Positions of one epoch."""
        return self.count if self.samples_per_epoch is None else self.samples_per_epoch

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Indices of a whole epoch.

        Args:
            epoch: from 0.

        Returns:
            int64 ``(len(self),)``; position -> index.
        """
        cycles = -(-len(self) // self.count)
        return np.concatenate([self._permutation(epoch, cycle) for cycle in range(cycles)])[: len(self)]

    def length(self, epoch: int) -> int:
        """Positions of one epoch; all have as many."""
        return len(self)

    def block(self, *, epoch: int, first: int, last: int) -> PlanBlock:
        """The samples at positions ``[first, last)``.

        Args:
            epoch: from 0.
            first: first position.
            last: position behind the last one.

        Returns:
            Source 0 and the indices. The first call of an epoch orders all ``count`` samples, any other slices.
        """
        parts: list[NDArray[np.int64]] = []
        while first < last:
            cycle, offset = divmod(first, self.count)
            end = min(last, (cycle + 1) * self.count)
            parts.append(self._permutation(epoch, cycle)[offset : offset + end - first])
            first = end
        index = np.concatenate(parts) if parts else np.empty(0, np.int64)
        return PlanBlock(np.zeros(len(index), np.int32), index)

    def key(self, *, epoch: int, position: int) -> SampleKey:
        """The sample at one place.

        Args:
            epoch: from 0.
            position: in ``[0, len(self))``.

        Returns:
            Its key.

        Raises:
            IndexError: if the epoch has no such position.
        """
        if not 0 <= position < len(self):
            raise IndexError(f"position={position}: the epoch has positions 0 to {len(self) - 1}")
        cycle, offset = divmod(position, self.count)
        return SampleKey(int(self._permutation(epoch, cycle)[offset]), epoch, position)

    def generator(self, key: SampleKey) -> torch.Generator:
        """A fresh generator for the random numbers of one sample.

        It depends on seed, epoch and position alone: not on the rank or worker that asks, nor on what came before.

        Args:
            key: of the sample.

        Returns:
            CPU generator.
        """
        return torch.Generator().manual_seed(mix_seed(self.seed, key.epoch, key.position))

    def fingerprint(self) -> str:
        """Identity of the order: equal plans, equal digits.

        Returns:
            16 hexadecimal digits.
        """
        told = f"plan-1:{self.count}:{len(self)}:{self.shuffle}:{self.seed}"
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()

    def _permutation(self, epoch: int, cycle: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(self.count, dtype=np.int64)
        return _permutation(self.count, mix_seed(self.seed, epoch, cycle, _ORDER))


@lru_cache(maxsize=4)
def _permutation(length: int, seed: int) -> NDArray[np.int64]:
    # Sorting hashed counters instead of calling a library's shuffle: the order of a run must outlive library versions.
    with np.errstate(over="ignore"):
        z: NDArray[Any] = np.arange(length, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(seed)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(FIRST)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(SECOND)
        z = z ^ (z >> np.uint64(31))
    order = np.argsort(z, kind="stable")
    order.setflags(write=False)  # shared by every caller through the cache
    return order
