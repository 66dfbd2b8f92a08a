"""What all training loaders have in common: an epoch and a place in it, counts that add up, a list of bad samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from neurotrain.data.batches import PlannedBatches
from neurotrain.data.engine import BadSample, Ledger, Quarantine, Records, Statistics, TooManyBadSamplesError


class CountedLoader(Iterable[Any], ABC):
    """A loader that counts a batch when the training loop receives it.

    Args:
        batches: which samples make up which batch of this rank.
        num_workers: processes that prepare batches.
        quarantine: what to do with samples that cannot be loaded; None: the first one ends the pass.
        ledger: folder for the list of bad samples; None: it is kept in memory only.

    Raises:
        ValueError: if there is a ledger without quarantine.
    """

    worker_seconds = 0.0
    """Seconds that starting workers has taken so far."""

    def __init__(
        self, *, batches: PlannedBatches, num_workers: int, quarantine: Quarantine | None, ledger: Path | None
    ) -> None:
        if ledger is not None and quarantine is None:
            raise ValueError(f"ledger={ledger} has no effect without quarantine: the first bad sample ends the pass")
        self._batches, self._workers, self._quarantine = batches, num_workers, quarantine
        rank, world_size = batches.rank, batches.world_size
        self._ledger = None if ledger is None else Ledger(folder=ledger, rank=rank, world_size=world_size)
        self._ledger_is_cut = False
        self._position = (0, 0)
        self._records = Records()

    @property
    def batch_sampler(self) -> PlannedBatches:
        """Where Lightning tells the epoch."""
        return self._batches

    @property
    def num_workers(self) -> int:
        """Processes that prepare batches."""
        return self._workers

    @property
    def consumed(self) -> int:
        """Batches of the present epoch that were handed out, those before a resume included."""
        epoch, consumed = self._position
        return consumed if epoch == self._batches.epoch else 0

    @property
    def exempt(self) -> tuple[str, ...]:
        """Names of the sources that are drawn by the losses of their samples; their order is no pure function."""
        return ()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass; Lightning does so by itself."""
        self._batches.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches of the whole epoch on this rank, wherever the next pass begins."""
        return len(self._batches)

    def statistics(self) -> dict[str, int]:
        """Counts of this rank since the start of training: ``planned = read + replaced + skipped``.

        They are part of the state. A planned sample that is bad is replaced; of a stream it is skipped, and the next
        one takes its place. After a resume the other ranks begin anew, unless their states were saved, as streams' are.

        Returns:
            ``read, replaced, skipped, retried, batches, planned``.
        """
        return self._records.statistics.as_dict()

    def count_on(self, statistics: Mapping[str, int]) -> None:
        """Begin with what an earlier loader of the same training has counted; the first rank does, as in resuming.

        Args:
            statistics: of :meth:`statistics`.
        """
        if self._batches.rank == 0:
            self._records.statistics = Statistics.of(statistics)

    def bad_samples(self) -> tuple[BadSample, ...]:
        """What this process found to be bad, in the order in which it was met."""
        return tuple(self._records.bad)

    def counters(self) -> dict[str, int]:
        """What the source counted, such as hits of a cache, workers' counts included."""
        return self._records.counters

    @abstractmethod
    def sources_told(self) -> dict[str, dict[str, Any]]:
        """What became of each source in this epoch, of plain values.

        Returns:
            By name: ``order`` (``exact``, ``by losses`` or ``streamed``: the latter two are exempt from an order that
            depends on the seed alone), ``samples`` handed out to all ranks, their ``share`` and its ``target``, and
            ``replaced`` and ``skipped`` bad samples of this rank in all epochs.
        """

    @abstractmethod
    def telemetry(self) -> dict[str, Any]:
        """What happened since the last call, of plain values."""

    @abstractmethod
    def close(self) -> None:
        """End the workers, if any; the next pass starts new ones."""

    @property
    def _iterator(self) -> None:
        """Lightning's way of saying that it is done with a loader is to set this to None."""
        return None

    @_iterator.setter
    def _iterator(self, _: None) -> None:
        self.close()

    def _told_of(self, name: str, number: int, *, order: str, target: float | None) -> dict[str, Any]:
        """The row of one source."""
        drawn, bad = self._records.drawn, Counter(one.source for one in self._records.bad)[name]
        samples, total = (drawn[number] if number < len(drawn) else 0), sum(drawn)
        streamed = order == "streamed"
        return {
            "order": order,
            "samples": samples,
            "share": samples / total if total else 0.0,
            "target": target,
            "replaced": 0 if streamed else bad,
            "skipped": bad if streamed else 0,
        }

    def _write_down(self, bad: list[BadSample], samples: int) -> None:
        """Put bad samples into the ledger, and end the run where they are too many of this epoch's samples."""
        assert self._quarantine is not None
        if self._ledger is not None:
            self._ledger.append(bad)
        records, allowed = self._records, self._quarantine.max_bad_share
        if records.bad_in_epoch > allowed * samples:
            raise TooManyBadSamplesError(records.bad, found=records.bad_in_epoch, samples=samples, allowed=allowed)
