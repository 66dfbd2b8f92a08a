"""A DataLoader that knows where it is: its order is planned, its position is counted where batches are consumed.

Lightning creates the iterator before it tells the epoch, skips the loader's state at the end of an epoch, and asks for
the length while resuming. All three are met here: workers start at the first batch, a position belongs to one epoch and
is void in any other, and the length is always the whole epoch's.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter  # pyright: ignore[reportPrivateUsage]

from neurotrain.data.plan import EpochPlan, SampleKey

StartMethod = Literal["auto", "fork", "forkserver", "spawn"]
"""How workers come to life; ``auto`` is ``fork`` on Linux, which shares what is already in RAM, else ``spawn``."""


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
        self, *, plan: EpochPlan, batch_size: int, rank: int = 0, world_size: int = 1, drop_last: bool = True
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
        if len(plan) < needed:
            raise ValueError(
                f"batch_size={batch_size} on {world_size} rank(s) needs at least {needed} samples per epoch, "
                f"the plan has {len(plan)}"
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
        """Use a resumed position once. Not part of ``__iter__``, which DataLoader calls twice to start workers."""
        self.start, self._unbegun = 0, "no"

    def resume(self, *, epoch: int, start: int, unreal_epochs: int) -> None:
        """Let the next pass over ``epoch`` begin at batch ``start``."""
        self.epoch, self.start, self.unreal_epochs = epoch, start, unreal_epochs
        self._unbegun = "resumed"

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        full, rest = divmod(len(self.plan), self.global_batch)
        return full if self.drop_last else full + (rest > self.rank)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Yield the batches from ``start`` on; later calls of ``set_epoch`` do not reach into a pass that runs."""
        return self._batches(self.epoch, self.start)

    def _batches(self, epoch: int, start: int) -> Iterator[list[SampleKey]]:
        order = self.plan.order(epoch)
        for batch in range(start, len(self)):
            first = batch * self.global_batch
            last = min(first + self.global_batch, len(order))
            positions = range(first + self.rank, last, self.world_size)
            yield [SampleKey(int(order[position]), epoch, position) for position in positions]


