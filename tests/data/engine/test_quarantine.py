"""Bad samples: retried, replaced the same way everywhere, counted, written down once, and too many of them."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_toys import PLAN, Moody, Toy, plain

from neurotrain.data.engine import (
    LEDGER,
    BadSample,
    Ledger,
    LoaderError,
    Quarantine,
    TooManyBadSamplesError,
    entries,
    merge_ledgers,
    replacement,
)
from neurotrain.data.loader import PlannedLoader
from neurotrain.data.plan import SampleKey

LENIENT = Quarantine(max_bad_share=1.0, retries=2, backoff=0.0)
ORDER = PLAN.order(0).tolist()
BAD = [2, 7]
BAD_POSITIONS = [position for position, index in enumerate(ORDER) if index in BAD]


def loader(source: Any, **settings: Any) -> PlannedLoader:
    return PlannedLoader(**{"dataset": source, "plan": PLAN, "batch_size": 4, "quarantine": LENIENT, **settings})


def ids(batches: Any) -> list[str]:
    return [name for batch in batches for name in batch["id"]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("collate", [None, list])
def test_bad_samples_are_replaced_alike_everywhere_and_named(workers: int, collate: Any) -> None:
    told = loader(Moody(bad=BAD), num_workers=workers, collate=collate)
    batches = list(told)
    got = ids(batches) if collate is None else [sample["id"] for batch in batches for sample in batch]
    for position, (index, name) in enumerate(zip(ORDER, got, strict=True)):
        assert (name == str(index)) == (position not in BAD_POSITIONS)
        assert int(name) not in BAD
    found = told.bad_samples()
    assert [one.position for one in found] == BAD_POSITIONS
    assert [one.replacement for one in found] == [got[position] for position in BAD_POSITIONS]
    assert {(one.id, one.uri, one.source) for one in found} == {(str(bad), f"toy://0/{bad}", "a") for bad in BAD}
    assert all(one.reason == f"ValueError: entry {one.id} is truncated" for one in found)
    assert [one.step for one in found] == [position // 4 for position in BAD_POSITIONS]
    assert got == ids(list(loader(Moody(bad=BAD))))


def test_the_replacement_is_another_entry_and_uniform() -> None:
    draws = Counter(
        replacement(seed=1, epoch=0, position=position, attempt=0, count=5, bad=3) for position in range(4000)
    )
    assert set(draws) == {0, 1, 2, 4}
    assert all(abs(count - 1000) < 120 for count in draws.values())  # four standard deviations
    assert [replacement(seed=1, epoch=0, position=9, attempt=a, count=1000, bad=0) for a in (0, 1)] == [431, 389]


def test_transient_errors_are_retried_and_leave_no_trace_in_the_data() -> None:
    told = loader(Moody(shaky={4: 2}))
    assert ids(told) == list(map(str, ORDER))
    counts = told.statistics()
    assert (counts["retried"], counts["replaced"], counts["read"]) == (2, 0, 24)
    often = loader(Moody(shaky={4: 3}))
    assert "4" not in ids(often)[: ORDER.index(4) + 1]
    assert often.bad_samples()[0].reason == "TransientError: toy://0/4: busy"


def test_counts_add_up_and_are_resumed() -> None:
    settings = {"batch_size": 5}
    whole = loader(Moody(bad=BAD), **settings)
    list(whole)
    expected = whole.statistics()
    in_full = sum(position < 20 for position in BAD_POSITIONS)
    assert expected == {
        "read": 20 - in_full,
        "replaced": in_full,
        "skipped": 4,
        "retried": 0,
        "batches": 4,
        "planned": 24,
    }
    first = loader(Moody(bad=BAD), num_workers=2, **settings)
    iterator = iter(first)
    next(iterator)
    next(iterator)
    state = json.loads(json.dumps(first.state_dict()))
    second = loader(Moody(bad=BAD), **settings)
    second.load_state_dict(state)
    list(second)
    assert second.statistics() == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_mistakes_of_code_are_not_taken_for_bad_samples(workers: int) -> None:
    class Wrong(Toy):
        def load(self, key: SampleKey) -> dict[str, Any]:
            try:
                return undefined  # type: ignore[name-defined]
            except NameError as error:
                raise RuntimeError("could not load") from error

    with pytest.raises(RuntimeError, match="could not load"):
        next(iter(loader(Wrong(), num_workers=workers)))


def test_too_many_bad_samples_end_the_run_with_the_list(tmp_path: Path) -> None:
    policy = Quarantine(max_bad_share=2 / 24)
    told = loader(Moody(bad=BAD), quarantine=policy, ledger=tmp_path, batch_size=1, num_workers=1)
    assert len(BAD_POSITIONS) > 2
    with pytest.raises(TooManyBadSamplesError, match=r"3 bad samples among the 24 .*max_bad_share=0\.0833") as caught:
        list(told)
    assert [one.position for one in caught.value.bad] == BAD_POSITIONS[:3]
    assert all(f"a/{one.id} (toy://0/{one.id}): ValueError" in str(caught.value) for one in caught.value.bad)
    assert len(entries(tmp_path / "quarantine.rank0.jsonl")) == 3


def test_gives_up_where_no_candidate_can_be_loaded() -> None:
    with pytest.raises(LoaderError, match="is bad, and so are the 16 candidates") as caught:
        next(iter(loader(Moody(bad=range(10)))))
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(LoaderError, match="candidates"):
        next(iter(loader(Moody(bad=range(10), entries=1))))


def test_a_replacement_has_the_shape_of_its_batch() -> None:
    class Two(Moody):
        """Odd entries are larger; the plan below asks for even ones only."""

        def load(self, key: SampleKey) -> dict[str, Any]:
            sample = super().load(key)
            return {**sample, "image": np.zeros((4 + key.index % 2, 4), np.uint8)}

    class Even:
        def length(self, epoch: int) -> int:
            return 8

        def block(self, *, epoch: int, first: int, last: int) -> Any:
            index = np.arange(first, last) * 2 % 10
            return np.zeros(len(index), np.int32), index

        def fingerprint(self) -> str:
            return "even"

    told = loader(Two(bad=[0]), plan=Even())  # the first sample of the first batch is bad
    names = ids(told)
    assert all(int(name) % 2 == 0 for name in names)
    assert [one.position for one in told.bad_samples()] == [0, 5]


def test_the_ledger_is_written_once_however_often_the_run_is_killed(tmp_path: Path) -> None:
    whole = loader(Moody(bad=BAD), ledger=tmp_path / "whole")
    for epoch in (0, 1):
        whole.set_epoch(epoch)
        list(whole)
    expected = merge_ledgers(tmp_path / "whole").read_text()
    assert expected.count("\n") == len(whole.bad_samples())
    folder = tmp_path / "killed"
    killed = loader(Moody(bad=BAD), ledger=folder, num_workers=1)
    iterator = iter(killed)
    next(iterator)
    state = killed.state_dict()
    for _ in range(3):  # past the checkpoint, then killed while it writes
        next(iterator)
    with (folder / "quarantine.rank0.jsonl").open("a") as file:
        file.write('{"id": "unfini')
    for _ in range(2):
        resumed = loader(Moody(bad=BAD), ledger=folder)
        resumed.load_state_dict(state)
        resumed.set_epoch(0)
        list(resumed)
        resumed.set_epoch(1)
        list(resumed)
        assert merge_ledgers(folder).read_text() == expected


def test_ranks_write_apart_and_are_merged_also_when_there_are_fewer_later(tmp_path: Path) -> None:
    for rank in range(2):
        told = loader(Moody(bad=BAD), ledger=tmp_path, batch_size=2, rank=rank, world_size=2)
        iterator = iter(told)
        for _ in range(4):
            next(iterator)
        if rank == 0:
            state = told.state_dict()
    alone = loader(Moody(bad=BAD), ledger=tmp_path, batch_size=4)
    alone.load_state_dict({**state, "batch": 2})
    list(alone)
    merged = entries(merge_ledgers(tmp_path))
    assert [entry["position"] for entry in merged] == BAD_POSITIONS
    assert (tmp_path / LEDGER).exists()


def test_a_fresh_run_does_not_keep_the_entries_of_an_older_one(tmp_path: Path) -> None:
    old = BadSample(id="x", uri="u", source="a", reason="r", epoch=3, position=1, step=0, replacement="y")
    Ledger(folder=tmp_path).append([old])
    list(loader(Toy(), ledger=tmp_path))
    assert entries(merge_ledgers(tmp_path)) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quarantine": None, "ledger": Path("x")}, "ledger=x has no effect without quarantine"),
        ({"dataset": type("Nameless", (), {"load": lambda self, key: {}})()}, "identify.*count.*Nameless lacks"),
    ],
)
def test_refuses_what_has_no_effect(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader(**{"source": Toy(), **settings})


@pytest.mark.parametrize(
    "settings", [{"max_bad_share": 1.1}, {"retries": -1}, {"backoff": -1.0}, {"candidates": 0}], ids=str
)
def test_refuses_numbers_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Quarantine(**settings)


def test_without_a_policy_the_first_bad_sample_is_an_error() -> None:
    with pytest.raises(ValueError, match="is truncated"):
        list(loader(Moody(bad=BAD), quarantine=None))


def test_good_data_is_untouched_by_the_policy() -> None:
    strict = [plain(batch) for batch in loader(Toy(), quarantine=None)]
    assert [plain(batch) for batch in loader(Toy())] == strict
