"""A run from overrides to its directory, in this process."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import neurotrain
from neurotrain.app.run_directory import ResumeError
from neurotrain.app.strict import ConfigurationError
from neurotrain.callbacks import NonFiniteLossError
from neurotrain.data.datasets import DatasetError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def _small(data: Path, run_dir: Path, *more: str) -> list[str]:
    return [
        "data=synthetic_drive",
        f"paths.data_dir={data}",
        f"paths.run_dir={run_dir}",
        "data.dataset.size=[96,96]",
        "data.dataset.train=3",
        "data.dataset.test=2",
        "data.validation=1",
        "data.batch_size=2",
        "data.samples_per_epoch=4",
        "data.train_transform.steps.patch.size=32",
        "model.network.widths=[4,8]",
        "model.threshold=null",
        "trainer.max_epochs=2",
        "trainer.check_val_every_n_epoch=1",
        "trainer.log_every_n_steps=1",
        *more,
    ]


def _run(data: Path, run_dir: Path, *more: str) -> neurotrain.app.train.Run:  # pyright: ignore[reportAttributeAccessIssue]
    return neurotrain.train(neurotrain.compose("drive_unet", _small(data, run_dir, *more)))


def test_a_run_leaves_what_readme_promises(data: Path, tmp_path: Path) -> None:
    run = _run(data, tmp_path / "run")
    left = {path.relative_to(run.directory).as_posix() for path in run.directory.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "overrides.txt",
        "environment.json",
        "metrics.csv",
        "checkpoints/last.ckpt",
        "test_samples.csv",
        "figures/roc_pr.png",
        "figures/curves.png",
        "summary.json",
        "log.txt",
    } <= left
    summary = json.loads((run.directory / "summary.json").read_text())
    assert summary["synthetic"] is True
    assert summary["data"]["counts"] == {"train": 2, "validation": 1, "test": 2}
    assert {"test/dice", "test/auc", "reference/second_observer_dice"} <= summary["metrics"].keys()
    assert summary["wall_seconds"] > 0
    assert summary["parameters"] == sum(p.numel() for p in run.model.parameters())
    assert summary["test_evaluations"] == 1
    with (run.directory / "test_samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    network = [row for row in rows if row["observer"] == "network"]
    assert len(network) == 2
    mean = sum(float(row["dice"]) for row in network) / 2
    assert run.metrics["test/dice"] == pytest.approx(mean, abs=1e-6)
    assert yaml.safe_load((run.directory / "config.yaml").read_text())["name"] == "drive_unet"
    torch.load(run.directory / "checkpoints" / "last.ckpt", weights_only=True)


def test_one_seed_gives_one_result(data: Path, tmp_path: Path) -> None:
    first = _run(data, tmp_path / "a", "test=false")
    again = _run(data, tmp_path / "b", "test=false")
    other = _run(data, tmp_path / "c", "test=false", "seed=1")
    assert first.metrics["train/loss"] == again.metrics["train/loss"] != other.metrics["train/loss"]


def test_a_finished_run_can_be_tested_again(data: Path, tmp_path: Path) -> None:
    run = _run(data, tmp_path / "run")
    ckpt = f"ckpt={run.directory / 'checkpoints' / 'last.ckpt'}"
    tested = _run(data, tmp_path / "again", "stage=test", ckpt)
    assert tested.metrics["test/dice"] == pytest.approx(run.metrics["test/dice"], abs=1e-6)
    assert tested.metrics["test/threshold"] == run.metrics["test/threshold"]


def test_a_nan_stops_the_run_with_the_ids_of_the_batch(data: Path, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match=r"2[123]"):
        _run(data, tmp_path / "run", "model.optimizer.lr=1e30", "trainer.gradient_clip_val=null")
    assert "NonFiniteLossError" in (tmp_path / "run" / "log.txt").read_text()


def test_insisting_on_data_that_are_not_there_fails_with_advice(tmp_path: Path) -> None:
    overrides = ["data=drive", f"paths.data_dir={tmp_path}", f"paths.run_dir={tmp_path / 'run'}"]
    with pytest.raises(DatasetError, match=r"drive\.grand-challenge\.org"):
        neurotrain.train(neurotrain.compose("drive_unet", overrides))


def test_resuming_nothing_and_testing_nothing_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="must"):
        _run(data, tmp_path / "run", "resume=must")
    with pytest.raises(ConfigurationError, match="ckpt"):
        _run(data, tmp_path / "run", "stage=test")


def test_early_stopping_is_kept_in_the_checkpoint(data: Path, tmp_path: Path) -> None:
    run = _run(data, tmp_path / "run", "callbacks=segmentation_early_stopping", "test=false")
    state = torch.load(run.directory / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    name = next(key for key in state if key.startswith("EarlyStopping"))
    with (run.directory / "metrics.csv").open(newline="") as file:
        scores = [float(row["val/dice"]) for row in csv.DictReader(file) if row["val/dice"]]
    assert len(scores) == 2
    assert float(state[name]["best_score"]) == pytest.approx(max(scores), abs=1e-6)


def _command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parents[2] / "train.py"
    return subprocess.run(
        [sys.executable, str(script), *arguments], cwd=cwd, capture_output=True, text=True, timeout=200
    )


def test_a_mistake_is_one_line_and_exit_code_two(tmp_path: Path) -> None:
    done = _command("experiment=drive_unet", "model.netwrok.widths=[4]", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "did you mean 'network'" in done.stderr


def test_a_sweep_runs_every_job(data: Path, tmp_path: Path) -> None:
    overrides = [text for text in _small(data, tmp_path) if not text.startswith("paths.run_dir")]
    done = _command("experiment=drive_unet", *overrides, "test=false", "-m", "seed=0,1", "sweep.jobs=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("runs/drive_unet/*/summary.json")]
    assert sorted(summary["seed"] for summary in summaries) == [0, 1]


@pytest.mark.parametrize("mode", ["fast", "overfit", "profile"])
def test_every_debug_mode_runs(mode: str, data: Path, tmp_path: Path) -> None:
    run = _run(data, tmp_path / "run", f"debug={mode}")
    assert run.trainer.global_step > 0


def test_two_ranks_share_one_run_directory(data: Path, tmp_path: Path) -> None:
    more = ["trainer=ddp_sim", "data.validation=2", "data.dataset.train=6", "data.dataset.test=2"]
    overrides = _small(data, tmp_path / "run", *more)
    done = _command("experiment=drive_unet", *overrides, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 2  # 4 samples an epoch over 2 ranks of 2, 2 epochs
    assert summary["metrics"]["test/dice"] > 0
    with (tmp_path / "run" / "test_samples.csv").open(newline="") as file:
        assert len([row for row in csv.DictReader(file) if row["observer"] == "network"]) == 2


def test_a_flat_folder_of_ones_own_trains_and_says_that_nothing_was_tested(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for name in ("a", "b", "c"):
        for folder, depth in (("images", 255), ("masks", 1)):
            (tmp_path / folder).mkdir(exist_ok=True)
            pixels = (torch.rand(48, 48, generator=generator) > 0.5).to(torch.uint8) * depth
            Image.fromarray(pixels.numpy()).save(tmp_path / folder / f"{name}.png")
    overrides = [text for text in _small(tmp_path, tmp_path / "run") if not text.startswith(("data=", "data.dataset"))]
    own = ["data=folder", f"data.dataset.root={tmp_path}"]
    run = neurotrain.train(neurotrain.compose("drive_unet", [*overrides, *own]))
    assert not any(name.startswith("test/") for name in run.metrics)
    assert "no labelled test split" in (run.directory / "log.txt").read_text()
    assert json.loads((run.directory / "summary.json").read_text())["synthetic"] is False


def test_further_metrics_are_logged_beside_the_tasks_own(data: Path, tmp_path: Path) -> None:
    more = ["+model/metrics@model.metrics.again=_Sensitivity", "+model/metrics@model.metrics.hd95=_HausdorffDistance"]
    run = _run(data, tmp_path / "run", *more, "model.metrics.hd95.percentile=95", "trainer.max_epochs=1")
    assert run.metrics["test/again"] == pytest.approx(run.metrics["test/sensitivity"], abs=1e-6)
    assert run.metrics["test/hd95"] > 0
    with pytest.raises(ConfigurationError, match=r"metrics\.again has mode='multiclass' and num_classes=3, the task"):
        _run(
            data,
            tmp_path / "other",
            more[0],
            "model.metrics.again.mode=multiclass",
            "model.metrics.again.num_classes=3",
        )