class PlannedLoader(DataLoader[Any]):
    """DataLoader over a plan, exactly resumable within an epoch.

    State is ``(epoch, batches consumed)``: a batch counts when the main process receives it, not when a worker has
    prefetched it. Resuming jumps there without reading what came before. World size, number of workers and start method
    may change in between as long as ``batch_size * world_size`` stays. A checkpoint belongs after a training step: one
    that is written between fetching a batch and stepping on it counts that batch as trained.

    Without a trainer, call :meth:`set_epoch` before each epoch. Use ``Trainer(use_distributed_sampler=False)``.
    The global random state is never touched.

    Args:
        dataset: map-style; ``dataset[SampleKey]`` gives one sample.
        plan: the global order.
        batch_size: samples per batch and rank.
        collate: makes a batch of a list of samples.
        drop_last: see :class:`PlannedBatches`.
        rank: of this process.
        world_size: number of processes.
        num_workers: processes that prepare batches, each on one thread; 0: in this process.
        prefetch: batches each worker prepares ahead.
        persistent_workers: keep the workers from epoch to epoch.
        start_method: how workers are started. ``fork`` takes milliseconds and shares memory; the children use neither
            CUDA nor more than one thread. ``forkserver`` and ``spawn`` need everything to be picklable.
        timeout: seconds to wait for a batch from workers before giving up; without workers nothing is waited for.
        pin_memory: copy batches to page-locked memory.

    Raises:
        ValueError: as :class:`PlannedBatches`; or if ``persistent_workers`` is set without workers.

    Example:
        >>> class Squares(Dataset[int]):
        ...     def __getitem__(self, key: SampleKey) -> int:
        ...         return key.index**2
        >>> plan = EpochPlan(length=5, shuffle=False)
        >>> loader = PlannedLoader(dataset=Squares(), plan=plan, batch_size=2, collate=list)
        >>> iterator = iter(loader)
        >>> next(iterator), loader.state_dict()["batch"]
        ([0, 1], 1)
        >>> resumed = PlannedLoader(dataset=Squares(), plan=plan, batch_size=2, collate=list)
        >>> resumed.load_state_dict(loader.state_dict())
        >>> list(resumed), len(resumed)
        ([[4, 9]], 2)
    """

    def __init__(
        self,
        *,
        dataset: Dataset[Any],
        plan: EpochPlan,
        batch_size: int,
        collate: Callable[[list[Any]], Any],
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        prefetch: int = 2,
        persistent_workers: bool = False,
        start_method: StartMethod = "auto",
        timeout: float = 300.0,
        pin_memory: bool = False,
    ) -> None:
        self._batches = PlannedBatches(
            plan=plan, batch_size=batch_size, rank=rank, world_size=world_size, drop_last=drop_last
        )
        self._position = (0, 0)
        self._running: weakref.ref[Any] | None = None
        super().__init__(
            dataset,
            batch_sampler=self._batches,
            num_workers=num_workers,
            collate_fn=collate,
            pin_memory=pin_memory,
            timeout=timeout if num_workers else 0,
            multiprocessing_context=_context(start_method) if num_workers else None,
            # Its own: DataLoader otherwise draws one global random number per pass, so a resumed run would differ.
            generator=torch.Generator().manual_seed(0),
            prefetch_factor=prefetch if num_workers else None,
            persistent_workers=persistent_workers,
            worker_init_fn=_start_worker,
        )

    @property
    def plan(self) -> EpochPlan:
        """The global order."""
        return self._batches.plan

    @property
    def global_batch(self) -> int:
        """Samples that all ranks take together in one step."""
        return self._batches.global_batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass; Lightning does so by itself."""
        self._batches.set_epoch(epoch)

    # DataLoader promises its private iterator class; only Iterator is ever used of it.
    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One pass over the rest of the epoch; nothing is read before its first batch is asked for."""
        return _Pass(self)

    def state_dict(self) -> dict[str, Any]:
        """Position and identity of the order, of plain values."""
        epoch, consumed = self._position
        if epoch != self._batches.epoch:
            epoch, consumed = self._batches.epoch, 0
        progress = {"epoch": epoch, "batch": consumed, "unreal_epochs": self._batches.unreal_epochs}
        return {**progress, **self._identity()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on behind the last consumed batch.

        The next pass over that epoch starts there, and yields nothing where the epoch was complete; every other pass
        starts at 0.

        Args:
            state_dict: of a loader with an equal plan and global batch.

        Raises:
            ValueError: if plan, global batch or ``drop_last`` differ: the order could not be continued.
        """
        for name, value in self._identity().items():
            if state_dict[name] != value:
                raise ValueError(
                    f"cannot resume: the checkpoint has {name}={state_dict[name]!r}, this loader has {name}={value!r}"
                )
        epoch, batch = int(state_dict["epoch"]), int(state_dict["batch"])
        self._position = (epoch, batch)
        self._batches.resume(epoch=epoch, start=batch, unreal_epochs=int(state_dict["unreal_epochs"]))

    def close(self) -> None:
        """End the workers of the pass that runs, if any; the next pass starts new ones.

        An unfinished pass ends its workers when it is freed. Left to the garbage collector, as by an exception whose
        traceback holds it, that takes 5 seconds a worker: their queues are gone first.
        """
        running = None if self._running is None else self._running()
        if isinstance(running, _MultiProcessingDataLoaderIter):
            running._shutdown_workers()  # pyright: ignore[reportPrivateUsage] - there is no public way
        self._iterator = None

    def _identity(self) -> dict[str, Any]:
        batches = self._batches
        return {
            "seed": self.plan.seed,
            "length": self.plan.length,
            "samples_per_epoch": len(self.plan),
            "global_batch": batches.global_batch,
            "drop_last": batches.drop_last,
            "plan": self.plan.fingerprint(),
        }

    def _begin(self) -> Iterator[Any]:
        self._position = (self._batches.epoch, self._batches.start)
        inner = super().__iter__()
        self._running = weakref.ref(inner)
        self._batches.begun()
        return inner

    def _count(self) -> None:
        epoch, consumed = self._position
        self._position = (epoch, consumed + 1)


class _Pass(Iterator[Any]):
    """Starts the workers at its first batch, when the epoch is known, and counts what it hands out."""

    def __init__(self, loader: PlannedLoader) -> None:
        self._loader = loader
        self._inner: Iterator[Any] | None = None

    def __next__(self) -> Any:  # noqa: ANN401 - whatever collate makes
        if self._inner is None:
            self._inner = self._loader._begin()  # pyright: ignore[reportPrivateUsage]
        batch = next(self._inner)
        self._loader._count()  # pyright: ignore[reportPrivateUsage]
        return batch


def _start_worker(worker: int) -> None:
    # What a fork inherited is the parent's: collecting it here would copy its pages, and finalizers would act twice.
    gc.freeze()


def _context(start_method: StartMethod) -> str:
    if start_method == "auto":
        return "fork" if sys.platform == "linux" else "spawn"
    return start_method
