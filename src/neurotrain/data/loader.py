"""The one loader: its order is planned, its position is counted where batches are consumed, its workers are ours.

Lightning creates the iterator before it tells the epoch, skips the loader's state at the end of an epoch, and asks for
the length while resuming. All three are met here: workers start at the first batch, a position belongs to one epoch and
is void in any other, and the length is always the whole epoch's.
"""

from __future__ import annotations

import hashlib
import os
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from neurotrain.data.batches import PlannedBatches
from neurotrain.data.counted import CountedLoader
from neurotrain.data.engine import (
    BatchMaker,
    BatchSource,
    Delivery,
    LoaderError,
    LocalStream,
    PooledStream,
    Quarantine,
    Records,
    SampleSource,
    StartMethod,
    Stream,
    WorkerPool,
    resident_bytes,
)
from neurotrain.data.parts import PartSamples
from neurotrain.data.plan import EpochPlan, LearningPlan, Plan, SampleKey

__all__ = ["PlannedBatches", "PlannedLoader", "StartMethod"]


class PlannedLoader(CountedLoader):
    """Batches of a plan, exactly resumable within an epoch.

    State is ``(epoch, batches consumed)``: a batch counts when the training loop receives it, not when a worker has
    prefetched it. Resuming jumps there without reading what came before. World size, number of workers and start method
    may change in between as long as ``batch_size * world_size`` stays. A checkpoint belongs after a training step: one
    that is written between fetching a batch and stepping on it counts that batch as trained.

    Workers write into shared memory that is used again and again: tensors of a batch are views of it, and its place is
    free when the last of them is. Whoever keeps many batches (``list(loader)``) gets copies from then on. Order and
    bits of the batches are the same for any number of workers. A sample's random numbers belong to its key
    (``EpochPlan.generator``); the global generators of workers are not seeded, unless ``seed_globals`` is set.

    Without a trainer, call :meth:`set_epoch` before each epoch. Use ``Trainer(use_distributed_sampler=False)``.

    Args:
        dataset: gives one sample by its key, or a whole batch; see ``neurotrain.data.engine.protocols``.
        plan: the global order.
        batch_size: samples per batch and rank.
        collate: makes a batch of a list of samples. None: samples are mappings; numeric arrays and tensors are stacked
            to tensors, all other fields listed.
        ragged: fields to be listed though they are arrays, for their shapes differ within a batch.
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
        quarantine: what to do with samples that cannot be loaded; None: the first one ends the pass.
        ledger: folder for the list of bad samples; None: it is kept in memory only.
        seed_globals: seed the global generators of ``random``, numpy and torch for each sample, from the plan's
            identity and the sample's place, and restore them afterwards; for transforms that take no generator.
        sources: names of the plan's sources, for telemetry; without them they are numbered.
        targets: share of each source that the first positions of an epoch should have, by epoch and their number.

    Raises:
        ValueError: as :class:`PlannedBatches`; or if settings have no effect together.

    Example:
        >>> class Squares:
        ...     def load(self, key: SampleKey) -> dict[str, int]:
        ...         return {"square": key.index**2}
        >>> plan = EpochPlan(count=5, shuffle=False)
        >>> loader = PlannedLoader(dataset=Squares(), plan=plan, batch_size=2)
        >>> iterator = iter(loader)
        >>> next(iterator), loader.state_dict()["batch"]
        ({'square': [0, 1]}, 1)
        >>> resumed = PlannedLoader(dataset=Squares(), plan=plan, batch_size=2)
        >>> resumed.load_state_dict(loader.state_dict())
        >>> list(resumed), len(resumed)
        ([{'square': [4, 9]}], 2)
    """

    _learns: Literal["not yet", "waits", "does"] = "not yet"

    def __init__(
        self,
        *,
        dataset: SampleSource[SampleKey] | BatchSource,
        plan: Plan,
        batch_size: int,
        collate: Callable[[list[Any]], Any] | None = None,
        ragged: Collection[str] = (),
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        prefetch: int = 2,
        persistent_workers: bool = False,
        start_method: StartMethod = "auto",
        timeout: float = 300.0,
        pin_memory: bool = False,
        quarantine: Quarantine | None = None,
        ledger: Path | None = None,
        seed_globals: bool = False,
        sources: Sequence[str] = (),
        targets: Callable[[int, int], Sequence[float]] | None = None,
    ) -> None:
        _check(num_workers=num_workers, prefetch=prefetch, persistent_workers=persistent_workers, timeout=timeout)
        batches = PlannedBatches(
            plan=plan, batch_size=batch_size, rank=rank, world_size=world_size, drop_last=drop_last
        )
        super().__init__(batches=batches, num_workers=num_workers, quarantine=quarantine, ledger=ledger)
        self.plan = plan
        self.sources = tuple(sources)
        self._targets, self._dataset = targets, dataset
        self._maker = BatchMaker(
            source=dataset,
            make_key=SampleKey,
            collate=collate,
            ragged=ragged,
            quarantine=quarantine,
            seed=_seed_of(plan),
            seed_globals=seed_globals,
        )
        self._prefetch, self._persistent = prefetch, persistent_workers
        self._start_method: StartMethod = start_method
        self._timeout, self._pin_memory = timeout, pin_memory
        self._last = 0  # batches of the epoch that runs
        self._kept: WorkerPool | None = None
        self._running: weakref.ref[WorkerPool] | None = None

    @property
    def global_batch(self) -> int:
        """Samples that all ranks take together in one step."""
        return self._batches.global_batch

    @property
    def exempt(self) -> tuple[str, ...]:
        """Names of the sources that are drawn by the losses of their samples; their order is no pure function."""
        return self.plan.exempt if isinstance(self.plan, LearningPlan) else ()

    def learn(self, *, sources: Sequence[str], ids: Sequence[str], losses: Sequence[float]) -> None:
        """Tell the losses of some samples; those of sources that are not exempt are passed over.

        Args:
            sources: N names.
            ids: N names.
            losses: N numbers, finite and not negative.

        Raises:
            ValueError: if a loss is not, or nothing here learns.
            KeyError: if a source has no such sample.
        """
        if not isinstance(self.plan, LearningPlan) or not isinstance(self._dataset, PartSamples):
            raise ValueError("learn: this loader's order does not depend on losses")
        self._learns = "does"
        for name in self.exempt:
            rows = [row for row, source in enumerate(sources) if source == name]
            entries = self._dataset.entries(self.sources.index(name), [ids[row] for row in rows])
            self.plan.learn(name, entries, np.array([losses[row] for row in rows], np.float64))

    def __iter__(self) -> Iterator[Any]:
        """One pass over the rest of the epoch; nothing is read before its first batch is asked for."""
        return _Pass(self)

    def state_dict(self) -> dict[str, Any]:
        """Position, identity of the order and counts, of plain values."""
        batches = self._batches
        progress = {"epoch": batches.epoch, "batch": self.consumed, "unreal_epochs": batches.unreal_epochs}
        learned = {"learned": self.plan.state_dict()} if isinstance(self.plan, LearningPlan) and self.exempt else {}
        return {**progress, **self._identity(), **learned, "records": self._records.state_dict()}

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
        if isinstance(self.plan, LearningPlan) and self.exempt:
            self.plan.load_state_dict(state_dict["learned"])
        epoch, batch = int(state_dict["epoch"]), int(state_dict["batch"])
        self._position = (epoch, batch)
        self._batches.resume(epoch=epoch, start=batch, unreal_epochs=int(state_dict["unreal_epochs"]))
        self._ledger_is_cut = False
        # Lightning saves what the first rank says; the others cannot know what they had counted.
        self._records = Records()
        if self._batches.rank == 0:
            self._records.load_state_dict(state_dict["records"])

    def sources_told(self) -> dict[str, dict[str, Any]]:
        """What became of each source in this epoch: see :meth:`CountedLoader.sources_told`."""
        names, targets = self._names(), self._due()
        orders = ["by losses" if name in self.exempt else "exact" for name in names]
        return {
            name: self._told_of(name, number, order=orders[number], target=None if targets is None else targets[number])
            for number, name in enumerate(names)
        }

    def telemetry(self) -> dict[str, Any]:
        """What happened since the last call, of plain values; reading it costs microseconds.

        Returns:
            ``batches``; ``wait_seconds`` that the training loop waited for them and ``wait_share`` of the time that
            passed; mean ``queue_depth``; ``retried`` and ``replaced`` in all; ``copies`` of batches because too many
            were kept; ``rss_bytes`` of this process and the workers; ``share`` of each source in this epoch, over all
            ranks, and its ``target`` where there is one; ``counters`` of the source, such as cache hits.
        """
        pool = None if self._running is None else self._running()
        workers = [] if pool is None or pool.closed else pool.pids
        told = self._records.told()
        told["rss_bytes"] = resident_bytes([os.getpid(), *workers])
        told["copies"] = 0 if pool is None else pool.ring.copies
        shares, names, targets = self._records.shares, self._names(), self._due()
        told["share"] = dict(zip(names, shares + [0.0] * (len(names) - len(shares)), strict=True))
        if targets is not None:
            told["target"] = dict(zip(names, targets, strict=True))
        return told

    def close(self) -> None:
        """End the workers, if any; the next pass starts new ones. An unfinished pass ends its own when it is freed."""
        pool = None if self._running is None else self._running()
        if pool is not None:
            pool.close()
        self._kept = None

    def _names(self) -> tuple[str, ...]:
        return self.sources or tuple(map(str, range(len(self._records.drawn))))

    def _due(self) -> list[float] | None:
        """Share that each source should have of what was handed out."""
        if self._targets is None:
            return None
        epoch, consumed = self._position
        return [float(target) for target in self._targets(epoch, max(consumed, 1) * self.global_batch)]

    def _identity(self) -> dict[str, Any]:
        batches, plan = self._batches, self.plan
        given = {"global_batch": batches.global_batch, "drop_last": batches.drop_last, "plan": plan.fingerprint()}
        if isinstance(plan, EpochPlan):
            given = {"seed": plan.seed, "count": plan.count, "samples_per_epoch": len(plan), **given}
        return given

    def _begin(self) -> Stream:
        if self.exempt and self._learns == "waits":
            raise ValueError(
                f"sources {list(self.exempt)} are drawn by losses, and nobody told any in the pass before: "
                "add the callback LossPriorities, or call learn()"
            )
        self._learns = "waits"
        epoch, start = self._position = (self._batches.epoch, self._batches.start)
        self._records.begin(epoch, start)
        if self._ledger is not None and not self._ledger_is_cut:
            self._records.recall(self._ledger.cut(epoch=epoch, step=start), epoch)
            self._ledger_is_cut = True
        self._last = self._batches.batches(epoch)
        requests = self._batches.requests()
        if self._workers:
            stream: Stream = PooledStream(pool=self._pool(), requests=requests, timeout=self._timeout)
        else:
            stream = LocalStream(maker=self._maker, requests=requests)
        self._batches.begun()
        return stream

    def _pool(self) -> WorkerPool:
        if self._kept is not None and not self._kept.closed:
            return self._kept
        started = time.perf_counter()
        pool = WorkerPool(
            maker=self._maker,
            workers=self._workers,
            prefetch=self._prefetch,
            rows=self._batches.batch_size,
            start_method=self._start_method,
        )
        self.worker_seconds += time.perf_counter() - started
        self._running = weakref.ref(pool)
        self._kept = pool if self._persistent else None
        self._records.workers_began()
        return pool

    def _commit(self, delivery: Delivery) -> None:
        """Count a batch as consumed."""
        epoch, consumed = self._position
        self._position = (epoch, consumed + 1)
        pool = None if self._running is None else self._running()
        queued = 0 if pool is None else pool.queued
        self._records.count(delivery.request, delivery.report, waited=delivery.waited, queued=queued)
        if consumed + 1 == self._last:
            self._records.statistics.skipped += self._batches.left_out(epoch)
        if delivery.report.replaced:
            self._write_down(delivery.report.replaced, self._batches.samples(epoch))


