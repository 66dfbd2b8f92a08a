"""Batches of several workers that each make their own, in turn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from neurotrain.data.engine import BatchRequest, Delivery, LoaderError, LoaderTimeoutError, WorkerPool
from neurotrain.data.engine.errors import Failure, exception_of


class PooledTurns:
    """Batch ``b`` comes from pool ``b % len(pools)``; all of them work ahead from the first batch on.

    Args:
        pools: of one worker each; nothing is under way in them.
        requests: in order.
        timeout: seconds to wait for a batch.
    """

    def __init__(self, *, pools: Sequence[WorkerPool], requests: Iterator[BatchRequest], timeout: float) -> None:
        for pool in pools:
            pool.forget()
        self._pools = tuple(pools)
        self._requests = requests
        self._timeout = timeout
        self._ordered: deque[tuple[int, BatchRequest]] = deque()
        self._pending: BatchRequest | None = next(requests, None)

    def next(self) -> Delivery:
        """Wait for the next batch.

        Raises:
            StopIteration: after the last one.
            WorkerDiedError: if its worker ended.
            LoaderTimeoutError: if it did not come in time.
        """
        if any(pool.closed for pool in self._pools):
            raise LoaderError("this pass cannot go on: the loader was closed")
        started, deadline = time.perf_counter(), time.monotonic() + self._timeout
        self._order()
        if not self._ordered:
            raise StopIteration
        serial, request = self._ordered.popleft()
        number = request.batch % len(self._pools)
        pool = self._pools[number]
        ready = pool.take(serial, deadline=deadline)
        waited = time.perf_counter() - started
        told = f"batch {request.batch} of epoch {request.epoch}"
        if ready is None:
            worker = f"worker {number} (pid {pool.pids[0]})"
            raise LoaderTimeoutError(
                f"loading timed out after {self._timeout} seconds: {told} did not come of {worker}"
            )
        made = pool.ring.open(ready.slot, ready.parcel)
        if isinstance(made, Failure):
            raise exception_of(replace(made, worker=number), sample=told)
        batch, report = made
        self._order()
        return Delivery(batch, request, report, waited)

    def _order(self) -> None:
        while (request := self._pending) is not None:
            serial = self._pools[request.batch % len(self._pools)].submit(request)
            if serial is None:
                break
            self._ordered.append((serial, request))
            self._pending = next(self._requests, None)
