"""Event files as TensorBoard itself reads them: the values of ``metrics.csv``, no step twice after a kill."""

from __future__ import annotations

import errno
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from callback_toys import Fixed, ToyLoader, ToyTask, make_trainer, seed, val_loader

from neurotrain.callbacks import MetricsCsv, RunCheckpoint, TensorBoardRun, event_files, read_metrics
from neurotrain.callbacks.run_logger import NOTHING

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")


def _read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by name, as TensorBoard's own reader takes them out of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def _columns(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for row in read_metrics(folder / "metrics.csv"):
        for name, value in row.items():
            if name not in ("step", "epoch"):  # of one step there are two epochs where a test follows the last one
                found.setdefault(name, []).append((int(row["step"]), pytest.approx(value, rel=1e-6)))
    return found


def _fit(folder: Path, *, steps: int, resume: Path | None = None) -> None:
    seed()
    loggers: list[Any] = [MetricsCsv(directory=folder), TensorBoardRun(directory=folder)]
    limits = {"max_steps": steps, "max_epochs": -1, "log_every_n_steps": 1}
    trainer = make_trainer(folder, [RunCheckpoint(every_n_steps=3)], logger=loggers, **limits)
    path = None if resume is None else str(resume)
    trainer.fit(ToyTask(), ToyLoader(batches=4), val_loader(1), ckpt_path=path, weights_only=True)
    if resume is not None:
        trainer.test(ToyTask(), Fixed(val_loader(1).batches), verbose=False)


def test_a_resumed_run_has_each_step_once_and_the_values_of_the_table(tmp_path: Path) -> None:
    _fit(tmp_path, steps=8)
    _fit(tmp_path, steps=10, resume=tmp_path / "checkpoints" / "step-00000006.ckpt")
    found = _read(tmp_path)
    assert {name: values for name, values in found.items() if name != "epoch"} == _columns(tmp_path)
    assert [step for step, _ in found["train/loss"]] == list(range(1, 11))
    assert {"val/score", "test/weight", "epoch"} <= found.keys()
    assert [path.name[-5:] for path in event_files.event_files(tmp_path / "tensorboard")] == ["00001", "00002"]


def test_an_attempt_that_saved_nothing_is_forgotten_by_both(tmp_path: Path) -> None:
    loggers = MetricsCsv(directory=tmp_path), TensorBoardRun(directory=tmp_path)
    for logger in loggers:
        logger.log_metrics({"train/loss": 7.0, "old": 1.0}, step=1)
        logger.flush()
    _fit(tmp_path, steps=2)
    assert [step for step, _ in _read(tmp_path)["train/loss"]] == [1, 2]
    assert "old" not in _read(tmp_path)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv") if "train/loss" in row] == [1, 2]
    assert not any(row.get("train/loss") == 7.0 for row in read_metrics(tmp_path / "metrics.csv"))


def test_nothing_is_made_or_imported_before_the_first_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    logger = TensorBoardRun(directory=tmp_path, flush_seconds=3600)
    logger.flush()
    logger.cut(5)
    logger.cut(NOTHING)
    logger.log_metrics({"loss": 1.0}, step=1)
    assert not any(name.partition(".")[0] == "tensorboard" for name in sys.modules)
    assert list(tmp_path.iterdir()) == []


def test_equal_values_of_a_step_are_written_once(tmp_path: Path) -> None:
    logger = TensorBoardRun(directory=tmp_path)
    for values in ({"a": 1.0}, {"a": 1.0, "b": math.nan}, {"b": math.nan}, {"a": 2.0}):
        logger.log_metrics(values, step=4)
    logger.finalize("success")
    found = _read(tmp_path)
    assert found["a"] == [(4, 1.0), (4, 2.0)]
    assert [step for step, _ in found["b"]] == [4]


def test_the_table_of_parameters_is_that_of_the_configuration(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    told = "model: {lr: 0.5, widths: [8, 16], deep: true, none: null}\nkey: ${oc.env:CANARY}\n"
    (tmp_path / "config.yaml").write_text(told)
    for step in (1, 2):
        logger = TensorBoardRun(directory=tmp_path)
        logger.log_metrics({"loss": 1.0}, step=step)
        logger.flush()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    content = HParamsPluginData.FromString(found.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    parameters = {name: value.WhichOneof("kind") for name, value in content.session_start_info.hparams.items()}
    assert parameters == {
        "model.lr": "number_value",
        "model.widths": "string_value",
        "model.deep": "bool_value",
        "key": "string_value",
    }
    assert content.session_start_info.hparams["key"].string_value == "${oc.env:CANARY}"


def test_a_full_disk_costs_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = TensorBoardRun(directory=tmp_path, flush_seconds=0)
    logger.log_metrics({"a": 1.0}, step=1)
    write = logger._append

    def full(path: Path, data: bytes) -> None:
        with path.open("ab") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(logger, "_append", full)
    logger.log_metrics({"a": 2.0}, step=2)
    logger.log_metrics({"a": 3.0}, step=3)
    monkeypatch.setattr(logger, "_append", write)
    logger.log_metrics({"a": 4.0}, step=4)
    assert _read(tmp_path)["a"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert caplog.text.count("values wait in memory") == 1


def test_a_torn_end_of_a_killed_process_hides_nothing_that_follows(tmp_path: Path) -> None:
    first = TensorBoardRun(directory=tmp_path)
    for step in (1, 2, 3):
        first.log_metrics({"a": float(step)}, step=step)
    first.flush()
    (path,) = event_files.event_files(tmp_path / "tensorboard")
    path.write_bytes(path.read_bytes()[:-5])
    second = TensorBoardRun(directory=tmp_path)
    second.cut(1)
    second.log_metrics({"a": 20.0}, step=2)
    second.flush()
    assert _read(tmp_path)["a"] == [(1, 1.0), (2, 20.0)]


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="flush_seconds=-1"):
        TensorBoardRun(directory=Path("a"), flush_seconds=-1)
