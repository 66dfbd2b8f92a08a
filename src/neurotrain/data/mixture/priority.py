"""Entries by how much there is still to learn from them: the one sampler whose order depends on the training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurotrain.data.mixture.checks import refuse
from neurotrain.data.mixture.entries import Entries
from neurotrain.data.mixture.orders import Drawer, Sampler
from neurotrain.data.mixture.permutation import Indices, scattered

Floats = NDArray[np.float64]


class PrioritySampler(Sampler):
    """Entries with a probability proportional to ``(loss + floor) ** exponent``, as of their last known loss.

    **Exempt from the plan's order independence**: what is drawn depends on the losses that were reported before the
    draw, hence on timing and prefetching. Its state goes into checkpoints instead; a resumed run draws by the same
    priorities, but may draw other entries for batches that were prefetched when it was saved. The state is one number
    an entry; a draw and an update cost O(log n).

    Args:
        length: entries of the source.
        exponent: 0 draws uniformly, 1 in proportion to the loss.
        floor: added to each loss, so that no entry is lost for ever.
        initial_loss: taken for entries whose loss is not yet known; large, so that they come soon.

    Raises:
        ValueError: naming everything that is wrong.

    Reference:
        Schaul et al., 2016 (arXiv:1511.05952), section 3.3, proportional variant.

    Example:
        >>> sampler = PrioritySampler(length=4, exponent=1.0)
        >>> sampler.update(np.array([0, 1, 2, 3]), np.array([0.0, 0.0, 0.0, 5.0]))
        >>> sampler.probabilities(np.array([3])).round(2).tolist()
        [1.0]
    """

    def __init__(self, *, length: int, exponent: float = 0.6, floor: float = 1e-3, initial_loss: float = 10.0) -> None:
        problems: list[str] = []
        if length < 1:
            problems.append(f"length={length} must be at least 1")
        if not 0 <= exponent <= 1:
            problems.append(f"exponent={exponent} must lie between 0 and 1")
        if not (math.isfinite(floor) and floor > 0):
            problems.append(f"floor={floor} must be finite and above 0")
        if not (math.isfinite(initial_loss) and initial_loss >= 0):
            problems.append(f"initial_loss={initial_loss} must be finite and at least 0")
        refuse("PrioritySampler", problems)
        self._length, self._exponent, self._floor, self._initial = length, exponent, floor, initial_loss
        self._leaves = 1 << (length - 1).bit_length()
        self._sums = np.zeros(2 * self._leaves)
        self._fill(np.full(length, (initial_loss + floor) ** exponent))

    def update(self, ids: Indices, losses: Floats) -> None:
        """Take note of losses.

        Args:
            ids: integers ``(N,)``: entries; of one that occurs twice the last loss counts.
            losses: ``(N,)``, finite and not negative.

        Raises:
            ValueError: if an entry does not exist or a loss is not a finite, non-negative number.
        """
        ids, losses = np.asarray(ids, np.int64), np.asarray(losses, np.float64)
        problems = [f"id {bad} is outside [0, {self._length})" for bad in ids[(ids < 0) | (ids >= self._length)][:3]]
        wrong = np.flatnonzero(~(np.isfinite(losses) & (losses >= 0)))
        problems += [f"loss {losses[bad]} must be finite and at least 0" for bad in wrong[:3]]
        if ids.shape != losses.shape:
            problems.append(f"{ids.shape} ids do not match {losses.shape} losses")
        refuse("PrioritySampler.update", problems)
        if not ids.size:
            return
        priorities = (losses + self._floor) ** self._exponent
        self._sums[self._leaves + ids] = priorities
        nodes = np.unique((self._leaves + ids) // 2)
        while nodes[0] >= 1:
            self._sums[nodes] = self._sums[2 * nodes] + self._sums[2 * nodes + 1]
            nodes = np.unique(nodes // 2)

    def probabilities(self, ids: Indices) -> Floats:
        """Probability of each entry in one draw, as importance weights need it.

        Args:
            ids: integers ``(N,)``.

        Returns:
            float64 ``(N,)``.
        """
        return self._sums[self._leaves + np.asarray(ids, np.int64)] / self._sums[1]

    def pick(self, points: Floats) -> Indices:
        """The entries at some points of the cumulative priorities.

        Args:
            points: float64 ``(N,)`` in ``[0, 1)``.

        Returns:
            int64 ``(N,)``.
        """
        node, left = np.ones(len(points), np.int64), points * self._sums[1]
        while len(node) and node[0] < self._leaves:
            first = self._sums[2 * node]
            right = (left >= first) & (self._sums[2 * node + 1] > 0)
            left = np.where(right, left - first, left)
            node = 2 * node + right
        return node - self._leaves

    def drawer(self, entries: Entries) -> Drawer:
        """Draws by present priorities; equal priorities and seeds give equal draws."""
        assert entries.size == self._length, "a priority sampler draws from the whole source"
        return _Priorities(self)

    def problems(self, length: int) -> list[str]:
        """Another length than the source's."""
        if length == self._length:
            return []
        return [f"its PrioritySampler has length={self._length}, the source has {length} entries"]

    def told(self) -> str:
        """All settings."""
        return f"priority exponent {self._exponent!r} floor {self._floor!r} initial {self._initial!r}"

    @property
    def size(self) -> int:
        """Entries."""
        return self._length

    def state_dict(self) -> dict[str, Any]:
        """Priorities, as a float64 tensor of the source's length."""
        leaves = self._sums[self._leaves : self._leaves + self._length]
        return {"priorities": torch.from_numpy(leaves.copy())}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with saved priorities.

        Args:
            state_dict: of a sampler of the same length.

        Raises:
            ValueError: if the length differs.
        """
        priorities = np.asarray(state_dict["priorities"], np.float64)
        if priorities.shape != (self._length,):
            raise ValueError(f"PrioritySampler: {len(priorities)} priorities do not fit length={self._length}")
        self._fill(priorities)

    def _fill(self, priorities: Floats) -> None:
        self._sums[self._leaves : self._leaves + self._length] = priorities
        level = self._leaves // 2
        while level:
            below = self._sums[2 * level : 4 * level]
            self._sums[level : 2 * level] = below[::2] + below[1::2]
            level //= 2


class _Priorities(Drawer):
    def __init__(self, sampler: PrioritySampler) -> None:
        self.size, self._sampler = sampler.size, sampler

    def draw(self, first: int, last: int, *, seed: int) -> Indices:
        words = scattered(np.arange(first, last), seed) >> np.uint64(11)
        return self._sampler.pick(words.astype(np.float64) * 2.0**-53)
