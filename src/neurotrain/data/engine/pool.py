"""Worker processes: how they start, get orders, answer, die and end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import sys
import time
from collections.abc import Mapping
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal, NamedTuple

from neurotrain.data.engine.assembly import BatchMaker
from neurotrain.data.engine.board import Board
from neurotrain.data.engine.errors import WorkerDiedError, exit_text
from neurotrain.data.engine.protocols import BatchRequest
from neurotrain.data.engine.ring import Ring
from neurotrain.data.engine.transport import Parcel
from neurotrain.data.engine.worker import ORDER, REPLY, Post, run_worker

StartMethod = Literal["auto", "fork", "forkserver", "spawn"]
"""How workers come to life; ``auto`` is ``fork`` on Linux, which shares what is already in RAM, else ``spawn``."""

GRACE = 1.0
"""Seconds that workers have to end by themselves before they are killed."""

SPARE = 2
"""Slots beyond those that are prefetched into: the consumer holds one batch while it asks for the next."""

_LOOK = 1000  # milliseconds between looks at the processes themselves, should nothing be heard of them
_REPLIES = 256 * REPLY.size


class Ready(NamedTuple):
    """A batch that a worker finished."""

    slot: int
    parcel: Parcel


class WorkerPool:
    """Processes that make batches in whatever order, each taking the next order when it is free.

    Orders and replies are small numbers in pipes, so nobody spins and nobody holds a lock that could die with him;
    everything else is in shared memory. Ends with the object, the interpreter or the process, and kills what hangs.

    Args:
        maker: makes batches in the workers.
        workers: how many.
        prefetch: batches that each prepares ahead.
        rows: most samples of a batch.
        start_method: how they are started.
    """

    def __init__(
        self, *, maker: BatchMaker, workers: int, prefetch: int, rows: int, start_method: StartMethod = "auto"
    ) -> None:
        context: Any = multiprocessing.get_context(_method(start_method))
        slots = workers * prefetch + SPARE
        self.ring = Ring(slots=slots, reserved=workers)
        self.serial = self._oldest = 0
        self._board = Board(slots=slots, workers=workers, rows=rows)
        self._requests: dict[int, BatchRequest] = {}
        self._ready: dict[int, Ready] = {}
        self._running = 0
        self._most = workers * prefetch
        orders_out, self._orders = context.Pipe(duplex=False)
        self._replies, replies_in = context.Pipe(duplex=False)
        self.processes: list[BaseProcess] = []
        foreign = (self._orders, self._replies) if context.get_start_method() == "fork" else ()
        self._finalizer = util.Finalize(
            self,
            _end,
            args=(self.processes, self._orders, self._replies, self.ring, self._board),
            exitpriority=100,
        )
        for number in range(workers):
            post = Post(
                number=number,
                maker=maker,
                slots=self.ring.memory,
                board=self._board,
                orders=orders_out,
                replies=replies_in,
                parent=os.getpid(),
                foreign=foreign,
            )
            process = context.Process(target=run_worker, args=(post,), name=f"loader-{number}", daemon=True)
            process.start()
            self.processes.append(process)
        # Of these ends the workers have copies; ours would keep the pipes from ending.
        orders_out.close()
        replies_in.close()
        self.pids = tuple(process.pid for process in self.processes)
        self._marks = [self._board.mark(number) for number in range(workers)]
        self._poller = select.poll()
        self._poller.register(self._replies.fileno(), select.POLLIN)
        self._sentinels = {int(process.sentinel): number for number, process in enumerate(self.processes)}
        for sentinel in self._sentinels:
            self._poller.register(sentinel, select.POLLIN)

    @property
    def queued(self) -> int:
        """Batches that are ready."""
        return len(self._ready)

    @property
    def oldest(self) -> int:
        """Serial number below which batches were forgotten."""
        return self._oldest

    @property
    def closed(self) -> bool:
        """Whether the workers were ended."""
        return not self._finalizer.still_active()

    def has_room(self) -> bool:
        """Whether one more batch may be prefetched."""
        return self._running + len(self._ready) < self._most

    def submit(self, request: BatchRequest) -> int | None:
        """Order a batch.

        Returns:
            Its serial number; None while there is no room or no slot.
        """
        if not self.has_room() or (slot := self.ring.take()) is None:
            return None
        serial, self.serial = self.serial, self.serial + 1
        self._requests[serial] = request
        self._board.write(slot, serial, request)
        self._running += 1
        try:
            os.write(self._orders.fileno(), ORDER.pack(slot))
        except BrokenPipeError:  # nobody is left to read it: their ends are about to be heard of
            self._listen(_LOOK)
            raise
        return serial

    def forget(self) -> None:
        """Nobody wants what was ordered until now; workers skip it."""
        self._oldest = self._board.oldest = self.serial
        for ready in self._ready.values():
            self.ring.give_back(ready.slot)
        self._ready.clear()
        self._requests.clear()

    def wait_for_room(self, *, deadline: float) -> bool:
        """Wait until one more batch may be ordered, as after :meth:`forget`, when workers still have old orders.

        Args:
            deadline: as ``time.monotonic`` counts.

        Returns:
            Whether there is room.

        Raises:
            WorkerDiedError: as soon as a worker ends.
        """
        while not self.has_room():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._listen(min(_LOOK, 1 + int(left * 1000)))
        return True

    def take(self, serial: int, *, deadline: float) -> Ready | None:
        """Wait for a batch.

        Args:
            serial: from :meth:`submit`.
            deadline: as ``time.monotonic`` counts.

        Returns:
            Where it is; None if it did not come until then. The caller gives the slot back.

        Raises:
            WorkerDiedError: as soon as a worker ends, whichever batch it held.
        """
        self._listen(0)
        while serial not in self._ready:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._listen(min(_LOOK, 1 + int(left * 1000)))
        del self._requests[serial]
        return self._ready.pop(serial)

    def at_work(self) -> Mapping[int, tuple[BatchRequest, int]]:
        """What each busy worker works on: a batch and the row."""
        held = {number: (mark[0], mark[1]) for number, mark in enumerate(self._marks)}
        return {
            number: (self._requests[serial], row) for number, (serial, row) in held.items() if serial in self._requests
        }

    def close(self) -> None:
        """End all workers; batches that are held stay readable."""
        self._finalizer()
        self._ready.clear()

    def _listen(self, milliseconds: int) -> None:
        events = self._poller.poll(milliseconds)
        for descriptor, _ in events:
            if descriptor in self._sentinels:
                self._mourn(self._sentinels[descriptor])
        if events:
            self._receive()
        elif milliseconds:
            for number, process in enumerate(self.processes):
                if process.exitcode is not None:
                    self._mourn(number)

    def _receive(self) -> None:
        told = os.read(self._replies.fileno(), _REPLIES)
        for serial, slot, *parcel in REPLY.iter_unpack(told):
            self._running -= 1
            if serial < self._oldest:
                self.ring.give_back(slot)
            else:
                self._ready[serial] = Ready(slot, Parcel(*parcel))

    def _mourn(self, number: int) -> None:
        process = self.processes[number]
        process.join(GRACE)
        held = self.at_work().get(number)
        said = f"worker {number} (pid {process.pid}) {exit_text(process.exitcode)}"
        if held is None:
            said += " while it held no batch"
        else:
            request, row = held
            said += (
                f" while it held batch {request.batch} of epoch {request.epoch}, at the sample of position "
                f"{request.position(row)} (source {request.source[row]}, index {request.index[row]})"
            )
        raise WorkerDiedError(said)


def _method(start_method: StartMethod) -> str:
    if start_method == "auto":
        return "fork" if sys.platform == "linux" else "spawn"
    return start_method


def _end(processes: list[BaseProcess], orders: Connection, replies: Connection, ring: Ring, board: Board) -> None:
    """End the workers of a pool; ``util.Finalize`` does not call it in a process that was forked from the owner."""
    board.oldest = sys.maxsize
    with contextlib.suppress(BrokenPipeError):  # all are dead already
        for _ in processes:
            os.write(orders.fileno(), ORDER.pack(-1))
    # A fork of somebody else's may hold this pipe open, so the word above is needed as well.
    orders.close()
    deadline = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
    for process in processes:
        process.join()
    replies.close()
    ring.close()
    board.close()
