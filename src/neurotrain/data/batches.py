"""Which samples make up which batch of which rank: the plan dealt out, block by block, from any batch on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

from neurotrain.data.engine import BatchRequest
from neurotrain.data.plan import LearningPlan, Plan, SampleKey

_FIRST = 1024  # positions asked of a plan at once in the beginning, when they are waited for
_BLOCK = 16384  # later: fewer cost more for each call, more no longer lie in the processor's nearer caches


class PlannedBatches(Sampler[list[SampleKey]]):
    """One rank's share of a plan, batch by batch.

    With ``G = batch_size * world_size``, global batch ``b`` covers the positions ``[b * G, (b + 1) * G)`` of the epoch;
    rank ``r`` takes every ``world_size``-th of them, from the ``r``-th on. So ``G`` alone decides what is trained on
    together: 2 ranks of 4 and 1 rank of 8 see the same samples in the same optimizer step.

    Args:
        plan: the global order.
        batch_size: samples per batch and rank.
        rank: of this process.
        world_size: number of processes.
        drop_last: leave out the last, partial global batch. Without it ranks may differ in their number of batches,
            which is right for evaluation (disjoint shares, nobody counted twice) and stalls distributed training.

    Raises:
        ValueError: if ``rank`` does not fit ``world_size``, or this rank would not get a single batch.
    """

    def __init__(
        self, *, plan: Plan, batch_size: int, rank: int = 0, world_size: int = 1, drop_last: bool = True
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank}: world_size={world_size} has the ranks 0 to {world_size - 1}")
        self.plan = plan
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last
        self.epoch = 0
        self.start = 0
        self.unreal_epochs = 0
        self._unbegun: Literal["no", "resumed", "announced"] = "no"
        needed = self.global_batch if drop_last else world_size
        if self.plan.length(0) < needed:
            raise ValueError(
                f"batch_size={batch_size} on {world_size} rank(s) needs at least {needed} samples per epoch, "
                f"the plan has {self.plan.length(0)}"
            )

    @property
    def global_batch(self) -> int:
        """Samples that all ranks take together in one step."""
        return self.batch_size * self.world_size

    @property
    def sampler(self) -> PlannedBatches:
        """Itself: Lightning looks for ``set_epoch`` at ``loader.batch_sampler.sampler`` and nowhere nearer."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass. A resumed position survives in its own epoch only.

        Resumed at the end of an epoch under ``max_steps``, Lightning announces the next epoch, asks for none of its
        batches, and announces the one after that. The first did not happen: numbers are shifted from there on.
        """
        epoch -= self.unreal_epochs
        if epoch == self.epoch:
            return
        if self._unbegun == "announced" and epoch == self.epoch + 1:
            self.unreal_epochs += 1
            return
        self.epoch, self.start = epoch, 0
        if self._unbegun == "resumed":
            self._unbegun = "announced"

    def begun(self) -> None:
        """Use a resumed position once."""
        self.start, self._unbegun = 0, "no"

    def resume(self, *, epoch: int, start: int, unreal_epochs: int) -> None:
        """Let the next pass over ``epoch`` begin at batch ``start``."""
        self.epoch, self.start, self.unreal_epochs = epoch, start, unreal_epochs
        self._unbegun = "resumed"

    def __len__(self) -> int:
        """Batches of the present epoch, all of it, on this rank."""
        return self.batches(self.epoch)

    def batches(self, epoch: int) -> int:
        """Batches of an epoch on this rank."""
        full, rest = divmod(self.plan.length(epoch), self.global_batch)
        return full if self.drop_last else full + (rest > self.rank)

    def samples(self, epoch: int) -> int:
        """Samples of an epoch on this rank, those that are left out included."""
        return len(range(self.rank, self.plan.length(epoch), self.world_size))

    def left_out(self, epoch: int) -> int:
        """Samples of an epoch that this rank leaves out because their global batch is not full."""
        rest = self.plan.length(epoch) % self.global_batch
        return len(range(self.rank, rest, self.world_size)) if self.drop_last else 0

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Yield the keys of the batches from ``start`` on."""
        for request in self.requests():
            yield list(request.keys(SampleKey))

    def requests(self) -> Iterator[BatchRequest]:
        """Batches from ``start`` on; later calls of :meth:`set_epoch` do not reach into a pass that runs."""
        return self._requests(self.epoch, self.start)

    def _requests(self, epoch: int, start: int) -> Iterator[BatchRequest]:
        size, count, length = self.global_batch, self.batches(epoch), self.plan.length(epoch)
        learning = isinstance(self.plan, LearningPlan) and bool(self.plan.exempt)
        end, positions, stride = start, size if learning else _FIRST, self.world_size
        while end < count:
            begin, end = end, min(end + max(1, positions // size), count)
            # What is drawn by losses is drawn as late as it can be: by the newest.
            positions = size if learning else min(4 * positions, _BLOCK)
            source, index = self.plan.block(epoch=epoch, first=begin * size, last=min(end * size, length))
            places = range(begin * size + self.rank, end * size, size)
            shares, rows = _shares(source, size), zip(places, self._own(index), self._own(source), strict=True)
            for row, (place, indices, sources) in enumerate(rows):
                yield BatchRequest(epoch, begin + row, place, stride, indices, sources, shares, row)

    def _own(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """What this rank has of each global batch in a stretch of them, of which the last one may be partial."""
        size, whole = self.global_batch, len(values) - len(values) % self.global_batch
        yield from values[:whole].reshape(-1, size)[:, self.rank :: self.world_size]
        if whole < len(values):
            yield values[whole + self.rank :: self.world_size]


def _shares(source: np.ndarray, size: int) -> np.ndarray:
    """Samples of each source in each run of ``size`` positions."""
    batches, sources = -(-len(source) // size), int(source.max(initial=0)) + 1
    which = np.arange(len(source)) // size * sources + source
    return np.bincount(which, minlength=batches * sources).reshape(batches, sources)
