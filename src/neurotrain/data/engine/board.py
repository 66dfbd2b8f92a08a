"""What the main process and its workers write for each other to see: orders, and who is at what."""

from __future__ import annotations

import numpy as np

from neurotrain.data.engine.memory import SharedBytes
from neurotrain.data.engine.protocols import BatchRequest

_ORDER = 6  # numbers of an order: serial, epoch, batch, first, stride, rows
_NONE = np.empty(0, np.int64)


class Board:
    """A few numbers in shared memory; no locks, for each has one writer at a time.

    Args:
        slots: of the ring.
        workers: processes.
        rows: most samples of a batch.
    """

    def __init__(self, *, slots: int, workers: int, rows: int) -> None:
        self._sizes = (slots, workers, rows)
        self._memory = SharedBytes(size=8 * (1 + 2 * workers + slots * _ORDER + slots * rows) + 4 * slots * rows)
        self._lay_out()

    def write(self, slot: int, serial: int, request: BatchRequest) -> None:
        """Leave an order for whoever takes the slot."""
        rows = len(request)
        self._orders[slot] = (serial, request.epoch, request.batch, request.first, request.stride, rows)
        self._index[slot, :rows] = request.index
        self._source[slot, :rows] = request.source

    def read(self, slot: int) -> tuple[int, BatchRequest]:
        """The order of a slot: its serial number and what to make."""
        serial, epoch, batch, first, stride, rows = self._orders[slot].tolist()
        index, source = self._index[slot, :rows], self._source[slot, :rows]
        return serial, BatchRequest(epoch, batch, first, stride, index, source, _NONE, 0)

    @property
    def oldest(self) -> int:
        """Serial number below which nobody wants a batch any more."""
        return int(self._oldest[0])

    @oldest.setter
    def oldest(self, serial: int) -> None:
        self._oldest[0] = serial

    def mark(self, worker: int) -> memoryview:
        """Two numbers of one worker: the serial number it works on (-1: none) and the row."""
        return memoryview(self._marks[worker]).cast("B").cast("q")

    def close(self) -> None:
        """Give the descriptor back."""
        self._memory.close()

    def __getstate__(self) -> tuple[tuple[int, int, int], SharedBytes]:
        """For a process that is being started."""
        return self._sizes, self._memory

    def __setstate__(self, state: tuple[tuple[int, int, int], SharedBytes]) -> None:
        """In that process."""
        self._sizes, self._memory = state
        self._lay_out()

    def _lay_out(self) -> None:
        slots, workers, rows = self._sizes
        numbers = np.frombuffer(self._memory.map, np.int64, 1 + 2 * workers + slots * _ORDER + slots * rows)
        self._oldest, rest = numbers[:1], numbers[1:]
        self._marks, rest = rest[: 2 * workers].reshape(workers, 2), rest[2 * workers :]
        self._orders, rest = rest[: slots * _ORDER].reshape(slots, _ORDER), rest[slots * _ORDER :]
        self._index = rest.reshape(slots, rows)
        sources = np.frombuffer(self._memory.map, np.int32, slots * rows, offset=numbers.nbytes)
        self._source = sources.reshape(slots, rows)
