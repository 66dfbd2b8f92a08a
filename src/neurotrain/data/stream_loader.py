"""The loader of streamed sources: every worker reads a share of its own, batches come from them in turn.

Nothing is planned here: what comes next is what the stream has next. So the order is a function of (seed, epoch, number
of ranks, number of workers), and a checkpoint holds the state of every reader behind its last consumed batch.
"""

from __future__ import annotations

import copy
import logging
import os
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from neurotrain.data.batches import PlannedBatches
from neurotrain.data.counted import CountedLoader
from neurotrain.data.engine import (
    BadSample,
    BatchMaker,
    Delivery,
    LoaderError,
    LocalStream,
    Quarantine,
    Records,
    StartMethod,
    Stream,
    WorkerPool,
    resident_bytes,
)
from neurotrain.data.engine.quarantine import Report
from neurotrain.data.plan import SampleKey
from neurotrain.data.planned_module import SequentialPlan, check_at_least
from neurotrain.data.sources import StreamingSource
from neurotrain.data.stream_pools import PooledTurns
from neurotrain.data.stream_reader import Preparation, StreamedBatch, StreamReader

log = logging.getLogger(__name__)


class StreamLoader(CountedLoader):
    """Batches of a streamed source, exactly resumable within an epoch.

    With ``W`` readers on each of ``world_size`` ranks (one for each worker, or one without workers), batch ``b`` of
    rank ``r`` is made by reader ``r * W + b % W`` of ``world_size * W``. Every rank has the same number of batches,
    whatever its share holds: a share that ends before the epoch does begins again, with a warning.

    State is what each reader had done behind its last batch that the training loop received; what was prefetched is
    read again. It holds the readers of all ranks, for which :meth:`state_dict` is to be called on all of them. A run
    goes on in mid-epoch with the same number of ranks and readers only; between epochs with any.

    Bad samples (see ``Quarantine``) are skipped: the next one of the stream takes the place. An error of reading is
    tried again where it is transient; a shard that stays out of reach ends the pass.

    Args:
        source: the stream.
        prepare: makes a sample of what was read.
        batch_size: samples per batch and rank.
        samples_per_epoch: over all ranks; what does not fill a batch of all ranks is left out.
        rank: of this process.
        world_size: number of processes.
        num_workers: processes that read and prepare; 0: in this process.
        prefetch: batches each worker prepares ahead.
        start_method: how workers are started.
        timeout: seconds to wait for a batch from workers before giving up; without workers nothing is waited for.
        pin_memory: copy batches to page-locked memory.
        quarantine: what to do with bad samples; None: the first one ends the pass.
        ledger: folder for the list of bad samples; None: it is kept in memory only.
        one_order: whether every epoch has the order of the first.

    Raises:
        ValueError: if a number is out of its range, a reader would have nothing to read, or the samples do not fill a
            batch.
    """

    def __init__(
        self,
        *,
        source: StreamingSource,
        prepare: Preparation,
        batch_size: int,
        samples_per_epoch: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        prefetch: int = 2,
        start_method: StartMethod = "auto",
        timeout: float = 300.0,
        pin_memory: bool = False,
        quarantine: Quarantine | None = None,
        ledger: Path | None = None,
        one_order: bool = False,
    ) -> None:
        check_at_least(0, num_workers=num_workers)
        check_at_least(1, prefetch=prefetch)
        if timeout <= 0:
            raise ValueError(f"timeout={timeout}: must be above 0")
        batches = PlannedBatches(
            plan=SequentialPlan(lengths=(samples_per_epoch,)), batch_size=batch_size, rank=rank, world_size=world_size
        )
        super().__init__(batches=batches, num_workers=num_workers, quarantine=quarantine, ledger=ledger)
        self._prefetch = prefetch
        self._start_method: StartMethod = start_method
        self._per_rank = max(1, num_workers)
        self._own = range(rank * self._per_rank, (rank + 1) * self._per_rank)
        self._fresh = opened(source, readers=world_size * self._per_rank)
        # A stream keeps in itself where it is: that of the caller stays at its beginning, for other loaders.
        self._source, self._prepare = copy.deepcopy(source), prepare
        self._timeout, self._pin_memory = timeout, pin_memory
        self._one_order = one_order
        self._states: dict[int, bytes | None] = {}  # of the readers of this rank, behind their last consumed batch
        self._pools: list[WorkerPool] = []
        self._running: Stream | None = None
        self._rounds: dict[int, int] = {}

    def __iter__(self) -> Iterator[Any]:
        """One pass over the rest of the epoch; nothing is read before its first batch is asked for."""
        return _Pass(self)

    def state_dict(self) -> dict[str, Any]:
        """Position, layout, readers and counts, of plain values; with several ranks, for all of them to call."""
        batches, consumed = self._batches, self.consumed
        going_on = 0 < consumed < len(self)
        readers = {str(reader): _unpickled(self._states.get(reader)) for reader in self._own} if going_on else {}
        own: dict[str, Any] = {
            "epoch": batches.epoch,
            "batch": consumed,
            "batches": len(self),
            "unreal_epochs": batches.unreal_epochs,
            **self._identity(),
            **self._layout(),
            "readers": readers,
            "records": {str(batches.rank): self._records.state_dict()},
        }
        return merge_states(_gathered(own, batches.world_size))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on behind the last consumed batch.

        Args:
            state_dict: of a loader of the same source and settings; in mid-epoch, of as many ranks and readers.

        Raises:
            ValueError: if it is not, or the states of some readers are missing.
        """
        for name, value in self._identity().items():
            if state_dict[name] != value:
                raise ValueError(
                    f"cannot resume: the checkpoint has {name}={state_dict[name]!r}, this loader has {name}={value!r}"
                )
        epoch, batch = int(state_dict["epoch"]), int(state_dict["batch"])
        complete = batch >= int(state_dict["batches"])
        self._states = self._loaded(state_dict) if batch and not complete else {}
        batch = len(self) if complete else batch
        self.close()
        self._position = (epoch, batch)
        self._batches.resume(epoch=epoch, start=batch, unreal_epochs=int(state_dict["unreal_epochs"]))
        self._ledger_is_cut = False
        self._records = Records()
        own = state_dict["records"].get(str(self._batches.rank))
        if own is not None:
            self._records.load_state_dict(own)

    def counters(self) -> dict[str, int]:
        """What readers count, and ``<source>/rounds``: times that a share of this rank began again in this epoch."""
        return {**super().counters(), f"{self._source.name}/rounds": sum(self._rounds.values())}

    def sources_told(self) -> dict[str, dict[str, Any]]:
        """The one source; its samples are counted as :meth:`CountedLoader.sources_told` says."""
        name = self._source.name
        return {name: self._told_of(name, 0, order="streamed", target=None)}

    def telemetry(self) -> dict[str, Any]:
        """What happened since the last call, as :meth:`neurotrain.data.PlannedLoader.telemetry` tells it.

        Returns:
            Among its ``counters``: ``<source>/rounds``, times that a share of this rank began again in this epoch.
        """
        pools = [pool for pool in self._pools if not pool.closed]
        told = self._records.told()
        told["rss_bytes"] = resident_bytes([os.getpid(), *(pid for pool in pools for pid in pool.pids)])
        told["copies"] = sum(pool.ring.copies for pool in pools)
        told["share"] = {self._source.name: self._records.shares[0]}
        told["counters"] = self.counters()
        return told

    def close(self) -> None:
        """End the workers, if any; the next pass starts new ones."""
        for pool in self._pools:
            pool.close()
        self._pools = []

    def _identity(self) -> dict[str, Any]:
        plan, size = self._batches.plan.fingerprint(), self._batches.batch_size
        return {"stream": dict(self._fresh), "plan": plan, "batch_size": size, "seed": self._prepare.seed}

    def _layout(self) -> dict[str, int]:
        return {"world_size": self._batches.world_size, "readers_per_rank": self._per_rank}

    def _loaded(self, state_dict: Mapping[str, Any]) -> dict[int, bytes | None]:
        there = {name: int(state_dict[name]) for name in self._layout()}
        if there != self._layout():
            raise ValueError(
                f"cannot resume in mid-epoch: the checkpoint was written with {_told(there)}, this run has "
                f"{_told(self._layout())}: a streamed source goes on with the same numbers only, or from the end of an "
                "epoch"
            )
        readers: Mapping[str, Any] = state_dict["readers"]
        missing = [reader for reader in self._own if str(reader) not in readers]
        if missing:
            raise ValueError(
                f"cannot resume: the state has the readers {list(readers)}, this rank has {list(self._own)}: put the "
                "states of all ranks together by merge_states"
            )
        for reader in self._own:
            if readers[str(reader)] is not None:
                self._source.load_state_dict(readers[str(reader)]["source"])
        return {reader: _pickled(readers[str(reader)]) for reader in self._own}

    def _begin(self) -> Stream:
        epoch, start = self._batches.epoch, self._batches.start
        # Workers that have all delivered and are at no place of this epoch can read on.
        usable = bool(self._pools) and self._running is None and not start and self._position[0] != epoch
        self._position = (epoch, start)
        self._rounds = {}
        if not start:
            self._states = dict.fromkeys(self._own)
        if self._ledger is not None and not self._ledger_is_cut:
            self._ledger.cut(epoch=epoch, step=start)
            self._ledger_is_cut = True
        self._records.begin(epoch, start)
        requests = self._batches.requests()
        if self._workers:
            if not usable:
                self._start_pools()
            stream: Stream = PooledTurns(pools=self._pools, requests=requests, timeout=self._timeout)
        else:
            stream = LocalStream(maker=self._maker(self._own[0]), requests=requests)
        self._batches.begun()
        self._running = stream
        return stream

    def _start_pools(self) -> None:
        self.close()
        self._records.workers_began()
        started = time.perf_counter()
        for reader in self._own:
            # A pool of one for each: the workers of one pool take whatever comes, those of a stream have their own.
            pool = WorkerPool(
                maker=self._maker(reader),
                workers=1,
                prefetch=self._prefetch,
                rows=self._batches.batch_size,
                start_method=self._start_method,
            )
            self._pools.append(pool)
        self.worker_seconds += time.perf_counter() - started

    def _maker(self, reader: int) -> BatchMaker:
        batches = StreamReader(
            source=self._source,
            fresh=self._fresh,
            start=self._states.get(reader),
            prepare=self._prepare,
            reader=reader,
            readers=self._batches.world_size * self._per_rank,
            samples=len(self) * self._batches.batch_size,
            quarantine=self._quarantine,
            one_order=self._one_order,
        )
        return BatchMaker(source=batches, make_key=SampleKey)

    def _commit(self, delivery: Delivery) -> Any:  # noqa: ANN401 - what the training loop gets
        """Count a batch as consumed."""
        made: StreamedBatch = delivery.batch
        epoch, consumed = self._position
        reader = self._own[delivery.request.batch % self._per_rank]
        if made.bad:
            self._skip(list(made.bad))
        self._position = (epoch, consumed + 1)
        self._states[reader] = made.state
        queued = sum(pool.queued for pool in self._pools)
        report = Report(retried=made.retried, worker=reader)
        self._records.count(delivery.request, report, waited=delivery.waited, queued=queued)
        if made.rounds and not any(self._rounds.values()):
            told = f"{self._source.name}: the share of reader {reader} ended within epoch {epoch} and began again"
            log.warning("%s: some of its samples come more than once in this epoch", told)
        self._rounds[reader] = made.rounds
        return made.batch

    def _skip(self, bad: list[BadSample]) -> None:
        records = self._records
        records.bad += bad
        records.bad_in_epoch += len(bad)
        records.statistics.skipped += len(bad)
        self._write_down(bad, len(self) * self._batches.batch_size)


class _Pass(Iterator[Any]):
    """Begins at its first batch, when the epoch is known, and counts what it hands out."""

    def __init__(self, loader: StreamLoader) -> None:
        self._loader = loader
        self._stream: Stream | None = None
        self._over: StopIteration | LoaderError | None = None

    def __next__(self) -> Any:  # noqa: ANN401 - a batch
        if self._over is not None:
            raise self._over
        loader = self._loader
        try:
            if self._stream is None:
                self._stream = loader._begin()  # pyright: ignore[reportPrivateUsage]
            elif self._stream is not loader._running:  # pyright: ignore[reportPrivateUsage]
                raise LoaderError("this pass cannot go on: another one over the loader was begun")
            batch = loader._commit(self._stream.next())  # pyright: ignore[reportPrivateUsage]
        except StopIteration as end:
            self._over, self._stream = StopIteration(*end.args), None
            loader._running = None  # pyright: ignore[reportPrivateUsage]
            raise
        except BaseException as error:
            # Going on would leave a batch out.
            if self._stream is loader._running:  # pyright: ignore[reportPrivateUsage]
                loader.close()
            self._over, self._stream = LoaderError(f"this pass was ended by {type(error).__name__}"), None
            raise
        if loader._pin_memory:  # pyright: ignore[reportPrivateUsage]
            return apply_to_collection(batch, Tensor, torch.Tensor.pin_memory)
        return batch


def opened(source: StreamingSource, *, readers: int) -> Mapping[str, object]:
    """Find the shards of a stream and make sure that every reader has something to read.

    Args:
        source: the stream.
        readers: over all ranks and workers.

    Returns:
        The state of the source before anything is read.

    Raises:
        ValueError: if a reader would have nothing; on every rank alike.
    """
    fresh = source.state_dict()
    source.stream(epoch=0, shard=readers - 1, shards=readers)
    source.load_state_dict(fresh)
    return fresh


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Put the states of several ranks' loaders, taken at the same step, into one that all can load.

    Example:
        >>> first, second = ({"batch": 3, "readers": {rank: {}}, "records": {rank: {}}} for rank in "01")
        >>> merge_states([first, second])
        {'batch': 3, 'readers': {'0': {}, '1': {}}, 'records': {'0': {}, '1': {}}}
    """
    several = ("readers", "records")
    return {**states[0], **{name: {key: of for state in states for key, of in state[name].items()} for name in several}}


def _gathered(own: dict[str, Any], world_size: int) -> list[dict[str, Any]]:
    """The states of all ranks, where they can talk to each other."""
    distributed = torch.distributed
    if world_size == 1 or not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    states: list[Any] = [None] * world_size
    distributed.all_gather_object(states, own)
    return states


def _pickled(state: Mapping[str, Any] | None) -> bytes | None:
    return None if state is None else pickle.dumps(dict(state))


def _unpickled(state: bytes | None) -> dict[str, Any] | None:
    return None if state is None else pickle.loads(state)  # noqa: S301 - pickled by our own reader


def _told(layout: Mapping[str, int]) -> str:
    return f"{layout['world_size']} rank(s) of {layout['readers_per_rank']} reader(s)"
