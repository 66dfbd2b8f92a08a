"""The mixture's plan: which entry of which source at which position of which epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.mixture.accounts import described, reported, targeted
from neurotrain.data.mixture.buckets import Shape
from neurotrain.data.mixture.checks import nearest, refuse
from neurotrain.data.mixture.curves import Curves, NobodyLeftError, Stretch, Supply, curves
from neurotrain.data.mixture.permutation import Indices
from neurotrain.data.mixture.pools import Pools
from neurotrain.data.mixture.priority import PrioritySampler
from neurotrain.data.mixture.schedule import BatchSchedule, Draws, SampleSchedule, Schedule, supplies
from neurotrain.data.mixture.shaped import ShapedSchedule
from neurotrain.data.mixture.source import SourcePlan
from neurotrain.data.mixture.targets import depends_on_steps, stretches
from neurotrain.data.mixture.weights import SizeProportional, Sizes, Weights
from neurotrain.data.plan import PlanBlock, mix_seed

Granularity = Literal["sample", "batch"]

_PLACES = 2  # a word that keeps the seeds of places apart from those of entries
_KEPT = 4  # epochs that are kept ready


@dataclass(frozen=True, kw_only=True, eq=False)
class MixturePlan:
    """The global order of samples of a mixture: a pure function of (seed, epoch, position).

    **Shares.** At every prefix of the epoch each source has had its target number of samples, to within one global
    batch; the target is the integral of its share, by optimizer step, of the sources that take part and are not
    exhausted. With ``granularity="sample"`` the sources of a global batch stand in a random order; with ``"batch"``
    every global batch has one source. How, and why it holds: ``merge``, ``order``, ``schedule``.

    **Shapes.** Where any source has buckets, every global batch has one shape, and shapes come in proportion to their
    samples. With ``granularity="sample"`` it has samples of all sources that have the shape; what a source misses where
    it has none, it gets where it has: ``shaped``, ``rounding``. Here the bound is searched for, not proven.
    Sources without buckets have one more shape, together.

    **World size.** World size and workers are no arguments: the order belongs to the global batch.

    **Cost.** A block costs the same wherever it lies. What an epoch's schedule needs (when sources end, how weights
    move) is computed once, at its first block, in time that does not depend on the number of samples; only where many
    sources, with whole batches or very small ones, leave no bound proven, are the epoch's units walked through once.

    **Exempt** from all this is a source with a ``PrioritySampler``: its share is planned, its entries are not.

    Args:
        sources: in the order in which a block counts them.
        weights: how much of each.
        samples_per_epoch: positions of an epoch; None: until the sources that can be exhausted are, or one of them
            stops it; where all are cycled, the sum of their sizes. An epoch ends earlier where nobody is left.
        global_batch: samples of one step, over all ranks.
        granularity: what has a source: each sample or each global batch.
        accumulation: global batches of one optimizer step. The last, partial batch of an epoch counts for no step.
        batches_per_epoch: global batches after which training leaves an epoch (an int), or their share of all (a
            float); None: none are left out. It decides at which optimizer step an epoch begins, nothing else.
        seed: of all orders.

    Raises:
        ValueError: naming everything that is wrong.

    Example:
        >>> sources = (SourcePlan(name="a", length=10), SourcePlan(name="b", length=30))
        >>> plan = MixturePlan(sources=sources, global_batch=8)
        >>> np.bincount(plan.block(epoch=0, first=8, last=16).source).tolist()
        [2, 6]
    """

    sources: tuple[SourcePlan, ...]
    weights: Weights = field(default_factory=SizeProportional)
    samples_per_epoch: int | None = None
    global_batch: int
    granularity: Granularity = "sample"
    accumulation: int = 1
    batches_per_epoch: int | float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check everything, and that the first epoch has somebody to draw from."""
        object.__setattr__(self, "_schedules", {})
        object.__setattr__(self, "_begins", [0])
        refuse("MixturePlan", self._problems())
        if any(source.takes_part(0) for source in self.sources):
            self.length(0)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sources, as a block counts them."""
        return tuple(source.name for source in self.sources)

    @property
    def exempt(self) -> tuple[str, ...]:
        """Names of the sources whose order depends on the training, and is carried by checkpoints instead."""
        return tuple(source.name for source in self.sources if source.stateful)

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """All shapes of all sources, as :meth:`shape_numbers` counts them."""
        return tuple({pool.shape: None for pools in self._pools for pool in pools.pools if pool.shape is not None})

    def number(self, name: str) -> int:
        """Place of a source.

        Raises:
            ValueError: if there is none of this name.
        """
        if name not in self.names:
            raise ValueError(f"source {name!r} is not in the mixture; {nearest(name, self.names)}")
        return self.names.index(name)

    def length(self, epoch: int) -> int:
        """Positions of one epoch, over all ranks.

        Raises:
            ValueError: if the epoch has a time when no source takes part.
        """
        if self.samples_per_epoch is not None and not any(source.bounded for source in self.sources):
            return self.samples_per_epoch
        return self.schedule(epoch).length

    def block(self, *, epoch: int, first: int, last: int) -> PlanBlock:
        """The samples at positions ``[first, last)``; its cost does not depend on ``first``.

        Raises:
            IndexError: if the epoch has no such positions.
        """
        draws, chosen = self._draws(epoch, first, last)
        return PlanBlock(self._owners[draws.pool[chosen]], self._entries(draws, epoch)[chosen])

    def shape_numbers(self, *, epoch: int, first: int, last: int) -> NDArray[np.int32]:
        """Which of ``shapes`` the samples at positions ``[first, last)`` are brought to; -1: the source has but one.

        Raises:
            IndexError: if the epoch has no such positions.
        """
        draws, chosen = self._draws(epoch, first, last)
        numbers: dict[Shape | None, int] = {shape: number for number, shape in enumerate(self.shapes)}
        table = np.array([numbers.get(pool.shape, -1) for pools in self._pools for pool in pools.pools], np.int32)
        return table[draws.pool[chosen]]

    def first_step(self, epoch: int) -> int:
        """Optimizer step at which an epoch begins."""
        begins: list[int] = self.__dict__["_begins"]
        while len(begins) <= epoch:
            batches = self._trained(self.length(len(begins) - 1) // self.global_batch)
            begins.append(begins[-1] + -(-batches // self.accumulation))
        return begins[epoch]

    def fingerprint(self) -> str:
        """Identity of the order: equal plans, equal digits."""
        return self._fingerprint

    def describe(self, epoch: int = 0) -> dict[str, Any]:
        """An epoch's settings, targets and outcome, of plain values, for a run's summary.

        Args:
            epoch: from 0.

        Returns:
            Strategy, length, the sources that are exempt, and what ``accounts.described`` says of each source.
        """
        schedule = self.schedule(epoch)
        return {
            "weights": self.weights.told(),
            "granularity": self.granularity,
            "global_batch": self.global_batch,
            "length": schedule.length,
            "exempt": list(self.exempt),
            "sources": described(schedule, self.sources, self._pools, batch=self.global_batch),
        }

    def report(self, epoch: int = 0) -> dict[str, dict[str, Any]]:
        """Where every entry went in an epoch: drawn, padded, merged, left out; see ``accounts.reported``.

        Args:
            epoch: from 0.

        Returns:
            Counts by source.
        """
        return reported(self.schedule(epoch), self.sources, self._pools, batch=self.global_batch)

    def targets(self, epoch: int, positions: int) -> list[float]:
        """Share that each source should have of the first positions of an epoch.

        Args:
            epoch: from 0.
            positions: at least 1.

        Returns:
            In the order of the sources; they sum to 1.
        """
        return targeted(self.schedule(epoch), positions)

    def schedule(self, epoch: int) -> Schedule:
        """One epoch, ready to be asked.

        Raises:
            ValueError: if the epoch has a time when no source takes part.
        """
        kept: dict[int, Schedule] = self.__dict__["_schedules"]
        if epoch not in kept:
            made = self._scheduled(epoch)
            while len(kept) >= _KEPT:
                del kept[next(iter(kept))]
            kept[epoch] = made
        return kept[epoch]

    def learn(self, source: str, entries: Indices, losses: NDArray[np.float64]) -> None:
        """Let an exempt source draw by these losses from its next block on.

        Args:
            source: its name.
            entries: int64 ``(N,)``.
            losses: ``(N,)``, finite and not negative.

        Raises:
            ValueError: if the source is not exempt, or see :meth:`PrioritySampler.update`.
        """
        samplers = self._priorities()
        if source not in samplers:
            raise ValueError(f"source {source!r} does not learn from losses; {nearest(source, samplers)}")
        samplers[source].update(entries, losses)

    def state_dict(self) -> dict[str, Any]:
        """State of the sources that are exempt, by name; empty for all others."""
        return {name: sampler.state_dict() for name, sampler in self._priorities().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the state of sources that are exempt.

        Raises:
            ValueError: if the checkpoint has others.
        """
        samplers = self._priorities()
        if set(samplers) != set(state_dict):
            raise ValueError(
                f"cannot resume: the checkpoint has states of {sorted(state_dict)}, not {sorted(samplers)}"
            )
        for name, sampler in samplers.items():
            sampler.load_state_dict(state_dict[name])

    def __getstate__(self) -> dict[str, Any]:
        """Settings only: what is computed from them is computed again."""
        return {key: self.__dict__[key] for key in self.__dataclass_fields__}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Settings, nothing computed yet."""
        self.__dict__.update(state, _schedules={}, _begins=[0])

    def _priorities(self) -> dict[str, PrioritySampler]:
        return {s.name: s.sampler for s in self.sources if isinstance(s.sampler, PrioritySampler)}

    def _problems(self) -> list[str]:
        problems = [
            f"{key}={value} must be at least 1"
            for key, value in (
                ("global_batch", self.global_batch),
                ("accumulation", self.accumulation),
                ("samples_per_epoch", self.samples_per_epoch),
            )
            if value is not None and value < 1
        ]
        names = self.names
        if not names:
            problems.append("sources=() must name at least one")
        problems += [f"two sources are named {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
        if self.granularity not in ("sample", "batch"):
            problems.append(
                f"granularity={self.granularity!r} is unknown; {nearest(self.granularity, ('sample', 'batch'))}"
            )
        elif self.granularity == "sample" and not self._shaped:
            problems += [
                f"source {source.name!r}: leftover={source.leftover!r} has no effect with granularity='sample' where "
                "no source has buckets"
                for source in self.sources
                if source.leftover is not None
            ]
        if self.samples_per_epoch is None:
            problems += [
                f"samples_per_epoch=None: source {source.name!r} would end the epoch, but may leave at step "
                f"{source.stop_step} before; state samples_per_epoch"
                for source in self.sources
                if source.bounded and source.stop_step is not None
            ]
        return problems or [*self.weights.problems(self._sizes), *self._empty()]

    def _empty(self) -> list[str]:
        if self.granularity == "sample":
            return []
        return [
            f"source {source.name!r} does not fill one global batch of {self.global_batch}: use leftover='pad'"
            for source, pools in zip(self.sources, self._pools, strict=True)
            if pools.batches == 0
        ]

    @property
    def _shaped(self) -> bool:
        return any(source.buckets is not None for source in self.sources)

    @cached_property
    def _pools(self) -> list[Pools]:
        return [Pools(source=source, unit=self.global_batch, seed=self.seed) for source in self.sources]

    @cached_property
    def _owners(self) -> NDArray[np.int32]:
        """Source of each pool."""
        return np.repeat(np.arange(len(self.sources), dtype=np.int32), [len(pools.pools) for pools in self._pools])

    @cached_property
    def _seeds(self) -> list[int]:
        return [source.seed for source in self.sources]

    @cached_property
    def _sizes(self) -> Sizes:
        sizes = (p.selected * source.repeats for p, source in zip(self._pools, self.sources, strict=True))
        return Sizes(self.names, tuple(sizes), self.global_batch)

    @cached_property
    def _fingerprint(self) -> str:
        steps: Any = self.accumulation if depends_on_steps(self.sources, self.weights) else None
        if steps is not None and self.batches_per_epoch is not None:
            steps = (steps, self.batches_per_epoch)
        settings = (self.samples_per_epoch, self.global_batch, self.granularity, steps, self.seed)
        told = ("mixture-1", [source.told() for source in self.sources], self.weights.told(), settings)
        return hashlib.blake2b(repr(told).encode(), digest_size=8).hexdigest()

    def _scheduled(self, epoch: int) -> Schedule:
        # A global batch of one sample has one source, and one shape.
        in_batches = self.granularity == "batch" or (self._shaped and self.global_batch == 1)
        unit = self.global_batch if in_batches else 1
        limit = self._limit(epoch)
        planned = self._stretches(epoch, unit)
        seed = mix_seed(self.seed, epoch, _PLACES)
        try:
            if self._shaped and not in_batches:
                return ShapedSchedule(
                    sources=self.sources,
                    pools=self._pools,
                    integrate=partial(self._integrated, planned, limit),
                    limit=limit,
                    batch=self.global_batch,
                    seed=seed,
                )
            given = supplies(self.sources, self._pools, in_batches=in_batches)
            found = curves(planned, given, limit=None if limit is None else -(-limit // unit))
        except NobodyLeftError as error:
            counted = "global batches" if in_batches else "samples"
            raise ValueError(f"MixturePlan: epoch {epoch}: {error} (counted in {counted})") from None
        if in_batches:
            return BatchSchedule(curves=found, limit=limit, pools=self._pools, batch=self.global_batch)
        return SampleSchedule(curves=found, limit=limit, batch=self.global_batch, seed=seed)

    def _stretches(self, epoch: int, unit: int) -> list[Stretch]:
        steps = depends_on_steps(self.sources, self.weights)
        return list(
            stretches(
                sources=self.sources,
                weights=self.weights,
                sizes=self._sizes,
                epoch=epoch,
                first_step=self.first_step(epoch) if steps else 0,
                units_per_step=self.accumulation * self.global_batch // unit,
            )
        )

    def _integrated(self, planned: Sequence[Stretch], limit: int | None, samples: NDArray[np.float64]) -> Curves:
        """Targets up to the last whole batch, of what each source gives in all."""
        refuse(
            "MixturePlan",
            [
                f"source {source.name!r} does not fill one global batch of {self.global_batch}: use leftover='pad'"
                for source, units in zip(self.sources, samples, strict=True)
                if not units
            ],
        )
        given = [
            Supply(float(units), source.exhaustion == "stop")
            for source, units in zip(self.sources, samples, strict=True)
        ]
        batch, shapes = self.global_batch, 1 + len(self.shapes)
        whole = None if limit is None else -(-limit // batch) * batch
        return curves(planned, given, limit=whole, beyond=batch * (1 + shapes))

    def _trained(self, batches: int) -> int:
        """How many global batches of an epoch are trained on; counted as Lightning does."""
        limit = batches if self.batches_per_epoch is None else self.batches_per_epoch
        return min(batches, limit) if isinstance(limit, int) else int(batches * limit)

    def _limit(self, epoch: int) -> int | None:
        present = [source for source in self.sources if source.takes_part(epoch)]
        if self.samples_per_epoch is not None or any(source.bounded for source in present):
            return self.samples_per_epoch
        return sum(self._sizes.sizes[self.number(source.name)] for source in present)

    def _draws(self, epoch: int, first: int, last: int) -> tuple[Draws, slice]:
        """Whole global batches around some positions, and where these are in them."""
        length, batch = self.length(epoch), self.global_batch
        if not 0 <= first <= last <= length:
            raise IndexError(f"positions [{first}, {last}): epoch {epoch} has positions 0 to {length - 1}")
        begin = first // batch
        draws = self.schedule(epoch).block(begin, -(-last // batch) if last > first else begin)
        return draws, slice(first - begin * batch, last - begin * batch)

    def _entries(self, draws: Draws, epoch: int) -> Indices:
        """Entries of draws: those of each pool are consecutive ones of its sequence."""
        count = len(self._owners)
        places = np.argsort(draws.pool.astype(np.int16 if count < 2**15 else np.int64), kind="stable")
        index, done = np.empty(len(places), np.int64), 0
        numbered = [(number, pool) for pools in self._pools for number, pool in enumerate(pools.pools)]
        drawn = np.bincount(draws.pool, minlength=count)
        for which in np.flatnonzero(drawn).tolist():
            (number, pool), first, size = numbered[which], int(draws.first[which]), int(drawn[which])
            seed = mix_seed(self.seed, epoch, self._seeds[self._owners[which]], number)
            index[places[done : done + size]] = pool.drawer.draw(first, first + size, seed=seed)
            done += size
        return index
