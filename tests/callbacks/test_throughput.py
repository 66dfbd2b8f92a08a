"""Speed and waiting, against a clock that is set by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from callback_toys import ToyLoader, ToyTask, make_trainer, val_loader
from lightning.pytorch import Callback, LightningModule, Trainer

from neurotrain.callbacks import MetricsCsv, RunCheckpoint, Throughput, read_metrics, throughput
from neurotrain.callbacks.pace import Pace, batch_size, clock_text


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter


class Spend(Callback):
    """Lets a second pass in each step, four in each validation batch and two in each saving."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        self.clock.now += 1.0

    def on_validation_batch_end(self, *args: object) -> None:
        self.clock.now += 4.0

    def on_save_checkpoint(self, *args: object) -> None:
        self.clock.now += 2.0


class SlowLoader(ToyLoader):
    """Needs three seconds for a batch."""

    clock: Clock

    def _pass(self, epoch: int, start: int) -> Any:  # noqa: ANN401
        for batch in super()._pass(epoch, start):
            self.clock.now += 3.0
            yield batch


@pytest.mark.parametrize("interruptions", [False, True])
def test_speed_and_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruptions: bool) -> None:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    loader = SlowLoader(batches=7)
    loader.clock = clock
    logger = MetricsCsv(directory=tmp_path)
    saving = [RunCheckpoint(every_n_steps=1)] if interruptions else []
    callbacks = [Throughput(every_n_steps=2), Spend(clock), *saving]
    settings = {"val_check_interval": 3} if interruptions else {"limit_val_batches": 0}
    trainer = make_trainer(
        tmp_path, callbacks, logger=logger, max_epochs=1, enable_checkpointing=interruptions, **settings
    )
    trainer.fit(ToyTask(), loader, val_loader())
    rows = [row for row in read_metrics(tmp_path / "metrics.csv") if "throughput/waiting_share" in row]
    if interruptions:
        assert rows == []  # saved after each step: no interval is free of it
    else:
        assert len(rows) == 3
        for row in rows:
            assert row["throughput/samples_per_second"] == pytest.approx(2 / 4)
            assert row["throughput/waiting_share"] == pytest.approx(3 / 4)


def test_batch_size() -> None:
    assert batch_size(torch.zeros(5, 2)) == 5
    assert batch_size(torch.tensor(1.0)) == 1
    assert batch_size((torch.zeros(3), torch.zeros(4))) == 3
    assert batch_size({"name": "x", "image": torch.zeros(4, 1)}) == 4
    assert batch_size({"id": ["a", "b"], "image": torch.zeros(4, 1)}) == 2
    assert batch_size([]) == batch_size("text") == batch_size(None) == batch_size({}) == 1


def test_pace_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    from neurotrain.callbacks import pace as module

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    pace = Pace(step=10)
    assert pace.texts(step=10, total=100) == []
    for _ in range(4):
        pace.count(samples=8)
    clock.now += 2.0
    assert pace.texts(step=14, total=100) == ["2 steps/s", "16 samples/s", "ETA 0:43"]  # 86 steps at 0.5 s
    assert pace.texts(step=14, total=math.inf) == ["2 steps/s", "16 samples/s"]
    pace.evaluation_begins()
    clock.now += 6.0
    pace.evaluation_ends()
    # The speed does not know of the evaluation, the time left does: 8 s for 4 steps.
    assert pace.texts(step=14, total=100) == ["2 steps/s", "16 samples/s", "ETA 2:52"]


def test_the_shown_speed_is_the_recent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from neurotrain.callbacks import pace as module

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    pace = Pace()
    step = 0
    for speed in [1] * 30 + [10] * 30:
        clock.now += 1.0
        step += speed
        text = pace.texts(step=step, total=math.inf)[0]
    assert text == "10 steps/s"


def test_clock_text_rounds_up_to_minutes() -> None:
    assert [clock_text(s) for s in (0, 0.4, 59.5, 3599.9, 86400)] == ["0:00", "0:00", "1:00", "1:00:00", "24:00:00"]


def test_refuses_senseless_settings() -> None:
    with pytest.raises(ValueError, match="every_n_steps=0"):
        Throughput(every_n_steps=0)
