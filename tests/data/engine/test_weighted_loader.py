"""Several sources under a Trainer and alone; what the loader tells about itself."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_toys import Moody, Toy
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from neurotrain.data.engine import Quarantine
from neurotrain.data.loader import PlannedLoader
from neurotrain.data.plan import PlanBlock, SampleKey
from neurotrain.data.weighted import WeightedCombinedLoader

lightning_may_warn = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


class Mixture:
    """Three of source 0, then one of source 1, over again; the entries change from epoch to epoch."""

    def length(self, epoch: int) -> int:
        return 22

    def block(self, *, epoch: int, first: int, last: int) -> PlanBlock:
        position = np.arange(first, last)
        return PlanBlock((position % 4 == 3).astype(np.int32), (position * 3 + epoch) % 10)

    def fingerprint(self) -> str:
        return "three to one"


def child(workers: int = 0, **settings: Any) -> PlannedLoader:
    given = {"dataset": Toy(), "plan": Mixture(), "batch_size": 4, "num_workers": workers, **settings}
    return PlannedLoader(**given)


def read(batches: Any) -> list[tuple[int, list[str], list[str]]]:
    return [(number, batch["id"], batch["source"]) for batch, number, _ in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_alone_it_is_a_combined_loader_over_the_mixture(workers: int) -> None:
    combined = WeightedCombinedLoader(loader=child(workers, persistent_workers=workers > 0))
    for epoch in range(2):
        combined.loader.set_epoch(epoch)
        batches = read(combined)
        assert [number for number, _, _ in batches] == [0, 1, 2, 3, 4]
        assert all(sources == ["a", "a", "a", "b"] for _, _, sources in batches)
        assert batches[1][1] == [str((position * 3 + epoch) % 10) for position in range(4, 8)]
    assert read(combined) == batches  # once more, without being told an epoch
    combined.reset()


def test_resumed_alone_it_numbers_batches_as_the_epoch_does_and_keeps_its_length() -> None:
    first = WeightedCombinedLoader(loader=child())
    iterator = iter(first)
    start = [next(iterator), next(iterator)]
    second = WeightedCombinedLoader(loader=child(2))
    second._load_state_dicts(first._state_dicts())
    assert len(second) == 5
    assert read(start) + read(second) == read(WeightedCombinedLoader(loader=child()))


def test_a_limit_ends_the_pass() -> None:
    combined = WeightedCombinedLoader(loader=child())
    combined.limits = 3
    assert len(combined) == 3
    assert [number for number, _, _ in read(combined)] == [0, 1, 2]


def test_batches_must_tell_their_sources() -> None:
    class Silent(Toy):
        def load(self, key: SampleKey) -> dict[str, Any]:
            return {"id": str(key.index)}

    with pytest.raises(ValueError, match="a field 'source'"):
        next(iter(WeightedCombinedLoader(loader=child(dataset=Silent()))))


class Seen(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.keys: list[list[tuple[int, ...]]] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self.keys.append(batch["key"])
        return self.weight * 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Interruption(Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise InterruptedError


def fit(workers: int, callback: Callback | None = None, resume: Path | None = None, **settings: Any) -> Seen:
    model = Seen()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        max_epochs=3,
        callbacks=[callback] if callback else [],
        **settings,
    )
    loader = child(workers, persistent_workers=workers > 0)
    try:
        trainer.fit(
            model, WeightedCombinedLoader(loader=loader), ckpt_path=resume, weights_only=True if resume else None
        )
    except InterruptedError:
        loader.close()
    return model


@lightning_may_warn
@pytest.mark.parametrize(("step", "workers"), [(1, (0, 2)), (3, (2, 0)), (5, (0, 0)), (7, (2, 2))])
def test_a_resumed_run_sees_what_the_uninterrupted_one_saw(step: int, workers: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "interrupted.ckpt"
    before = fit(workers[0], Interruption(step, path)).keys
    after = fit(workers[1], resume=path).keys
    whole = fit(0).keys
    assert len(whole) == 15
    assert before + after == whole
    assert [keys[0][1] for keys in whole] == [0] * 5 + [1] * 5 + [2] * 5


@lightning_may_warn
def test_lightnings_limit_holds_for_each_epoch() -> None:
    assert [keys[0][2] for keys in fit(0, limit_train_batches=2).keys] == [0, 4] * 3


@lightning_may_warn
def test_overfitting_is_left_to_the_plan() -> None:
    assert [keys[0][2] for keys in fit(0, overfit_batches=2).keys] == [0, 4] * 3


@pytest.mark.parametrize("workers", [0, 2])
def test_telemetry_tells_of_the_time_since_it_was_asked_last(workers: int) -> None:
    told = child(
        workers,
        dataset=Moody(slow=dict.fromkeys(range(10), 0.002), bad=[3]),
        quarantine=Quarantine(max_bad_share=1),
        sources=("first", "second", "third"),
        targets=lambda epoch, positions: (0.75, 0.25, 0.0),
        persistent_workers=workers > 0,
    )
    iterator = iter(told)
    for _ in range(3):
        next(iterator)
    found = told.telemetry()
    assert found["batches"] == 3
    assert 0 < found["wait_share"] <= 1
    assert found["wait_seconds"] > 0.004
    assert found["share"] == found["target"] == {"first": 0.75, "second": 0.25, "third": 0.0}
    assert found["replaced"] == told.statistics()["replaced"] == 2
    assert found["counters"]["loads"] >= 14
    assert found["rss_bytes"] > 50e6 * (1 + workers)
    assert 0 <= found["queue_depth"] <= 4
    assert told.telemetry()["batches"] == 0
    list(iterator)
    told.set_epoch(1)
    list(told)
    assert told.telemetry()["counters"]["loads"] >= 40  # workers that were kept, or restarted, count on
    told.close()


def test_shares_are_those_of_all_ranks_and_survive_a_resume() -> None:
    first = child(batch_size=1, rank=0, world_size=4)
    iterator = iter(first)
    next(iterator)
    assert first.telemetry()["share"] == {"0": 0.75, "1": 0.25}
    second = child(batch_size=2, rank=0, world_size=2)
    second.load_state_dict(first.state_dict())
    next(iter(second))
    assert second.telemetry()["share"] == {"0": 0.75, "1": 0.25}
    assert second.statistics()["read"] == 3


def test_resuming_asks_the_plan_for_nothing_that_lies_behind() -> None:
    class Far(Mixture):
        asked: list[int]

        def length(self, epoch: int) -> int:
            return 4 * 10**7

        def block(self, *, epoch: int, first: int, last: int) -> PlanBlock:
            self.asked.append(first)
            return super().block(epoch=epoch, first=first, last=last)

    plan = Far()
    plan.asked = []
    told = child(plan=plan)
    told.load_state_dict({**told.state_dict(), "batch": 10**7 - 1})
    assert len(list(told)) == 1
    assert plan.asked == [4 * (10**7 - 1)]
