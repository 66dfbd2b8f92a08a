"""The slots that batches travel in, and who has them: free, at a worker, or with the consumer."""

from __future__ import annotations

import weakref
from collections import deque
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.engine.memory import SharedBytes
from neurotrain.data.engine.transport import Parcel, unpack


class Ring:
    """A fixed number of slots, used again and again.

    A batch that is handed out keeps its slot until the last of its tensors is freed. Who keeps more batches than the
    ring can spare gets copies instead, so that the workers always have slots to work on.

    Args:
        slots: how many.
        reserved: slots that are never lent to the consumer.
    """

    def __init__(self, *, slots: int, reserved: int) -> None:
        self.memory = [SharedBytes() for _ in range(slots)]
        self._free = deque(range(slots))
        self._reserved = reserved
        # Weak references must outlive the batches; a deque's append is safe in whatever thread frees a tensor.
        self._leases: list[weakref.ref[Any] | None] = [None] * slots
        self._lent: set[int] = set()
        self._returned: deque[int] = deque()
        self.copies = 0

    def take(self) -> int | None:
        """A slot to write to; None while there is none."""
        self._collect()
        return self._free.popleft() if self._free else None

    def give_back(self, slot: int) -> None:
        """Nobody reads this slot any more."""
        self._free.append(slot)

    def open(self, slot: int, parcel: Parcel) -> Any:  # noqa: ANN401 - what was packed
        """Unpack what a worker wrote; the slot comes back by itself."""
        memory = self.memory[slot]
        memory.reserve(parcel.used)
        self._collect()
        if len(self._lent) >= len(self.memory) - self._reserved:
            self.copies += 1
            thing = unpack(parcel, np.frombuffer(memory.map, np.uint8, parcel.used).copy())
            self._free.append(slot)
            return thing
        lease: NDArray[np.uint8] = np.frombuffer(memory.map, np.uint8)
        self._lent.add(slot)
        self._leases[slot] = weakref.ref(lease, partial(_returned, self._returned, slot))
        return unpack(parcel, lease)

    def close(self) -> None:
        """Give the descriptors back; batches that are still held stay readable."""
        for memory in self.memory:
            memory.close()

    def _collect(self) -> None:
        while self._returned:
            slot = self._returned.popleft()
            self._lent.discard(slot)
            self._free.append(slot)


def _returned(queue: deque[int], slot: int, _: weakref.ref[Any]) -> None:
    queue.append(slot)
