"""A worker process: takes orders from one pipe, writes batches into slots, says so in another pipe."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import select
import signal
import struct
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import torch

from neurotrain.data.engine.assembly import BatchMaker
from neurotrain.data.engine.board import Board
from neurotrain.data.engine.errors import failure_of
from neurotrain.data.engine.memory import SharedArena, SharedBytes
from neurotrain.data.engine.transport import pack

ORDER = struct.Struct("<q")
"""What goes to workers: a slot; its order stands on the board. Below zero: end."""

REPLY = struct.Struct("<qqqqq")
"""What comes back: serial number, slot, and the parcel. Both fit into what a pipe moves as one piece."""

_number: int | None = None


@dataclass(frozen=True, kw_only=True)
class Post:
    """What a worker is given.

    Attributes:
        number: of the worker.
        maker: makes batches.
        slots: where to.
        board: orders and marks.
        orders: end of the pipe to read from, shared with all other workers: who is free takes the next one.
        replies: end of the pipe to write to, shared likewise.
        parent: process to end with.
        foreign: descriptors of the main process that a fork copied.
    """

    number: int
    maker: BatchMaker
    slots: Sequence[SharedBytes]
    board: Board
    orders: Connection
    replies: Connection
    parent: int
    foreign: Sequence[Connection] = ()


def worker_number() -> int | None:
    """Number of the loader's worker that asks, from 0; None in any other process."""
    return _number


def run_worker(post: Post) -> None:
    """Work until the orders end; the body of a worker process."""
    global _number
    _number = post.number
    _settle(post)
    arenas = [SharedArena(memory) for memory in post.slots]
    orders, replies = post.orders.fileno(), post.replies.fileno()
    mark = post.board.mark(post.number)
    mark[0] = -1
    while len(told := os.read(orders, ORDER.size)) == ORDER.size:
        (slot,) = ORDER.unpack(told)
        if slot < 0:
            break
        reply = _work(post, slot, arenas[slot], mark)
        os.write(replies, reply)
        mark[0] = -1


def _work(post: Post, slot: int, arena: SharedArena, mark: memoryview) -> bytes:
    serial, request = post.board.read(slot)
    mark[1] = 0
    mark[0] = serial
    if serial < post.board.oldest:
        return REPLY.pack(serial, slot, 0, 0, 0)
    arena.begin()
    try:
        batch, report = post.maker.make(request, arena, mark)
        report.worker = post.number
        parcel = pack((batch, report), arena)
    except Exception as error:
        parcel = pack(failure_of(error, worker=post.number, pid=os.getpid(), row=mark[1]), arena)
    return REPLY.pack(serial, slot, *parcel)


def _settle(post: Post) -> None:
    # What a fork inherited is the parent's: collecting it here would copy its pages, and finalizers would act twice.
    gc.freeze()
    for connection in post.foreign:
        connection.close()
    torch.set_num_threads(1)
    # They reach every process of a terminal or a job; what they mean is decided by the main process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(post.parent,), name="end-with-parent", daemon=True).start()


def _end_with(parent: int) -> None:
    """Wait for the main process's end, in whatever way it comes, and end too, whatever the worker is doing."""
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        _wait_for_end(parent)
    os._exit(1)


def _wait_for_end(parent: int) -> None:
    if sys.platform == "linux":
        watched = os.pidfd_open(parent)
        poller = select.poll()
        poller.register(watched, select.POLLIN)
        poller.poll()
    else:
        process = multiprocessing.parent_process()
        assert process is not None
        wait([process.sentinel])
