"""What the ranks of a run know of each other beside their collectives, which tell nothing once one of them hangs."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store  # pyright: ignore[reportPrivateUsage]


@dataclass
class Peer:
    """Another rank, as it was last heard of.

    Attributes:
        rank: its number.
        host: its machine.
        pid: its process.
        place: what it did; empty before it said so.
        heard: when, as ``time.monotonic`` counts here.
        failure: error that ended it; None while there is none.
        count: of the times that it wrote on the board.
    """

    rank: int
    host: str
    pid: int
    place: str = ""
    heard: float = field(default_factory=time.monotonic)
    failure: str | None = None
    count: int = -1

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine."""
        return self.host == socket.gethostname()

    def told(self) -> str:
        """One line for people."""
        where = f"rank {self.rank} (pid {self.pid} on {self.host})"
        if self.failure is not None:
            return f"{where} failed: {self.failure}"
        ago = time.monotonic() - self.heard
        return f"{where} {self.place or 'has said nothing yet'}, heard of {ago:.0f} s ago{self._state()}"

    def _state(self) -> str:
        """What the system says of a process of this machine."""
        if not self.is_here:
            return ""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][:1]
        except OSError:
            return "; the process is gone"
        return {"T": "; the process is stopped (SIGSTOP)", "Z": "; the process has ended"}.get(state, "")


class RankBoard:
    """A board, kept by the process group's store, on which each rank writes what it does and reads what the others do.

    A thread of its own talks to it: a rank that is stopped answers nobody, and who asks it waits.

    Args:
        name: that no other board of the process group has; all ranks make their boards together.
        place: says what this rank does.
        period: seconds between looks.
    """

    def __init__(self, name: str, *, place: Callable[[], str], period: float) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.lost: float | None = None  # since when nobody keeps the board any more
        self._place, self._period = place, period
        self._failure: str | None = None
        self._ended, self._told = threading.Event(), threading.Event()
        self._store = _board_of(name)
        members: list[tuple[str, int]] = [("", 0)] * self.world_size
        dist.all_gather_object(members, (socket.gethostname(), os.getpid()))
        self.peers = [Peer(rank, *member) for rank, member in enumerate(members) if rank != self.rank]
        self._thread = threading.Thread(target=self._talk, name="rank-board", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> list[Peer]:
        """Ranks that an error ended."""
        return [peer for peer in self.peers if peer.failure is not None]

    def tell_failure(self, failure: str, *, patience: float = 3.0) -> None:
        """Let the others know that this rank ends by an error."""
        self._told.clear()
        self._failure = failure
        self._told.wait(patience)

    def end(self) -> None:
        """Stop talking."""
        self._ended.set()
        self._thread.join(timeout=2 * self._period)

    def _talk(self) -> None:
        count = 0
        try:
            while not self._ended.wait(self._period):
                failure, count = self._failure, count + 1
                self._store.set(f"rank {self.rank}", json.dumps([self._place(), failure, count]))
                if failure is not None:
                    self._told.set()
                for peer in self.peers:
                    self._read(peer)
        except RuntimeError:  # the process that keeps the board has ended
            self.lost = time.monotonic()

    def _read(self, peer: Peer) -> None:
        key = f"rank {peer.rank}"
        if not self._store.check([key]):
            return
        place, failure, count = json.loads(self._store.get(key))
        if count != peer.count:
            peer.place, peer.failure, peer.count, peer.heard = place, failure, count, time.monotonic()


def _board_of(name: str) -> PrefixStore:
    """The process group's own store, over a connection of its own: the group's waits for what it asks."""
    return PrefixStore(name, _get_default_store().clone())
