"""How far the readers of a stream are, as plain values and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

Place = tuple[int, int]
"""Where a sample lies: position of its shard in the reader's order, number in the shard."""


@dataclass(slots=True)
class ReaderState:
    """How far one reader is. What it holds in its buffer counts as not yet read.

    Attributes:
        epoch: that it reads.
        shards: number of readers.
        position: of the shard that it reads next, in its order.
        number: of the sample that it reads next, in that shard.
        drawn: samples handed out.
        places: of the samples in the buffer.
        done: whether the epoch was read to its end.
    """

    epoch: int
    shards: int
    position: int = 0
    number: int = 0
    drawn: int = 0
    places: list[Place] = field(default_factory=list[Place])
    done: bool = False

    def values(self) -> dict[str, object]:
        """As what a checkpoint may hold."""
        return {
            "epoch": self.epoch,
            "shards": self.shards,
            "position": self.position,
            "number": self.number,
            "drawn": self.drawn,
            "places": [list(place) for place in self.places],
            "done": self.done,
        }

    @classmethod
    def of(cls, values: Mapping[str, object]) -> ReaderState:
        """Out of :meth:`values`."""
        known = cast("Mapping[str, int]", values)
        places = cast("list[list[int]]", values["places"])
        return cls(
            epoch=known["epoch"],
            shards=known["shards"],
            position=known["position"],
            number=known["number"],
            drawn=known["drawn"],
            places=[(position, number) for position, number in places],
            done=bool(known["done"]),
        )
