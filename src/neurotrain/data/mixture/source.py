"""What a mixture has to know of a source."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from neurotrain.data.mixture.buckets import Buckets
from neurotrain.data.mixture.checks import nearest, refuse
from neurotrain.data.mixture.orders import Sampler, shuffled
from neurotrain.data.mixture.priority import PrioritySampler

Exhaustion = Literal["cycle", "drop", "stop", "repeat"]
Leftover = Literal["pad", "merge", "report"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SourcePlan:
    """One source of a mixture.

    Every epoch begins with the source's first pass anew, in an order of the epoch's own.

    Args:
        name: unique in the mixture.
        length: entries.
        repeats: how often an entry counts: in the source's size, where weights go by size, and until it is exhausted.
        exhaustion: what happens when all entries have come ``repeats`` times. ``cycle``: they come again; ``drop``: the
            other sources go on alone; ``stop``: the epoch ends; ``repeat``: it goes on until they have come ``passes``
            times as often, then it is dropped.
        passes: of ``repeat``.
        sampler: which entries, in which order.
        start_epoch: first epoch in which it takes part.
        stop_epoch: first epoch in which it no longer does; None: it stays.
        start_step: first optimizer step in which it takes part.
        stop_step: first optimizer step in which it no longer does; None: it stays.
        buckets: shapes; every global batch has one. None: all samples have the same.
        leftover: what happens to entries that do not fill a whole global batch of one source and shape. ``pad``: the
            batch is filled up from another pass; ``merge``: they go to the nearest shape, what is left then is padded;
            ``report``: they are left out, and counted in the plan's report. None: ``pad``.
        identity: of the entries and their order, such as an index's fingerprint; part of the plan's.

    Raises:
        ValueError: naming everything that is wrong.
    """

    name: str
    length: int
    repeats: int = 1
    exhaustion: Exhaustion = "cycle"
    passes: int = 1
    sampler: Sampler = field(default_factory=shuffled)
    start_epoch: int = 0
    stop_epoch: int | None = None
    start_step: int = 0
    stop_step: int | None = None
    buckets: Buckets | None = None
    leftover: Leftover | None = None
    identity: str = ""

    def __post_init__(self) -> None:
        """Check everything."""
        problems = [
            f"{key}={value} must be at least {least}"
            for key, value, least in (
                ("length", self.length, 1),
                ("repeats", self.repeats, 1),
                ("passes", self.passes, 1),
                ("start_epoch", self.start_epoch, 0),
                ("start_step", self.start_step, 0),
            )
            if value < least
        ]
        problems += [*self._choices(), *self._windows()]
        if self.length >= 1:
            problems += [*self.sampler.problems(self.length), *self._bucketed()]
        refuse(f"source {self.name!r}", problems)

    @property
    def bounded(self) -> bool:
        """Whether it can be exhausted."""
        return self.exhaustion != "cycle"

    @property
    def rounds(self) -> int:
        """Passes until it is exhausted."""
        return self.repeats * self.passes

    @property
    def stateful(self) -> bool:
        """Whether its order depends on what happened in training."""
        return isinstance(self.sampler, PrioritySampler)

    @property
    def seed(self) -> int:
        """64 bits of the name: a source keeps its order when others come or go."""
        return int.from_bytes(hashlib.blake2b(self.name.encode(), digest_size=8).digest(), "big")

    def takes_part(self, epoch: int) -> bool:
        """Whether an epoch has it, as far as epochs decide."""
        return self.start_epoch <= epoch and (self.stop_epoch is None or epoch < self.stop_epoch)

    def told(self) -> str:
        """All that decides the order."""
        windows = (self.start_epoch, self.stop_epoch, self.start_step, self.stop_step)
        supply = (self.length, self.repeats, self.exhaustion, self.passes, self.leftover or "pad")
        shapes = "" if self.buckets is None else self.buckets.told()
        return repr((self.name, supply, self.sampler.told(), windows, shapes, self.identity))

    def _choices(self) -> list[str]:
        found: list[str] = []
        if self.exhaustion not in get_args(Exhaustion):
            found.append(f"exhaustion={self.exhaustion!r} is unknown; {nearest(self.exhaustion, get_args(Exhaustion))}")
        elif self.passes != 1 and self.exhaustion != "repeat":
            found.append(f"passes={self.passes} has no effect with exhaustion={self.exhaustion!r}")
        if self.leftover is not None and self.leftover not in get_args(Leftover):
            found.append(f"leftover={self.leftover!r} is unknown; {nearest(self.leftover, get_args(Leftover))}")
        elif self.leftover in ("pad", "report") and not self.bounded:
            found.append(f"leftover={self.leftover!r} has no effect with exhaustion='cycle': nothing is left over")
        elif self.leftover == "merge" and self.buckets is None:
            found.append("leftover='merge' has no effect without buckets")
        return found

    def _windows(self) -> list[str]:
        found: list[str] = []
        if self.stop_epoch is not None and self.stop_epoch <= self.start_epoch:
            found.append(f"stop_epoch={self.stop_epoch} must lie after start_epoch={self.start_epoch}")
        if self.stop_step is not None and self.stop_step <= self.start_step:
            found.append(f"stop_step={self.stop_step} must lie after start_step={self.start_step}")
        return found

    def _bucketed(self) -> list[str]:
        if self.buckets is None:
            return []
        found: list[str] = []
        if len(np.asarray(self.buckets.ids)) != self.length:
            found.append(f"buckets have {len(np.asarray(self.buckets.ids))} ids, the source {self.length} entries")
        if self.stateful:
            found.append("buckets and a PrioritySampler exclude each other: it draws from the whole source")
        return found
