"""Held-out parts and folds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from sklearn.model_selection import GroupKFold

from neurotrain.data.datasets import Record, hold_out, k_fold


def _records(*sizes: int) -> list[Record]:
    """One subject for each size; a size of 1 has no group."""
    return [
        Record(id=f"{number:03d}-{image}", image=Path("x"), group=f"g{number}" if size > 1 else None)
        for number, size in enumerate(sizes)
        for image in range(size)
    ]


def _subject(record: Record) -> str:
    return record.id.split("-")[0]


@pytest.mark.parametrize("sizes", [(1,) * 20, (2,) * 14, (2, 3, 1, 4, 2, 1)])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_hold_out_is_exact_disjoint_and_whole(sizes: tuple[int, ...], seed: int) -> None:
    records = _records(*sizes)
    split = hold_out(records, count=4, seed=seed)
    assert len(split.held_out) == 4
    assert sorted((*split.train, *split.held_out), key=lambda record: record.id) == records
    assert not {_subject(record) for record in split.train} & {_subject(record) for record in split.held_out}
    shuffled = random.Random(seed).sample(records, len(records))
    assert hold_out(shuffled, count=4, seed=seed) == split


def test_hold_out_depends_on_the_seed() -> None:
    records = _records(*(1,) * 20)
    drawn = {tuple(record.id for record in hold_out(records, count=4, seed=seed).held_out) for seed in range(8)}
    assert len(drawn) > 5


def test_hold_out_finds_the_only_combination() -> None:
    for seed in range(10):
        held = hold_out(_records(4, 3, 7, 9), count=13, seed=seed).held_out
        assert {_subject(record) for record in held} == {"000", "003"}


@pytest.mark.parametrize(
    ("sizes", "count", "message"),
    [
        ((1, 1), 0, "nearest: 1"),
        ((1, 1), 2, "nearest: 1"),
        ((2, 2, 2), 3, r"3 groups\) has that many images; nearest: [24]"),
        ((4,), 2, "all records are of one subject"),
        ((), 1, "0 records"),
        ((1,), 1, "both parts need at least one"),
    ],
)
def test_hold_out_refuses(sizes: tuple[int, ...], count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hold_out(_records(*sizes), count=count, seed=0)


@pytest.mark.parametrize("sizes", [(1,) * 7, (2,) * 14, (2, 3, 1, 4, 2, 1)])
def test_folds_cover_everything_once(sizes: tuple[int, ...]) -> None:
    records = _records(*sizes)
    splits = [k_fold(list(reversed(records)), folds=3, fold=fold) for fold in range(3)]
    held = [record for split in splits for record in split.held_out]
    assert sorted(held, key=lambda record: record.id) == records
    for split in splits:
        assert split.train
        assert {_subject(record) for record in split.train}.isdisjoint(_subject(record) for record in split.held_out)


def test_folds_are_as_balanced_as_sklearns() -> None:
    records = _records(5, 2, 3, 1, 4, 2, 1, 6, 2)
    groups = [_subject(record) for record in records]
    theirs = sorted(len(test) for _, test in GroupKFold(4).split(records, groups=groups))
    ours = sorted(len(k_fold(records, folds=4, fold=fold).held_out) for fold in range(4))
    assert ours == theirs


@pytest.mark.parametrize(
    ("folds", "fold", "message"),
    [
        (1, 0, "folds=1: .*nearest: 2"),
        (5, 0, "folds=5: .*nearest: 3"),
        (3, 3, "fold=3: .*nearest: 2"),
        (3, -1, "nearest: 0"),
    ],
)
def test_folds_refuse(folds: int, fold: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        k_fold(_records(1, 1, 2), folds=folds, fold=fold)


def test_repeated_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="1 ids appear twice: 000-0"):
        k_fold(_records(1, 1) + _records(1), folds=2, fold=0)
