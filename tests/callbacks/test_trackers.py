"""Runs at trackers without a network: one run a directory, resumed, told of the configuration and of no secret."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from neurotrain.callbacks import MlflowRun, WandbRun
from neurotrain.callbacks.trackers import IDS, run_id_of

CONFIG = "name: drive\nmodel: {lr: 0.1}\nkey: ${oc.env:CANARY}\n"


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CANARY", "hunter2")
    folder = tmp_path / "runs" / "drive" / "one"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def _needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install 'neurotrain[{module}]'")


def _in_a_process(target: object, *given: object) -> None:
    """The trackers' threads and services end with it."""
    process = multiprocessing.get_context("fork").Process(target=target, args=given)  # pyright: ignore
    process.start()
    process.join(timeout=240)
    assert process.exitcode == 0


@pytest.mark.parametrize(("module", "logger"), [("wandb", WandbRun), ("mlflow", MlflowRun)])
def test_a_missing_extra_is_named(
    module: str, logger: type[WandbRun | MlflowRun], run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurotrain.callbacks.trackers.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf"logger={module} needs {module}: pip install 'neurotrain\[{module}\]'"):
        logger(directory=run_dir)


def test_ids_differ_between_folders_of_one_name(tmp_path: Path) -> None:
    first, second = run_id_of(tmp_path / "a" / "drive" / "one"), run_id_of(tmp_path / "b" / "drive" / "one")
    assert first != second
    assert first.startswith("drive-one-")
    assert len(run_id_of(tmp_path / ("x" * 200))) <= 64


def _log_to_mlflow(run_dir: Path, step: int) -> None:
    os.chdir(run_dir.parent)
    logger = MlflowRun(directory=run_dir, tracking_uri=f"sqlite:///{run_dir.parents[1]}/mlflow.db")
    logger.log_metrics({"loss": 1 / step}, step=step)
    logger.finalize("success")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of SQLAlchemy
def test_mlflow_goes_on_with_its_run(run_dir: Path) -> None:
    _needs("mlflow")
    for step in (1, 2):
        _in_a_process(_log_to_mlflow, run_dir, step)
    with closing(sqlite3.connect(run_dir.parents[1] / "mlflow.db")) as connection:
        runs = connection.execute("SELECT run_uuid, name, status FROM runs").fetchall()
        params = dict(connection.execute("SELECT key, value FROM params"))
        metrics = connection.execute("SELECT key, step, value FROM metrics ORDER BY step").fetchall()
    kept = json.loads((run_dir / IDS).read_text())["mlflow"]
    assert runs == [(kept, "drive/one", "FINISHED")]
    assert params == {"name": "drive", "model/lr": "0.1", "key": "${oc.env:CANARY}"}
    assert metrics == [("loss", 1, 1.0), ("loss", 2, 0.5)]
    assert sorted(path.name for path in run_dir.parent.iterdir()) == ["one"]  # nothing lies where it was started


def _log_to_wandb(run_dir: Path, step: int) -> None:
    logger = WandbRun(directory=run_dir, offline=True)
    logger.log_metrics({"loss": 1 / step}, step=step)
    logger.close()


def test_wandb_goes_on_with_its_run_offline(run_dir: Path) -> None:
    _needs("wandb")
    for step in (1, 2):
        _in_a_process(_log_to_wandb, run_dir, step)
    kept = json.loads((run_dir / IDS).read_text())["wandb"]
    assert kept == run_id_of(run_dir)
    offline = sorted((run_dir / "wandb").glob("offline-run-*"))
    assert [path.name.endswith(f"-{kept}") for path in offline] == [True, True]
    everything = b"".join(path.read_bytes() for path in (run_dir / "wandb").rglob("*") if path.is_file())
    assert kept.encode() in everything
    assert b"hunter2" not in everything
