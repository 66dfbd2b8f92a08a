"""One reader of a stream: draws, decodes and stacks the batches of its own share, and says where it stands."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from neurotrain.data.decoders import Decoder
from neurotrain.data.engine import BadSample, BatchRequest, Quarantine, SampleName
from neurotrain.data.engine.assembly import StackedRows
from neurotrain.data.engine.memory import FreshArena
from neurotrain.data.engine.quarantine import is_mistake, is_transient, reason_of
from neurotrain.data.parts import SampleError, Step
from neurotrain.data.plan import mix_seed
from neurotrain.data.sources import RawSample, SampleFormatError, SourceError, StreamingSource

_ROUND = 1 << 32
"""What lies between the epochs that a stream is asked for when its share begins again within one epoch of training."""

_ARENA = FreshArena()


@dataclass(slots=True)
class Place:
    """How far a reader is.

    Attributes:
        epoch: that it reads.
        round: times that its share began again in it.
        drawn: samples drawn in it, bad ones included.
        bad: bad ones among them.
        found: whether the present round gave any sample.
    """

    epoch: int
    round: int = 0
    drawn: int = 0
    bad: int = 0
    found: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedBatch:
    """What a reader delivers.

    Attributes:
        batch: for the training loop; None where the reader gave up, for too many samples were bad.
        state: pickled state of the reader behind this batch.
        bad: samples that were skipped on the way.
        retried: reads that were tried again.
        rounds: times that the reader's share began again in this epoch.
    """

    batch: Any
    state: bytes
    bad: tuple[BadSample, ...]
    retried: int
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """From raw fields to a sample of a batch.

    Attributes:
        decoder: makes a typed sample.
        steps: applied to it, one after the other.
        seed: of every random number.
    """

    decoder: Decoder[Any]
    steps: tuple[Step[Any], ...] = ()
    seed: int = 0

    def __call__(self, raw: RawSample, *, epoch: int, position: int) -> Mapping[str, Any]:
        """One sample; its random numbers depend on seed, epoch and position alone."""
        generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch, position))
        sample = self.decoder(raw, generator)
        for step in self.steps:
            sample = step(sample, generator)
        return sample


class StreamReader:
    """Makes whole batches of one reader's share of a stream, in the order that the stream has.

    A sample that cannot be read or decoded is skipped: the next one of the stream takes its place. What ends before the
    epoch does begins again, in the order of another epoch of the source.

    Args:
        source: the stream, of this reader alone.
        fresh: state of the source before anything was read.
        start: pickled state to go on from; used for its own epoch only. None: the beginning.
        prepare: makes a sample of what was read.
        reader: number of this reader, from 0.
        readers: how many there are, over all ranks.
        samples: of the rank in an epoch, which the share of bad ones is of.
        quarantine: what to do with bad samples; None: the first one is an error.
        one_order: whether every epoch has the order of the first.
    """

    def __init__(
        self,
        *,
        source: StreamingSource,
        fresh: Mapping[str, object],
        start: bytes | None,
        prepare: Preparation,
        reader: int,
        readers: int,
        samples: int,
        quarantine: Quarantine | None,
        one_order: bool,
    ) -> None:
        self._source = source
        self._fresh, self._start = fresh, start
        self._prepare = prepare
        self._reader, self._readers = reader, readers
        self._policy = quarantine
        self._most_bad = None if quarantine is None else quarantine.max_bad_share * samples
        self._one_order = one_order
        self._place = Place(epoch=-1)
        self._samples: Iterator[RawSample] = iter(())
        self._specs: dict[str, Any] = {}
        self._retried = 0

    def load_batch(self, request: BatchRequest) -> StreamedBatch:
        """Make the reader's next batch.

        Args:
            request: names epoch, batch and positions.

        Raises:
            SampleError: if a sample is bad and nobody said what to do with it.
            SourceError: if the share has no sample at all.
        """
        if request.epoch != self._place.epoch:
            self._begin(request.epoch)
        self._retried = 0
        rows = StackedRows(len(request), arena=_ARENA, ragged=(), specs=self._specs)
        bad: list[BadSample] = []
        complete = all(self._fill(rows, row, request, bad) for row in range(len(request)))
        batch = None
        if complete:
            batch, self._specs = rows.finish(), rows.specs
        return StreamedBatch(
            batch=batch,
            state=pickle.dumps({**asdict(self._place), "source": dict(self._source.state_dict())}),
            bad=tuple(bad),
            retried=self._retried,
            rounds=self._place.round,
        )

    def _begin(self, epoch: int) -> None:
        self._place, state = Place(epoch=epoch), self._fresh
        if self._start is not None:
            # Pickled by this class, or by the loader out of a checkpoint's plain values.
            place: dict[str, Any] = pickle.loads(self._start)  # noqa: S301
            self._start = None
            if place["epoch"] == epoch:
                state = place.pop("source")
                self._place = Place(**place)
        self._source.load_state_dict(state)
        self._open()

    def _open(self) -> None:
        place = self._place
        epoch = (0 if self._one_order else place.epoch) + place.round * _ROUND
        self._samples = self._source.stream(epoch=epoch, shard=self._reader, shards=self._readers)

    def _fill(self, rows: StackedRows, row: int, request: BatchRequest, bad: list[BadSample]) -> bool:
        """Put the next good sample into a row; False where too many are bad."""
        skipped: list[BadSample] = []
        filled: str | None = None
        while filled is None:
            raw: RawSample | None = None
            try:
                raw = self._draw()
                rows.put(row, self._prepare(raw, epoch=request.epoch, position=request.position(row)))
                filled = raw.id
            except Exception as error:
                skipped.append(self._bad(raw, request, error))
                assert self._most_bad is not None
                self._place.bad += 1
                if self._place.bad > self._most_bad:
                    break
        bad += [replace(one, replacement=filled or "") for one in skipped]
        return filled is not None

    def _draw(self) -> RawSample:
        tries = 0
        while True:
            try:
                return self._next()
            except SampleFormatError:
                raise  # the stream is behind it already
            except Exception as error:
                if self._policy is None or tries >= self._policy.retries or not is_transient(error):
                    raise
                time.sleep(self._policy.backoff * 2**tries)
                tries += 1
                self._retried += 1
                self._reopen()

    def _next(self) -> RawSample:
        place = self._place
        while (raw := next(self._samples, None)) is None:
            if not place.found:
                raise SourceError(
                    self._source.name,
                    [f"reader {self._reader} of {self._readers} (workers x ranks) gets no sample: use fewer workers"],
                )
            place.round, place.found = place.round + 1, False
            self._open()
        place.drawn, place.found = place.drawn + 1, True
        return raw

    def _reopen(self) -> None:
        """Go on behind an error; a generator that raised is at its end."""
        self._source.load_state_dict(self._source.state_dict())
        self._open()

    def _bad(self, raw: RawSample | None, request: BatchRequest, error: Exception) -> BadSample:
        """Note a bad sample, or raise what no sample is to blame for."""
        if raw is None:
            if self._policy is None or not isinstance(error, SampleFormatError):
                raise error
            self._reopen()
            # What could not be read has no name yet; its error says where it lies.
            self._place.drawn, self._place.found = self._place.drawn + 1, True
            name = SampleName(id="", uri="", source=self._source.name)
        else:
            name = SampleName(id=raw.id, uri=raw.uri, source=raw.source)
            if self._policy is None or is_mistake(error):
                raise SampleError(f"sample {name.id!r} of {name.source} ({name.uri}): {error}") from error
        return BadSample(
            **name._asdict(),
            reason=reason_of(error),
            epoch=request.epoch,
            # Draws of all readers, counted through: several may be bad in one row.
            position=(self._place.drawn - 1) * self._readers + self._reader,
            step=request.batch,
            replacement="",
        )
