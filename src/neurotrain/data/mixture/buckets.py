"""Batches of one shape: the entries of a source by the shape that they are brought to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.mixture.checks import digest, refuse
from neurotrain.data.mixture.permutation import Indices, permuted

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Buckets:
    """Which shape each entry of a source is brought to.

    Args:
        ids: integers ``(length,)``: bucket of each entry, a place in ``shapes``.
        shapes: of the buckets: ``(height, width)``, or with frames or depth in front.

    Raises:
        ValueError: if a shape occurs twice, is not positive or has another number of edges, or an id names none.
    """

    ids: NDArray[Any]
    shapes: tuple[Shape, ...]

    def __post_init__(self) -> None:
        """Check shapes and ids."""
        problems: list[str] = []
        if not self.shapes:
            problems.append("shapes=() must name at least one")
        if len(set(self.shapes)) < len(self.shapes):
            problems.append(f"shapes={self.shapes} names a shape twice")
        if len({len(shape) for shape in self.shapes}) > 1:
            problems.append(f"shapes={self.shapes} must have one number of edges")
        problems += [f"shape {shape} must be positive" for shape in self.shapes if not shape or min(shape) < 1]
        ids = np.asarray(self.ids)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            problems.append(f"ids of shape {ids.shape} and type {ids.dtype} must be a list of integers")
        else:
            outside = ids[(ids < 0) | (ids >= len(self.shapes))]
            problems += [f"ids name bucket {bad}: there are {len(self.shapes)}" for bad in outside[:1].tolist()]
        refuse("Buckets", problems)

    def told(self) -> str:
        """Shapes and the digest of the ids; part of a plan's identity."""
        return f"{self.shapes} {digest(self.ids)}"

    def members(self, entries: Indices) -> list[Indices]:
        """Entries of each bucket, ascending."""
        ids = np.asarray(self.ids)[entries].astype(np.int64)
        split = np.cumsum(np.bincount(ids, minlength=len(self.shapes)))[:-1]
        return np.split(entries[np.argsort(ids, kind="stable")], split)


def merged(
    members: list[Indices], shapes: tuple[Shape, ...], *, unit: int, seed: int
) -> tuple[list[Indices], dict[tuple[Shape, Shape], int]]:
    """Move what does not fill a batch to the nearest bucket.

    From the smallest bucket to the largest, each gives ``size % unit`` entries, drawn once and for all, to the bucket
    whose shape is nearest (distance of the logarithms of the edges) among those that have not given yet. What is left
    over in the end is less than one batch, in one bucket.

    Args:
        members: entries of each bucket.
        shapes: of the buckets.
        unit: samples of a batch.
        seed: of the choice.

    Returns:
        The new members, and how many entries went from which shape to which.
    """
    members, moved = list(members), {}
    waiting = sorted((number for number in range(len(members)) if len(members[number])), key=lambda n: len(members[n]))
    while len(waiting) > 1:
        number = waiting.pop(0)
        own = members[number]
        rest = len(own) % unit
        if not rest:
            continue
        shuffled = own[permuted(np.arange(len(own)), length=len(own), seed=seed)]
        target = min(waiting, key=lambda other: _distance(shapes[number], shapes[other]))
        members[number] = np.sort(shuffled[rest:])
        members[target] = np.sort(np.concatenate([members[target], shuffled[:rest]]))
        moved[shapes[number], shapes[target]] = rest
        waiting.sort(key=lambda n: len(members[n]))
    return members, moved


def _distance(first: Shape, second: Shape) -> float:
    return math.dist([math.log(edge) for edge in first], [math.log(edge) for edge in second])