class _Pass(Iterator[Any]):
    """Starts the workers at its first batch, when the epoch is known, and counts what it hands out."""

    def __init__(self, loader: PlannedLoader) -> None:
        self._loader = loader
        self._stream: Stream | None = None
        self._over: StopIteration | LoaderError | None = None

    def __next__(self) -> Any:  # noqa: ANN401 - whatever collate makes
        if self._over is not None:
            raise self._over
        loader = self._loader
        try:
            if self._stream is None:
                self._stream = loader._begin()  # pyright: ignore[reportPrivateUsage]
            delivery = self._stream.next()
            loader._commit(delivery)  # pyright: ignore[reportPrivateUsage]
        except StopIteration as end:
            self._end(StopIteration(*end.args), keep_workers=True)
            raise
        except BaseException as error:
            # Going on would leave a batch out.
            self._end(LoaderError(f"this pass was ended by {type(error).__name__}"), keep_workers=False)
            raise
        if loader._pin_memory:  # pyright: ignore[reportPrivateUsage]
            return apply_to_collection(delivery.batch, Tensor, torch.Tensor.pin_memory)
        return delivery.batch

    def _end(self, over: StopIteration | LoaderError, *, keep_workers: bool) -> None:
        self._over = over
        self._stream = None
        if not (keep_workers and self._loader._persistent):  # pyright: ignore[reportPrivateUsage]
            self._loader.close()


def _seed_of(plan: Plan) -> int:
    """A number that differs between orders, for what is drawn beside them."""
    if isinstance(plan, EpochPlan):
        return plan.seed
    return int.from_bytes(hashlib.blake2b(plan.fingerprint().encode(), digest_size=8).digest(), "big")


def _check(*, num_workers: int, prefetch: int, persistent_workers: bool, timeout: float) -> None:
    if num_workers < 0:
        raise ValueError(f"num_workers={num_workers}: must be at least 0")
    if prefetch < 1:
        raise ValueError(f"prefetch={prefetch}: must be at least 1")
    if persistent_workers and not num_workers:
        raise ValueError("persistent_workers has no effect with num_workers=0")
    if timeout <= 0:
        raise ValueError(f"timeout={timeout}: must be above 0")
