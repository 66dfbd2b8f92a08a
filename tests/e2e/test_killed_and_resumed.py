"""Promise 1: killed at any step and resumed, a run ends with weights bit-equal to the one never killed."""

from __future__ import annotations

import csv
import multiprocessing
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

STEPS_PER_EPOCH, EPOCHS, SAVE_EVERY = 6, 3, 4
LAST = STEPS_PER_EPOCH * EPOCHS


def _train(overrides: list[str]) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    import os

    os.environ["NEUROTRAIN_ALLOW"] = "killing"
    torch.set_num_threads(1)
    import neurotrain

    neurotrain.train(neurotrain.compose("drive_unet", overrides))


def _run(overrides: list[str]) -> int:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["neurotrain.app.train", "neurotrain.data", "neurotrain.callbacks"])
    process = context.Process(target=_train, args=(overrides,))
    process.start()
    process.join(timeout=120)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def _overrides(data: Path, run_dir: Path, workers: int) -> list[str]:
    return [
        "data=synthetic_drive",
        f"paths.data_dir={data}",
        f"paths.run_dir={run_dir}",
        "data.dataset.size=[96,96]",
        "data.dataset.train=4",
        "data.dataset.test=1",
        "data.validation=1",
        "data.batch_size=2",
        "data.train_transform.steps.patch.size=32",
        f"data.samples_per_epoch={2 * STEPS_PER_EPOCH}",
        f"data.num_workers={workers}",
        "model.network.widths=[4,8]",
        "model.network.dropout=0.1",
        "model.threshold=null",
        "model/inferer=full_image",
        f"trainer.max_epochs={EPOCHS}",
        "trainer.check_val_every_n_epoch=1",
        f"callbacks.checkpoint.every_n_steps={SAVE_EVERY}",
        "callbacks.figures=null",
        "test=false",
        "trainer.log_every_n_steps=1",
    ]


def _final(run_dir: Path) -> dict[str, Any]:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def _assert_equal(ours: Any, theirs: Any, where: str = "") -> None:  # noqa: ANN401
    assert type(ours) is type(theirs), where
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs) or (ours.isnan().all() and theirs.isnan().all()), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            _assert_equal(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for index, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            _assert_equal(left, right, f"{where}/{index}")
    else:
        assert ours == theirs, where


def _rows(run_dir: Path) -> list[dict[str, str]]:
    """Rows of the metrics, without what depends on the clock."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if not name.startswith("throughput/")}
            for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    assert _run(_overrides(data, run_dir, workers=0)) == 0
    return run_dir


def _kills() -> list[tuple[int, bool, int]]:
    """Ten seeded steps: some before the first checkpoint, some in mid-epoch after one; workers 0 and 2 in turn."""
    draw = random.Random(20)
    early = [draw.randrange(1, SAVE_EVERY) for _ in range(2)]
    middle = draw.sample([step for step in range(SAVE_EVERY + 1, LAST) if step % STEPS_PER_EPOCH], 8)
    return [(step, index % 3 == 2, 2 * (index % 2)) for index, step in enumerate([*early, *middle])]


@pytest.mark.parametrize(("step", "inside", "workers"), _kills())
def test_ends_bit_equal(step: int, inside: bool, workers: int, whole: Path, data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    overrides = _overrides(data, run_dir, workers)
    kill = ["callbacks.kill._target_=killing.KillAt", f"callbacks.kill.step={step}", f"callbacks.kill.inside={inside}"]
    assert _run([*overrides, *kill]) == -signal.SIGKILL
    assert not list(run_dir.glob("summary.json"))
    assert _run([*overrides, "resume=last"]) == 0
    ours, theirs = _final(run_dir), _final(whole)
    assert ours["global_step"] == theirs["global_step"] == LAST
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        _assert_equal(ours[part], theirs[part], part)
    average = next(key for key in theirs["callbacks"] if "WeightAveraging" in key)
    _assert_equal(ours["callbacks"][average], theirs["callbacks"][average], average)
    assert _rows(run_dir) == _rows(whole)
