"""How much of each source: strategies that turn sizes into shares, constant or over optimizer steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.mixture.checks import nearest, refuse

Floats = NDArray[np.float64]
Ramp = Literal["linear", "cosine"]


class Sizes(NamedTuple):
    """What a strategy may look at.

    Attributes:
        names: of the sources.
        sizes: entries of each, times its repeats.
        global_batch: samples of one step, over all ranks.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    global_batch: int


class Weights(ABC):
    """A strategy of mixing."""

    @abstractmethod
    def shares(self, of: Sizes, *, step: float) -> Floats:
        """Target shares, before sources that are absent are taken out.

        Args:
            of: the sources.
            step: optimizer step, from 0.

        Returns:
            float64 ``(sources,)``, non-negative, summing to 1.
        """

    @abstractmethod
    def told(self) -> str:
        """The strategy and its settings, on one line; part of a plan's identity."""

    def problems(self, of: Sizes) -> list[str]:
        """What does not fit the sources."""
        del of
        return []

    def changes(self) -> tuple[tuple[int, int], ...]:
        """Intervals ``[first, last)`` of optimizer steps in which shares change."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Uniform(Weights):
    """Every source has the same share."""

    def shares(self, of: Sizes, *, step: float) -> Floats:
        """One n-th each."""
        del step
        return np.full(len(of.names), 1 / len(of.names))

    def told(self) -> str:
        """Its name."""
        return "uniform"


@dataclass(frozen=True, kw_only=True)
class SizeProportional(Weights):
    """A source's share is its number of entries times its repeats: every entry is equally frequent."""

    def shares(self, of: Sizes, *, step: float) -> Floats:
        """By size."""
        del step
        return _normalised(of.sizes)

    def told(self) -> str:
        """Its name."""
        return "size-proportional"


@dataclass(frozen=True, kw_only=True)
class Temperature(Weights):
    """Shares proportional to ``size ** (1 / temperature)``: 1 is by size, towards infinity it is uniform.

    Args:
        temperature: above 0.

    Raises:
        ValueError: if it is not.

    Reference:
        Arivazhagan et al., 2019, "Massively multilingual neural machine translation in the wild", section 4.

    Example:
        >>> Temperature(temperature=2).shares(Sizes(("a", "b"), (900, 100), 10), step=0).round(2).tolist()
        [0.75, 0.25]
    """

    temperature: float

    def __post_init__(self) -> None:
        """Check the number."""
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"Temperature: temperature={self.temperature} must be finite and above 0")

    def shares(self, of: Sizes, *, step: float) -> Floats:
        """By the root of the size."""
        del step
        largest = max(of.sizes)  # of the largest alone the power cannot overflow
        return _normalised([(size / largest) ** (1 / self.temperature) for size in of.sizes])

    def told(self) -> str:
        """Name and temperature."""
        return f"temperature {self.temperature!r}"


@dataclass(frozen=True, init=False, eq=False)
class Explicit(Weights):
    """Shares as stated.

    Args:
        weights: of each source by name; they need not sum to 1. A source of weight 0 is never drawn.

    Raises:
        ValueError: if one is negative or not finite, or all are 0.
    """

    weights: Mapping[str, float]

    def __init__(self, *, weights: Mapping[str, float]) -> None:
        object.__setattr__(self, "weights", {name: float(weight) for name, weight in weights.items()})
        bad = [
            f"{name}={weight} must be finite and at least 0"
            for name, weight in self.weights.items()
            if not (math.isfinite(weight) and weight >= 0)
        ]
        if not bad and not sum(self.weights.values()) > 0:
            bad = [f"weights={dict(self.weights)} must have a positive sum"]
        refuse("Explicit", bad)

    def shares(self, of: Sizes, *, step: float) -> Floats:
        """As stated, normalised."""
        del step
        return _normalised([self.weights[name] for name in of.names])

    def told(self) -> str:
        """Name and weights."""
        return f"explicit {_listed(self.weights)}"

    def problems(self, of: Sizes) -> list[str]:
        """Sources without a weight, weights without a source."""
        return _unmatched("weights", self.weights, of.names)


