"""Streams over shards that resume exactly, shuffle buffer included."""

from __future__ import annotations

import hashlib
import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Literal, cast

from neurotrain.data.sources.base import RawSample, SampleFormatError, StreamingSource
from neurotrain.data.sources.stream_state import Place, ReaderState
from neurotrain.data.sources.tar_members import ShardError

Sharing = Literal["shards", "samples"]
"""Every reader takes whole shards; or every reader reads all shards and takes each n-th sample."""


class ShardedStream(StreamingSource):
    """Shards in a seeded order, mixed by a shuffle buffer.

    The state of a reader is the place of the next sample, the number of draws, and the places of the samples in the
    buffer: not their bytes. On resume those are read again, for which the shards that they come from are read from
    their first wanted sample on.

    Samples of one shard come in their order; the order of shards is drawn anew for each epoch, and every draw from the
    buffer is a hash of (seed, epoch, reader, number of the draw).

    A sample that is not what it should be raises :class:`~neurotrain.data.sources.base.SampleFormatError`; calling
    :meth:`stream` again with the same arguments goes on behind it, or behind its shard where that is of no further use.

    Args:
        name: of the source.
        seed: of the order of shards and of the buffer.
        shuffle_shards: draw the order of shards for each epoch; without it they come by key.
        shuffle_buffer: samples to draw from; 1 keeps the order.
        sharing: how readers share: ``"shards"`` needs at least one shard for each reader (worker x rank); ``"samples"``
            needs none, and reads everything once for each reader.

    Raises:
        ValueError: if a setting is out of range.
    """

    def __init__(
        self,
        *,
        name: str,
        seed: int = 0,
        shuffle_shards: bool = True,
        shuffle_buffer: int = 1000,
        sharing: Sharing = "shards",
    ) -> None:
        super().__init__(name=name)
        if shuffle_buffer < 1:
            raise ValueError(f"shuffle_buffer={shuffle_buffer}: at least 1, which keeps the order")
        if sharing not in ("shards", "samples"):
            raise ValueError(f"sharing={sharing!r}: 'shards' or 'samples'")
        self._seed, self._shuffle_shards = seed, shuffle_shards
        self._shuffle_buffer, self._sharing = shuffle_buffer, sharing
        self._running: dict[int, ReaderState] = {}
        self._resumed: dict[int, ReaderState] = {}

    @abstractmethod
    def shard_count(self) -> int:
        """Number of shards; finds them on first use."""

    @abstractmethod
    def _read_shard(self, shard: int, first: int) -> Iterator[RawSample]:
        """Samples of a shard, from its ``first``-th on.

        Raises:
            ShardError: if nothing further can be read of it.
            SampleFormatError: if the next sample is not what it should be.
        """

    @abstractmethod
    def _identity(self) -> str:
        """Of the shards: a state is of no use for others."""

    def stream(self, *, epoch: int, shard: int, shards: int) -> Iterator[RawSample]:
        """Yield the samples of reader ``shard`` of ``shards`` in an epoch: from the start, or from a loaded state.

        A state that was loaded is used once, and void in another epoch.

        Raises:
            ValueError: if there are fewer shards than readers, or a state is of another number of readers.
            StorageError: if a shard cannot be read.
            SampleFormatError: if a sample is not what it should be.
        """
        if not 0 <= shard < shards:
            raise ValueError(f"shard={shard}: shards={shards} has 0 to {shards - 1}")
        count = self.shard_count()
        if self._sharing == "shards" and count < shards:
            raise ValueError(
                f"{self.name}: {count} shards for {shards} readers (workers x ranks), {shards - count} would have "
                "nothing: use fewer workers, more shards, or sharing='samples', where every reader "
                "reads all and keeps its share"
            )
        part = self._resumed.pop(shard, None)
        if part is not None and part.epoch == epoch and part.shards != shards:
            raise ValueError(f"{self.name}: the state is of {part.shards} readers, a stream cannot go on with {shards}")
        if part is None or part.epoch != epoch:
            part = ReaderState(epoch=epoch, shards=shards)
        self._running[shard] = part
        return self._samples(part, shard)

    def state_dict(self) -> dict[str, object]:
        """Where every reader of this instance is: behind the last sample that it yielded."""
        parts = {**self._resumed, **self._running}
        return {
            "identity": self._settings(),
            "parts": {str(shard): part.values() for shard, part in sorted(parts.items())},
        }

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Go on from there with the next :meth:`stream` of each reader.

        Args:
            state_dict: from :meth:`state_dict`; the ``parts`` of several instances may be put together.

        Raises:
            ValueError: if it is of other shards or settings.
        """
        if state_dict["identity"] != self._settings():
            raise ValueError(
                f"{self.name}: the state is of another stream ({state_dict['identity']}), this is {self._settings()}"
            )
        parts = cast("Mapping[str, Mapping[str, object]]", state_dict["parts"])
        self._running = {}
        self._resumed = {int(shard): ReaderState.of(values) for shard, values in parts.items()}

    def _settings(self) -> str:
        order = "drawn" if self._shuffle_shards else "sorted"
        return f"{self._identity()} seed={self._seed} {order} buffer={self._shuffle_buffer} sharing={self._sharing}"

    def _samples(self, part: ReaderState, reader: int) -> Iterator[RawSample]:
        if part.done:
            return
        order = self._order(part.epoch)
        mine = order[reader :: part.shards] if self._sharing == "shards" else order
        try:
            buffer = self._buffered(part, mine)
            incoming = self._incoming(part, mine, reader)
            while True:
                while len(buffer) < self._shuffle_buffer and (found := next(incoming, None)) is not None:
                    buffer.append(found[1])
                    part.places.append(found[0])
                if not buffer:
                    break
                slot = self._draw(part, reader) % len(buffer)
                part.drawn += 1
                # The last one takes the place: nothing behind it moves.
                buffer[slot], buffer[-1] = buffer[-1], buffer[slot]
                part.places[slot], part.places[-1] = part.places[-1], part.places[slot]
                part.places.pop()
                yield buffer.pop()
        except SampleFormatError:
            self._resumed[reader] = part
            raise
        part.done = True

    def _incoming(self, part: ReaderState, mine: list[int], reader: int) -> Iterator[tuple[Place, RawSample]]:
        """What comes next from the shards; the part is moved on before anything is handed out or raised."""
        while part.position < len(mine):
            samples = self._read_shard(mine[part.position], part.number)
            while True:
                place = (part.position, part.number)
                try:
                    sample = next(samples, None)
                except ShardError:
                    part.position, part.number = part.position + 1, 0
                    raise
                except SampleFormatError:
                    part.number += 1
                    raise
                if sample is None:
                    break
                part.number += 1
                # Shards of few samples would always feed the first readers: the shard's position shifts the share.
                if self._sharing == "shards" or sum(place) % part.shards == reader:
                    yield place, sample
            part.position, part.number = part.position + 1, 0

    def _buffered(self, part: ReaderState, mine: list[int]) -> list[RawSample]:
        """Read again what a resumed buffer held."""
        wanted: dict[int, list[int]] = {}
        for position, number in part.places:
            wanted.setdefault(position, []).append(number)
        found = {
            (position, number): sample
            for position, numbers in wanted.items()
            for number, sample in self._picked(mine[position], sorted(numbers))
        }
        return [found[place] for place in part.places]

    def _picked(self, shard: int, numbers: list[int]) -> Iterator[tuple[int, RawSample]]:
        """Some samples of a shard in one pass; broken ones in between were told of when they were met."""
        number, waiting = numbers[0], set(numbers)
        samples = self._read_shard(shard, number)
        while waiting:
            try:
                sample = next(samples, None)
            except ShardError:
                raise
            except SampleFormatError:
                samples = self._read_shard(shard, number + 1)
            else:
                if sample is None:
                    raise ShardError(f"{self.name}: shard {shard} has no sample {number} any more")
                if number in waiting:
                    waiting.remove(number)
                    yield number, sample
            number += 1

    def _order(self, epoch: int) -> list[int]:
        order = list(range(self.shard_count()))
        if self._shuffle_shards:
            random.Random(self._hash("shards", epoch)).shuffle(order)  # noqa: S311 - an order, no secret
        return order

    def _draw(self, part: ReaderState, reader: int) -> int:
        return self._hash("buffer", part.epoch, reader, part.drawn)

    def _hash(self, *numbers: object) -> int:
        text = repr((self._seed, *numbers)).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
