"""Parts of a source: folds for cross-validation, and lists of entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.mixture.checks import digest, nearest
from neurotrain.data.mixture.entries import Entries, FoldEntries, ListedEntries
from neurotrain.data.mixture.orders import Ordered

Part = Literal["train", "validation"]


@dataclass(frozen=True, kw_only=True, eq=False)
class KFold(Ordered):
    """One fold of a source, or all others. Folds are disjoint, cover the source, and differ in size by at most 1.

    Args:
        folds: how many.
        fold: which one is held out, from 0.
        part: ``train``: all folds but that one; ``validation``: that one.
        seed: of the division; the plan's seed does not move it.
        order: of the selected entries.

    Example:
        >>> [KFold(folds=3, fold=fold, part="validation").entries(10).size for fold in range(3)]
        [3, 3, 4]
    """

    folds: int
    fold: int
    part: Part = "train"
    seed: int = 0

    def entries(self, length: int) -> Entries:
        """A stretch of one permutation, or what is around it."""
        first, last = self.fold * length // self.folds, (self.fold + 1) * length // self.folds
        return FoldEntries(length=length, first=first, last=last, outside=self.part == "train", seed=self.seed)

    def told(self) -> str:
        """All settings."""
        return f"fold {self.fold} of {self.folds} {self.part} seed {self.seed} {self.order.told()}"

    def problems(self, length: int) -> list[str]:
        """Numbers that do not fit."""
        found = super().problems(length)
        if not 2 <= self.folds <= length:
            found.append(f"folds={self.folds} must lie between 2 and the {length} entries")
        elif not 0 <= self.fold < self.folds:
            found.append(f"fold={self.fold}: there are the folds 0 to {self.folds - 1}")
        if self.part not in ("train", "validation"):
            found.append(f"part={self.part!r} is unknown; {nearest(self.part, ('train', 'validation'))}")
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Subset(Ordered):
    """Some entries of a source.

    Args:
        chosen: integers, each once; their order does not matter.
        order: of the selected entries.
    """

    chosen: NDArray[Any]

    def entries(self, length: int) -> Entries:
        """The list, sorted."""
        del length
        return ListedEntries(entries=np.sort(np.asarray(self.chosen, np.int64)))

    def told(self) -> str:
        """Order and the list's digest."""
        return f"subset {digest(np.sort(np.asarray(self.chosen, np.int64)))} {self.order.told()}"

    def problems(self, length: int) -> list[str]:
        """Entries that do not exist or come twice."""
        found, chosen = super().problems(length), np.asarray(self.chosen)
        if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
            return [*found, f"chosen of shape {chosen.shape} and type {chosen.dtype} must be a list of integers"]
        outside = chosen[(chosen < 0) | (chosen >= length)]
        if outside.size:
            found.append(f"chosen entry {outside[0]}: the source has the entries 0 to {length - 1}")
        if len(np.unique(chosen)) != len(chosen):
            found.append("chosen names an entry twice; use repeats for that")
        return found