@dataclass(frozen=True, init=False, eq=False)
class Quotas(Weights):
    """An exact number of samples of each source in every global batch.

    It is exact as long as the same sources take part: where one has dropped out, the others share its places in
    proportion, to within a sample.

    Args:
        quotas: samples by name of source; they sum to the global batch.

    Raises:
        ValueError: if one is negative.
    """

    quotas: Mapping[str, int]

    def __init__(self, *, quotas: Mapping[str, int]) -> None:
        object.__setattr__(self, "quotas", dict(quotas))
        refuse("Quotas", [f"{name}={quota} must be at least 0" for name, quota in self.quotas.items() if quota < 0])

    def shares(self, of: Sizes, *, step: float) -> Floats:
        """Quotas over their sum."""
        del step
        return _normalised([self.quotas[name] for name in of.names])

    def told(self) -> str:
        """Name and quotas."""
        return f"quotas {_listed(self.quotas)}"

    def problems(self, of: Sizes) -> list[str]:
        """Names that do not match, or a sum that is not the global batch."""
        found = _unmatched("quotas", self.quotas, of.names)
        total = sum(self.quotas.values())
        if total != of.global_batch:
            found.append(f"quotas={dict(self.quotas)} sum to {total}, not to global_batch={of.global_batch}")
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Scheduled(Weights):
    """From one strategy to another over optimizer steps; chained, ``start`` is itself scheduled.

    Args:
        start: until ``first_step``.
        end: from ``last_step`` on.
        first_step: where the ramp begins, as the optimizer counts.
        last_step: where it ends; equal to ``first_step``: a jump.
        ramp: ``linear``: shares move evenly; ``cosine``: slowly at both ends, by half a cosine.

    Raises:
        ValueError: if the steps are negative or in the wrong order, or the ramp is unknown.

    Example:
        >>> only_a, only_b = Explicit(weights={"a": 1, "b": 0}), Explicit(weights={"a": 0, "b": 1})
        >>> ramp = Scheduled(start=only_a, end=only_b, first_step=0, last_step=8)
        >>> [ramp.shares(Sizes(("a", "b"), (9, 9), 4), step=step)[1].item() for step in (0, 2, 4, 9)]
        [0.0, 0.25, 0.5, 1.0]
    """

    start: Weights
    end: Weights
    first_step: int
    last_step: int
    ramp: Ramp = "linear"

    def __post_init__(self) -> None:
        """Check steps and ramp."""
        bad: list[str] = []
        if self.first_step < 0:
            bad.append(f"first_step={self.first_step} must be at least 0")
        if self.last_step < self.first_step:
            bad.append(f"last_step={self.last_step} lies before first_step={self.first_step}")
        if self.ramp not in ("linear", "cosine"):
            bad.append(f"ramp={self.ramp!r} is unknown; {nearest(self.ramp, ('linear', 'cosine'))}")
        refuse("Scheduled", bad)

    def shares(self, of: Sizes, *, step: float) -> Floats:
        """Between the two."""
        if step >= self.last_step:
            return self.end.shares(of, step=step)
        start = self.start.shares(of, step=step)
        if step <= self.first_step:
            return start
        way = (step - self.first_step) / (self.last_step - self.first_step)
        if self.ramp == "cosine":
            way = (1 - math.cos(math.pi * way)) / 2
        return (1 - way) * start + way * self.end.shares(of, step=step)

    def told(self) -> str:
        """All settings."""
        return (
            f"scheduled {self.ramp} [{self.first_step}, {self.last_step}] from ({self.start.told()}) to "
            f"({self.end.told()})"
        )

    def problems(self, of: Sizes) -> list[str]:
        """Of both strategies."""
        return [*self.start.problems(of), *self.end.problems(of)]

    def changes(self) -> tuple[tuple[int, int], ...]:
        """Its own ramp and those of its ends."""
        return (*self.start.changes(), (self.first_step, self.last_step), *self.end.changes())


def _normalised(values: Sequence[float]) -> Floats:
    weights = np.array(values, np.float64)
    return weights / weights.sum()


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name!r}: {values[name]!r}" for name in sorted(values))


def _unmatched(key: str, given: Mapping[str, float], names: Sequence[str]) -> list[str]:
    strange = [f"{key}[{name!r}] names no source; {nearest(name, names)}" for name in given if name not in names]
    missing = [f"{key} says nothing of source {name!r}" for name in names if name not in given]
    return [*strange, *missing]
