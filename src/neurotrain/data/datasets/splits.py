"""Splitting records into training and validation: deterministic, disjoint, a subject never on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch


class Identified(Protocol):
    """What can be split: a record of a dataset, an entry of a source."""

    @property
    def id(self) -> str:
        """Unique among those that are split together."""
        ...

    @property
    def group(self) -> str | None:
        """Subject that must not be on both sides; None for one of its own."""
        ...


RecordT = TypeVar("RecordT", bound=Identified)


class RecordSplit(NamedTuple, Generic[RecordT]):
    """Two disjoint parts of the records, each sorted by id.

    Attributes:
        train: what to learn from.
        held_out: what to validate on.
    """

    train: tuple[RecordT, ...]
    held_out: tuple[RecordT, ...]


def hold_out(records: Sequence[RecordT], *, count: int, seed: int) -> RecordSplit[RecordT]:
    """Hold out ``count`` images, drawn by subject.

    The draw depends on the ids, the groups, ``count`` and ``seed`` alone, not on the order of ``records``. Subjects
    come in a random order; the first combination of them (in that order) that sums up to ``count`` is taken.

    Args:
        records: of one dataset; those of one ``group`` stay together.
        count: images to hold out, at least 1 and fewer than all.
        seed: of the draw.

    Returns:
        Training records and the held-out ones.

    Raises:
        ValueError: if either part would be empty, no set of whole subjects has ``count`` images, or ids repeat.

    Example:
        >>> from pathlib import Path
        >>> from neurotrain.data.datasets import Record
        >>> records = [Record(id=f"{child}{eye}", image=Path("x"), group=child) for child in "123" for eye in "LR"]
        >>> [record.id for record in hold_out(records, count=2, seed=0).held_out]
        ['3L', '3R']
    """
    groups = _groups(records)
    if not 1 <= count < len(records):
        near = min(max(count, 1), max(len(records) - 1, 1))
        raise ValueError(f"count={count}: {len(records)} records, both parts need at least one; nearest: {near}")
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
    # Subset sum: for each reachable size the group that reached it first and the size before; a chain never takes a
    # group twice, because a size is entered only out of sizes that earlier groups reached.
    reached: dict[int, tuple[int, int]] = {0: (-1, -1)}
    for group in order:
        for size in sorted(reached, reverse=True):
            total = size + len(groups[group])
            if total <= len(records) and total not in reached:
                reached[total] = (group, size)
        if count in reached:
            break
    if count not in reached:
        near = min((size for size in reached if 0 < size < len(records)), key=lambda size: abs(size - count), default=0)
        raise ValueError(
            f"count={count}: no set of whole subjects ({len(groups)} groups) has that many images; "
            + (f"nearest: {near}" if near else "all records are of one subject")
        )
    held: set[str] = set()
    while count:
        group, count = reached[count]
        held.update(record.id for record in groups[group])
    return _parted(records, held)


def k_fold(records: Sequence[RecordT], *, folds: int, fold: int) -> RecordSplit[RecordT]:
    """One of ``folds`` cross-validation splits; each record is held out in exactly one of them.

    Subjects go, the largest first and then in the order of their names, each to the fold that has the fewest images.

    Args:
        records: of one dataset; those of one ``group`` stay together.
        folds: number of folds, from 2 to the number of subjects.
        fold: which one is held out, from 0.

    Returns:
        Training records and the held-out ones.

    Raises:
        ValueError: if ``folds`` or ``fold`` is out of range, or ids repeat.

    Example:
        >>> from pathlib import Path
        >>> from neurotrain.data.datasets import Record
        >>> records = [Record(id=str(number), image=Path("x")) for number in range(5)]
        >>> [[record.id for record in k_fold(records, folds=2, fold=fold).held_out] for fold in (0, 1)]
        [['0', '2', '4'], ['1', '3']]
    """
    groups = _groups(records)
    if not 2 <= folds <= len(groups):
        near = f"nearest: {min(max(folds, 2), len(groups))}" if len(groups) >= 2 else "at least 2 subjects are needed"
        raise ValueError(f"folds={folds}: {len(groups)} subjects in {len(records)} records; {near}")
    if not 0 <= fold < folds:
        raise ValueError(
            f"fold={fold}: folds are counted from 0 to {folds - 1}; nearest: {min(max(fold, 0), folds - 1)}"
        )
    parts: list[list[RecordT]] = [[] for _ in range(folds)]
    for group in sorted(groups, key=len, reverse=True):
        min(parts, key=len).extend(group)
    return _parted(records, {record.id for record in parts[fold]})


def _groups(records: Sequence[RecordT]) -> list[list[RecordT]]:
    """Records by subject, sorted by id inside and by the first id outside."""
    ordered = sorted(records, key=lambda record: record.id)
    repeated = sorted({one.id for one, other in pairwise(ordered) if one.id == other.id})
    if repeated:
        raise ValueError(f"records: {len(repeated)} ids appear twice: {', '.join(repeated[:10])}")
    groups: dict[tuple[str, str], list[RecordT]] = {}
    for record in ordered:
        key = ("id", record.id) if record.group is None else ("group", record.group)
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def _parted(records: Sequence[RecordT], held: set[str]) -> RecordSplit[RecordT]:
    ordered = sorted(records, key=lambda record: record.id)
    return RecordSplit(
        train=tuple(record for record in ordered if record.id not in held),
        held_out=tuple(record for record in ordered if record.id in held),
    )
