"""The loader: shares of a plan, position, resuming, workers, errors."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import pytest
import torch
from torch import Tensor

from neurotrain.data import EpochPlan, PlannedBatches, PlannedLoader, SampleKey

Children = Callable[[], list[BaseProcess]]


class Recorded:
    """Index, epoch, position, a random number of the sample's own, and the worker's threads."""

    def __init__(self, plan: EpochPlan, broken: int | None = None) -> None:
        self.plan = plan
        self.broken = broken

    def load(self, key: SampleKey) -> Tensor:
        """Fails where it was told to."""
        if key.index == self.broken:
            raise OSError(f"sample {key.index} is broken")
        draw = int(torch.randint(10**6, (), generator=self.plan.generator(key)))
        return torch.tensor([*key, draw, torch.get_num_threads()])


def loader(plan: EpochPlan, *, broken: int | None = None, **settings: Any) -> PlannedLoader:
    settings = {"batch_size": 2, **settings}
    return PlannedLoader(dataset=Recorded(plan, broken), plan=plan, collate=torch.stack, **settings)


def read(batches: Any) -> list[list[list[int]]]:
    return [batch[:, :5].tolist() for batch in batches]


PLAN = EpochPlan(count=5, samples_per_epoch=11, seed=3)


@pytest.mark.parametrize("settings", [{"num_workers": 1}, {"num_workers": 2}, {"num_workers": 2, "prefetch": 1}])
def test_order_and_draws_do_not_depend_on_workers(settings: dict[str, int]) -> None:
    assert read(loader(PLAN, **settings)) == read(loader(PLAN))


@pytest.mark.parametrize("drop_last", [True, False])
def test_order_and_draws_do_not_depend_on_the_world_size(drop_last: bool) -> None:
    plan = EpochPlan(count=7, samples_per_epoch=26, seed=1)
    whole = read(loader(plan, batch_size=8, drop_last=drop_last))
    for world_size in (2, 4, 8):
        shares = [
            read(loader(plan, batch_size=8 // world_size, rank=rank, world_size=world_size, drop_last=drop_last))
            for rank in range(world_size)
        ]
        together = [
            sorted(itertools.chain.from_iterable(batches), key=lambda sample: sample[2])
            for batches in itertools.zip_longest(*shares, fillvalue=[])
        ]
        assert together == whole


def test_shares_are_disjoint_and_complete_in_evaluation() -> None:
    plan = EpochPlan(count=7, shuffle=False)
    parts = [PlannedBatches(plan=plan, batch_size=2, rank=rank, world_size=3, drop_last=False) for rank in range(3)]
    indices = [[[key.index for key in batch] for batch in part] for part in parts]
    assert indices == [[[0, 3], [6]], [[1, 4]], [[2, 5]]]
    assert [len(part) for part in parts] == [2, 1, 1]


def test_drops_the_partial_batch_only_when_told() -> None:
    assert len(loader(PLAN)) == 5
    assert [len(batch) for batch in loader(PLAN, drop_last=False)] == [2, 2, 2, 2, 2, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_resumes_at_every_batch(workers: int) -> None:
    loader_at_the_end = loader(PLAN)
    whole = read(loader_at_the_end)
    for consumed in range(6) if workers == 0 else (0, 3, 5):
        first = loader(PLAN, num_workers=workers)
        iterator = iter(first)
        start = [next(iterator) for _ in range(consumed)]
        state = first.state_dict()
        assert (state["epoch"], state["batch"]) == (0, consumed)  # however much the workers have prefetched
        second = loader(PLAN, num_workers=2 - workers)
        second.load_state_dict(state)
        assert second.state_dict() == state
        assert len(second) == 5
        second.set_epoch(0)
        assert read(start) + read(second) == whole
        records = loader_at_the_end.state_dict()["records"]
        assert second.state_dict() == {**state, "batch": 5, "records": records}


def test_resumes_on_another_number_of_ranks() -> None:
    plan = EpochPlan(count=9, samples_per_epoch=24, seed=5)
    first = loader(plan, batch_size=4, rank=1, world_size=2)
    iterator = iter(first)
    next(iterator)
    second = loader(plan, batch_size=8)
    second.load_state_dict(first.state_dict())
    assert read(second) == read(loader(plan, batch_size=8))[1:]


def test_a_position_is_used_once_and_in_its_own_epoch_only() -> None:
    state = {**loader(PLAN).state_dict(), "epoch": 2, "batch": 3}
    same = loader(PLAN)
    same.load_state_dict(state)
    assert [len(read(same)), len(read(same))] == [2, 5]
    other = loader(PLAN)
    other.load_state_dict(state)
    other.set_epoch(3)
    assert other.state_dict()["batch"] == 0
    expected = loader(PLAN)
    expected.set_epoch(3)
    assert read(other) == read(expected)


def test_resuming_reads_nothing_of_what_came_before() -> None:
    resumed = loader(PLAN, broken=int(PLAN.order(0)[0]), batch_size=1)
    places = [place for place, index in enumerate(PLAN.order(0)) if index == PLAN.order(0)[0]]
    resumed.load_state_dict({**resumed.state_dict(), "batch": places[-1] + 1})
    assert len(read(resumed)) == 11 - places[-1] - 1


def test_the_epoch_may_be_told_after_the_iterator_was_made() -> None:
    for workers in (0, 2):
        told = loader(PLAN, num_workers=workers)
        iterator = iter(told)
        told.set_epoch(4)
        assert {sample[1] for batch in read(iterator) for sample in batch} == {4}


def test_an_epoch_announced_after_resuming_without_a_batch_did_not_happen() -> None:
    resumed = loader(PLAN)
    resumed.load_state_dict({**resumed.state_dict(), "batch": 5})
    seen = []
    for epoch in (1, 2, 3, 4):
        resumed.set_epoch(epoch)
        if epoch > 1:
            seen += read(resumed)
    plain = loader(PLAN)
    expected = []
    for epoch in (1, 2, 3):
        plain.set_epoch(epoch)
        expected += read(plain)
    assert seen == expected
    again = loader(PLAN)
    again.load_state_dict({**resumed.state_dict(), "batch": 2})
    again.set_epoch(4)
    assert read(again) == expected[-3:]


def test_persistent_workers_serve_every_epoch() -> None:
    kept, plain = loader(PLAN, num_workers=2, persistent_workers=True), loader(PLAN)
    next(iter(kept))  # an epoch that is left early
    for epoch in range(3):
        kept.set_epoch(epoch)
        plain.set_epoch(epoch)
        assert read(kept) == read(plain)


@pytest.mark.parametrize("workers", [0, 1])
def test_leaves_the_global_random_state_alone(workers: int) -> None:
    before = torch.get_rng_state()
    read(loader(PLAN, num_workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_run_on_one_thread() -> None:
    assert {int(batch[0, 5]) for batch in loader(PLAN, num_workers=1)} == {1}


@pytest.mark.parametrize("start_method", ["fork", "forkserver"])
def test_workers_start_as_told(start_method: str, children: Children) -> None:
    told = loader(PLAN, num_workers=1, start_method=start_method)
    iterator = iter(told)
    next(iterator)
    (worker,) = children()
    assert type(worker)._start_method == start_method  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    assert read(iterator) == read(loader(PLAN))[1:]
    assert not children()


def test_an_error_in_a_worker_arrives_with_its_traceback() -> None:
    broken = loader(PLAN, num_workers=2, broken=4)
    with pytest.raises(OSError, match=r"(?s)sample 4 is broken.*in worker \d.*index 4.*Traceback.*in load"):
        read(broken)
    broken.close()


class Stuck(Recorded):
    """Sleeps, or dies, at one sample."""

    def __init__(self, plan: EpochPlan, at: int, *, die: bool) -> None:
        super().__init__(plan)
        self.at, self.die = at, die

    def load(self, key: SampleKey) -> Tensor:
        """As told."""
        if key.index == self.at:
            os.kill(os.getpid(), signal.SIGKILL) if self.die else time.sleep(1.5)
        return super().load(key)


@pytest.mark.parametrize(
    ("die", "timeout", "message"),
    [(False, 0.5, r"timed out after 0\.5 seconds"), (True, 60.0, "killed by signal|exited unexpectedly")],
)
def test_a_worker_that_hangs_or_dies_ends_the_pass(die: bool, timeout: float, message: str) -> None:
    stuck = PlannedLoader(
        dataset=Stuck(PLAN, 2, die=die), plan=PLAN, batch_size=2, collate=torch.stack, num_workers=1, timeout=timeout
    )
    with pytest.raises(RuntimeError, match=message):
        read(stuck)
    stuck.close()


@pytest.mark.parametrize("persistent_workers", [True, False])
def test_close_ends_the_workers_and_a_new_pass_starts_others(persistent_workers: bool, children: Children) -> None:
    closed = loader(PLAN, num_workers=2, persistent_workers=persistent_workers)
    iterator = iter(closed)
    next(iterator)
    workers = children()
    assert len(workers) == 2
    closed.close()
    assert not any(worker.is_alive() for worker in workers)
    assert read(closed) == read(loader(PLAN))
    closed.close()


@pytest.mark.parametrize(
    ("name", "plan", "settings"),
    [
        ("seed", EpochPlan(count=5, samples_per_epoch=11, seed=4), {}),
        ("count", EpochPlan(count=6, samples_per_epoch=11, seed=3), {}),
        ("samples_per_epoch", EpochPlan(count=5, samples_per_epoch=12, seed=3), {}),
        ("plan", EpochPlan(count=5, samples_per_epoch=11, seed=3, shuffle=False), {}),
        ("global_batch", PLAN, {"batch_size": 3}),
        ("drop_last", PLAN, {"drop_last": False}),
    ],
)
def test_refuses_to_continue_another_order(name: str, plan: EpochPlan, settings: dict[str, Any]) -> None:
    state = loader(PLAN).state_dict()
    other = loader(plan, **settings)
    with pytest.raises(
        ValueError, match=f"checkpoint has {name}={state[name]!r}.*has {name}={other.state_dict()[name]!r}"
    ):
        other.load_state_dict(state)


def test_state_is_plain_values() -> None:
    state = loader(PLAN).state_dict()
    assert json.loads(json.dumps(state)) == state


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 12}, "batch_size=12 on 1 rank.*at least 12 samples per epoch, the plan has 11"),
        ({"batch_size": 4, "world_size": 3}, "at least 12 samples"),
        ({"batch_size": 1, "world_size": 12, "drop_last": False}, "at least 12 samples"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"rank": 2, "world_size": 2}, "rank=2: world_size=2"),
    ],
)
def test_refuses_what_cannot_be_dealt_out(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader(PLAN, **settings)
