"""One pass: batches in the order of their requests, made here or by workers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from neurotrain.data.engine.assembly import BatchMaker
from neurotrain.data.engine.errors import Failure, LoaderError, LoaderTimeoutError, exception_of
from neurotrain.data.engine.memory import FreshArena
from neurotrain.data.engine.pool import WorkerPool
from neurotrain.data.engine.protocols import BatchRequest
from neurotrain.data.engine.quarantine import Report

_FRESH = FreshArena()


class Delivery(NamedTuple):
    """A batch with its papers.

    Attributes:
        batch: for the training loop.
        request: what it was made of.
        report: what happened on the way.
        waited: seconds that the consumer waited for it.
    """

    batch: Any
    request: BatchRequest
    report: Report
    waited: float


class Stream(Protocol):
    """Batches in order."""

    def next(self) -> Delivery:
        """The next batch.

        Raises:
            StopIteration: after the last one.
        """
        ...


class LocalStream:
    """Batches made in this process, at the moment they are asked for.

    Args:
        maker: makes them.
        requests: in order.
    """

    def __init__(self, *, maker: BatchMaker, requests: Iterator[BatchRequest]) -> None:
        self._maker = maker
        self._requests = requests
        self._mark = [0, 0]

    def next(self) -> Delivery:
        """Make the next batch."""
        request = next(self._requests)
        started, mark = time.perf_counter(), self._mark
        try:
            batch, report = self._maker.make(request, _FRESH, mark)
        except Exception as error:
            error.add_note(f"at {described(request, mark[1])}")
            raise
        return Delivery(batch, request, report, time.perf_counter() - started)


class PooledStream:
    """Batches made by workers.

    Args:
        pool: of workers; what an earlier stream ordered is forgotten.
        requests: in order.
        timeout: seconds to wait for a batch.
    """

    def __init__(self, *, pool: WorkerPool, requests: Iterator[BatchRequest], timeout: float) -> None:
        pool.forget()
        self._pool = pool
        self._requests = requests
        self._timeout = timeout
        self._ordered: deque[tuple[int, BatchRequest]] = deque()
        self._pending: BatchRequest | None = next(requests, None)
        self._first = pool.serial

    def next(self) -> Delivery:
        """Wait for the next batch."""
        pool = self._pool
        if pool.closed or self._first < pool.oldest:
            raise LoaderError("this pass cannot go on: the loader was closed, or another pass over it was begun")
        started = time.perf_counter()
        deadline = time.monotonic() + self._timeout
        self._order()
        if not self._ordered:
            if self._pending is None:
                raise StopIteration
            if not pool.wait_for_room(deadline=deadline):
                raise LoaderTimeoutError(self._overdue(self._pending))
            self._order()
        serial, request = self._ordered[0]
        ready = pool.take(serial, deadline=deadline)
        waited = time.perf_counter() - started
        if ready is None:
            raise LoaderTimeoutError(self._overdue(request))
        self._ordered.popleft()
        made = pool.ring.open(ready.slot, ready.parcel)
        if isinstance(made, Failure):
            raise exception_of(made, sample=described(request, made.row))
        batch, report = made
        self._order()
        return Delivery(batch, request, report, waited)

    def _order(self) -> None:
        while self._pending is not None and (serial := self._pool.submit(self._pending)) is not None:
            self._ordered.append((serial, self._pending))
            self._pending = next(self._requests, None)

    def _overdue(self, request: BatchRequest) -> str:
        held = [f"worker {number} is at {described(its, row)}" for number, (its, row) in self._pool.at_work().items()]
        return (
            f"loading timed out after {self._timeout} seconds: batch {request.batch} of epoch {request.epoch} did not "
            f"come; {'; '.join(held) or 'no worker has a batch'}"
        )


def described(request: BatchRequest, row: int) -> str:
    """Names a sample by where it stands."""
    return (
        f"batch {request.batch} of epoch {request.epoch}, position {request.position(row)} "
        f"(source {request.source[row]}, index {request.index[row]})"
    )
