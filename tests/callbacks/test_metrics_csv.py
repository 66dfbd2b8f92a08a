"""The table of metrics: one row a step, growing columns, and whole lines whatever happens."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import pytest
from callback_toys import Fixed, ToyLoader, ToyTask, make_trainer, seed, val_loader
from lightning.pytorch.callbacks import LearningRateMonitor

from neurotrain.callbacks import MetricsCsv, RunCheckpoint, read_metrics


def test_a_run_logs_by_optimizer_steps(tmp_path: Path) -> None:
    seed()
    logger = MetricsCsv(directory=tmp_path)
    task = ToyTask()
    trainer = make_trainer(tmp_path, [RunCheckpoint()], logger=logger, max_epochs=2, log_every_n_steps=2)
    trainer.fit(task, ToyLoader(batches=4), val_loader(1))
    trainer.test(task, Fixed(val_loader(1).batches), verbose=False)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 8]
    assert [row["epoch"] for row in rows] == [0, 0, 1, 1, 2]
    assert [set(row) - {"step", "epoch"} for row in rows] == [
        {"train/loss"},
        {"train/loss", "val/score"},
        {"train/loss"},
        {"train/loss", "val/score"},
        {"test/weight"},
    ]
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == "step,epoch,train/loss,val/score,test/weight"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "metrics.csv"]


def test_steps_are_optimizer_steps_under_accumulation(tmp_path: Path) -> None:
    logger = MetricsCsv(directory=tmp_path)
    callbacks = [RunCheckpoint(), LearningRateMonitor()]
    trainer = make_trainer(tmp_path, callbacks, logger=logger, max_epochs=1, accumulate_grad_batches=2)
    trainer.fit(ToyTask(), ToyLoader(batches=4), val_loader(1))
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2]
    assert [row["step"] for row in rows if "val/score" in row] == [2]


def test_rows_wait_and_are_flushed_in_whole_lines(tmp_path: Path) -> None:
    patient = MetricsCsv(directory=tmp_path / "a", flush_seconds=3600)
    patient.log_metrics({"x": 1.0}, step=1)
    assert not (tmp_path / "a").exists()
    patient.finalize("failed")
    assert (tmp_path / "a" / "metrics.csv").read_text() == "step,epoch,x\n1,,1.0\n"
    hasty = MetricsCsv(directory=tmp_path / "b", flush_seconds=0)
    for step in range(3):
        hasty.log_metrics({"x": float(step), "epoch": 0}, step=step)
        assert len(read_metrics(hasty.path)) == step  # the row of the present step may still grow


def test_same_step_shares_a_row_until_a_value_would_be_lost(tmp_path: Path) -> None:
    logger = MetricsCsv(directory=tmp_path)
    logger.log_metrics({"a": 1.0, "epoch": 0}, step=3)
    logger.log_metrics({"b": 2.0, "epoch": 0}, step=3)
    logger.log_metrics({"a": 5.0, "epoch": 0}, step=3)
    logger.log_metrics({"b": 6.0, "epoch": 1}, step=3)
    logger.flush()
    assert (tmp_path / "metrics.csv").read_text() == "step,epoch,a,b\n3,0,1.0,2.0\n3,0,5.0,\n3,1,,6.0\n"


def test_new_columns_keep_what_is_there_and_leave_no_other_file(tmp_path: Path) -> None:
    logger = MetricsCsv(directory=tmp_path, flush_seconds=0)
    logger.log_metrics({"loss": 0.1 + 0.2}, step=1)
    logger.log_metrics({'odd, "name"': math.nan}, step=2)
    logger.log_metrics({"loss": math.inf}, step=3)
    logger.flush()
    rows = read_metrics(tmp_path / "metrics.csv")
    assert rows[0] == {"step": 1, "loss": 0.1 + 0.2}
    assert math.isnan(rows[1]['odd, "name"'])
    assert rows[2] == {"step": 3, "loss": math.inf}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_goes_on_with_a_file_and_cuts_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch,loss\n1,0,0.5\n2,0,0.2")
    assert read_metrics(path) == [{"step": 1, "epoch": 0, "loss": 0.5}]
    logger = MetricsCsv(directory=tmp_path)
    logger.log_metrics({"loss": 0.25}, step=2)
    logger.flush()
    assert path.read_text() == "step,epoch,loss\n1,0,0.5\n2,,0.25\n"


def test_cut(tmp_path: Path) -> None:
    logger = MetricsCsv(directory=tmp_path, flush_seconds=3600)
    for step in (1, 2, 3):
        logger.log_metrics({"loss": float(step)}, step=step)
    logger.flush()
    logger.log_metrics({"loss": 4.0}, step=4)
    logger.cut(2)
    logger.log_metrics({"loss": 30.0}, step=3)
    logger.flush()
    assert [row["loss"] for row in read_metrics(logger.path)] == [1.0, 2.0, 30.0]
    fresh = MetricsCsv(directory=tmp_path / "new")
    fresh.cut(5)
    assert not fresh.path.exists()
    logger.path.write_text("step,epo")
    logger.cut(2)
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.flush()
    assert read_metrics(logger.path) == [{"step": 1, "loss": 1.0}]


def test_a_write_that_broke_off_is_mended(tmp_path: Path) -> None:
    logger = MetricsCsv(directory=tmp_path, flush_seconds=3600)
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.flush()
    with logger.path.open("a") as file:
        file.write("2,,0.")  # as a full disk would leave it
    logger._columns = None
    logger.log_metrics({"loss": 2.0}, step=2)
    logger.flush()
    assert [row["loss"] for row in read_metrics(logger.path)] == [1.0, 2.0]


def test_refuses_negative_time_and_ignores_hyperparameters(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="flush_seconds=-1"):
        MetricsCsv(directory=tmp_path, flush_seconds=-1)
    logger = MetricsCsv(directory=tmp_path)
    logger.log_hyperparams({"lr": 1})
    logger.finalize("success")
    assert list(tmp_path.iterdir()) == []
    assert (logger.name, logger.version, logger.save_dir, logger.log_dir) == ("", "", str(tmp_path), str(tmp_path))


def test_rows_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    logger = MetricsCsv(directory=tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        for step in (1, 2):
            logger.log_metrics({"loss": 0.5, "epoch": 0}, step=step)
            logger.flush()
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}/metrics.csv: No space left on device; values wait in memory until there is room"
    ]
    logger.flush()
    assert [row["step"] for row in read_metrics(logger.path)] == [1, 2]


def test_values_of_one_step_share_a_row_however_slowly_they_come(tmp_path: Path) -> None:
    logger = MetricsCsv(directory=tmp_path, flush_seconds=0.0)
    logger.log_metrics({"loss": 0.5, "epoch": 0}, step=1)
    logger.log_metrics({"dice": 0.25, "epoch": 0}, step=1)
    logger.log_metrics({"loss": 0.25, "epoch": 0}, step=2)
    assert read_metrics(logger.path) == [{"step": 1, "epoch": 0, "loss": 0.5, "dice": 0.25}]
    logger.flush()
    assert [row["step"] for row in read_metrics(logger.path)] == [1, 2]
