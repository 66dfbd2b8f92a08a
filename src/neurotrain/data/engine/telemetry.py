"""What a loader counts: few additions a batch, read when somebody asks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.engine.protocols import BatchRequest
from neurotrain.data.engine.quarantine import BadSample, Report

_NO_SHARES = np.zeros((0, 1), np.int64)


@dataclass(slots=True, kw_only=True)
class Statistics:
    """Totals of one loader and rank that add up: ``planned = read + replaced + skipped``.

    Attributes:
        read: samples handed out as planned.
        replaced: samples handed out in the place of bad ones.
        skipped: planned samples left out because their global batch would not have been full.
        retried: reads that were tried again.
        batches: handed out.
    """

    read: int = 0
    replaced: int = 0
    skipped: int = 0
    retried: int = 0
    batches: int = 0

    @property
    def planned(self) -> int:
        """Positions of the plan that were dealt with."""
        return self.read + self.replaced + self.skipped

    def as_dict(self) -> dict[str, int]:
        """Plain values, ``planned`` included."""
        names = ("read", "replaced", "skipped", "retried", "batches", "planned")
        return {name: int(getattr(self, name)) for name in names}

    @classmethod
    def of(cls, values: Mapping[str, int]) -> Statistics:
        """From :meth:`as_dict`."""
        names = ("read", "replaced", "skipped", "retried", "batches")
        return cls(**{name: int(values[name]) for name in names})


class Records:
    """Everything that one loader counts. A batch is noted when it is handed out, and summed up when somebody asks."""

    def __init__(self) -> None:
        self._statistics = Statistics()
        self._noted = _NO_SHARES  # of the stretch of batches that is summed up next, from its row and up to another
        self._from, self._until, self._samples = 0, 0, 0
        self.bad: list[BadSample] = []
        self.bad_in_epoch = 0
        self._epoch = 0
        self._shares = np.zeros(1, np.int64)
        self._counters: dict[int, dict[str, int]] = {}
        self._counted_before: dict[str, int] = {}
        self._batches, self._waited, self._queued = 0, 0.0, 0
        self._since = time.perf_counter()

    @property
    def statistics(self) -> Statistics:
        """Totals, with all batches so far."""
        self._sum_up()
        return self._statistics

    @statistics.setter
    def statistics(self, statistics: Statistics) -> None:
        self._sum_up()
        self._statistics = statistics

    @property
    def drawn(self) -> list[int]:
        """Samples of each source that were handed out to all ranks in this epoch."""
        self._sum_up()
        return self._shares.tolist()

    @property
    def shares(self) -> list[float]:
        """Share of each source in what was handed out to all ranks in this epoch."""
        drawn = self.drawn
        return [samples / max(sum(drawn), 1) for samples in drawn]

    @property
    def counters(self) -> dict[str, int]:
        """Totals of the source by name, over this process and its workers."""
        return totals([self._counted_before, *self._counters.values()])

    def begin(self, epoch: int, start: int) -> None:
        """A pass begins."""
        self._sum_up()
        if epoch != self._epoch or not start:
            self._epoch, self.bad_in_epoch = epoch, 0
            self._shares = np.zeros(1, np.int64)

    def recall(self, bad: list[BadSample], epoch: int) -> None:
        """Know what the run's ledger has from before; what a checkpoint counted stands where the ledger is another."""
        self.bad = [*bad, *self.bad]
        self.bad_in_epoch = max(self.bad_in_epoch, sum(one.epoch == epoch for one in bad))

    def workers_began(self) -> None:
        """New workers count from 0."""
        self._counted_before = totals([self._counted_before, *self._counters.values()])
        self._counters = {}

    def count(self, request: BatchRequest, report: Report, *, waited: float, queued: int) -> None:
        """One batch more."""
        if request.shares is not self._noted or request.row != self._until:
            self._sum_up()
            self._noted, self._from = request.shares, request.row
        self._until = request.row + 1
        self._samples += len(request.index)
        self._waited += waited
        self._queued += queued
        if report.counters:
            self._counters[report.worker] = report.counters
        if report.retried or report.replaced:
            bad, totals = len(report.replaced), self._statistics
            totals.retried += report.retried
            totals.replaced += bad
            totals.read -= bad  # they are among the samples of their batch
            self.bad += report.replaced
            self.bad_in_epoch += bad

    def told(self) -> dict[str, Any]:
        """What happened since the last call, of plain values."""
        self._sum_up()
        now = time.perf_counter()
        passed, self._since = now - self._since, now
        batches, waited, queued = self._batches, self._waited, self._queued
        self._batches, self._waited, self._queued = 0, 0.0, 0
        return {
            "batches": batches,
            "wait_seconds": waited,
            "wait_share": waited / passed if passed else 0.0,
            "queue_depth": queued / max(batches, 1),
            "retried": self._statistics.retried,
            "replaced": self._statistics.replaced,
            "counters": self.counters,
        }

    def state_dict(self) -> dict[str, Any]:
        """Of plain values."""
        self._sum_up()
        places = {"epoch": self._epoch, "bad_in_epoch": self.bad_in_epoch, "shares": self._shares.tolist()}
        return {**self._statistics.as_dict(), **places}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Count on."""
        self.statistics = Statistics.of(state)
        self._epoch, self.bad_in_epoch = int(state["epoch"]), int(state["bad_in_epoch"])
        self._shares = np.array(state["shares"], np.int64)

    def _sum_up(self) -> None:
        """Add the batches that were noted to all totals."""
        batches, samples = self._until - self._from, self._samples
        if not batches:
            return
        self._batches += batches
        self._statistics.batches += batches
        self._statistics.read += samples
        self._shares = added(self._shares, self._noted[self._from : self._until].sum(axis=0))
        self._from, self._samples = self._until, 0


def added(total: NDArray[np.int64], more: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of two rows of counts, of which one may know more sources."""
    longest = np.zeros(max(len(total), len(more)), np.int64)
    longest[: len(total)] += total
    longest[: len(more)] += more
    return longest


def resident_bytes(pids: Sequence[int | None]) -> int:
    """Resident memory of some processes, shared pages counted in each; what has ended counts nothing.

    Args:
        pids: process ids; this process is ``os.getpid()``.

    Returns:
        Bytes; 0 where the system does not tell.
    """
    if sys.platform != "linux":
        return 0
    page, total = os.sysconf("SC_PAGE_SIZE"), 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * page
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def totals(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sums by name."""
    summed: dict[str, int] = {}
    for told in counters:
        for name, value in told.items():
            summed[name] = summed.get(name, 0) + value
    return summed
