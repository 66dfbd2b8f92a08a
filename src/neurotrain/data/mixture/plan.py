"""The mixture's plan: which entry of which source at which position of which epoch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from neurotrain.data.mixture.checks import nearest, refuse
from neurotrain.data.mixture.merge import Indices, Merge
from neurotrain.data.mixture.orders import Drawer
from neurotrain.data.mixture.permutation import scattered
from neurotrain.data.mixture.source import SourcePlan
from neurotrain.data.mixture.weights import SizeProportional, Sizes, Weights
from neurotrain.data.plan import PlanBlock, mix_seed

_PLACES = 2  # a word that keeps the seeds of places apart from those of entries


@dataclass(frozen=True, kw_only=True, eq=False)
class MixturePlan:
    """The global order of samples of a mixture: a pure function of (seed, epoch, position).

    Args:
        sources: in the order in which a block counts them.
        weights: how much of each.
        samples_per_epoch: positions of an epoch; None: the sum of all lengths.
        global_batch: samples of one step, over all ranks.
        seed: of all permutations.

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
    seed: int = 0

    def __post_init__(self) -> None:
        """Check everything."""
        problems: list[str] = []
        names = [source.name for source in self.sources]
        if not names:
            problems.append("sources=() must name at least one")
        problems += [f"two sources are named {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
        if self.global_batch < 1:
            problems.append(f"global_batch={self.global_batch} must be at least 1")
        if self.samples_per_epoch is not None and self.samples_per_epoch < 1:
            problems.append(f"samples_per_epoch={self.samples_per_epoch} must be at least 1, or None")
        if not problems:
            problems = self.weights.problems(self._sizes)
        refuse("MixturePlan", problems)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sources, as a block counts them."""
        return tuple(source.name for source in self.sources)

    def number(self, name: str) -> int:
        """Place of a source.

        Raises:
            ValueError: if there is none of this name.
        """
        if name not in self.names:
            raise ValueError(f"source {name!r} is not in the mixture; {nearest(name, self.names)}")
        return self.names.index(name)

    def length(self, epoch: int) -> int:
        """Positions of one epoch, over all ranks."""
        del epoch
        return self.samples_per_epoch or sum(source.length for source in self.sources)

    def block(self, *, epoch: int, first: int, last: int) -> PlanBlock:
        """The samples at positions ``[first, last)``; its cost does not depend on ``first``.

        Raises:
            IndexError: if the epoch has no such positions.
        """
        length = self.length(epoch)
        if not 0 <= first <= last <= length:
            raise IndexError(f"positions [{first}, {last}): epoch {epoch} has positions 0 to {length - 1}")
        begin = first - first % self.global_batch
        end = min(length, -(-last // self.global_batch) * self.global_batch)
        merged = self._merge.block(begin, end)
        source, starts = self._scattered(merged.child, merged.ordinal, epoch, begin)
        index = self._entries(source, starts, epoch)
        chosen = slice(first - begin, last - begin)
        return PlanBlock(source[chosen].astype(np.int32), index[chosen])

    def fingerprint(self) -> str:
        """Identity of the order: equal plans, equal digits."""
        sources = [(source.name, source.length, source.sampler.told()) for source in self.sources]
        told = ("mixture-1", sources, self.weights.told(), self.length(0), self.global_batch, self.seed)
        return hashlib.blake2b(repr(told).encode(), digest_size=8).hexdigest()

    @property
    def _sizes(self) -> Sizes:
        return Sizes(self.names, tuple(source.length for source in self.sources), self.global_batch)

    @cached_property
    def _drawers(self) -> list[Drawer]:
        return [source.sampler.drawer(source.length) for source in self.sources]

    @cached_property
    def _merge(self) -> Merge:
        end = float(self.length(0) + len(self.sources) + 2)
        shares = self.weights.shares(self._sizes, step=0)
        return Merge(time=np.array([0.0, end]), targets=np.stack([np.zeros(len(shares)), shares * end], axis=1))

    def _scattered(self, source: Indices, ordinal: Indices, epoch: int, begin: int) -> tuple[Indices, Indices]:
        """Shuffles sources within each global batch, so that no rank sees a pattern; first ordinal of each source."""
        count = len(self.sources)
        starts = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(starts, source, ordinal)
        if count == 1:
            return source, starts
        bits = np.uint64((count - 1).bit_length())
        words = scattered(np.arange(begin, begin + len(source)), mix_seed(self.seed, epoch, _PLACES))
        words = ((words >> bits) << bits) | source.astype(np.uint64)
        whole = len(words) - len(words) % self.global_batch
        rows = np.sort(words[:whole].reshape(-1, self.global_batch), axis=1).ravel()
        words = np.concatenate([rows, np.sort(words[whole:])])
        return (words & np.uint64((1 << int(bits)) - 1)).astype(np.int64), starts

    def _entries(self, source: Indices, starts: Indices, epoch: int) -> Indices:
        counts = np.bincount(source, minlength=len(self.sources))
        places = np.argsort(source.astype(np.int16), kind="stable")
        drawn = [
            drawer.draw(start, start + count, seed=mix_seed(self.seed, epoch, its.seed))
            for drawer, its, start, count in zip(
                self._drawers, self.sources, starts.tolist(), counts.tolist(), strict=True
            )
            if count
        ]
        index = np.empty(len(source), np.int64)
        if drawn:
            index[places] = np.concatenate(drawn)
        return index
