"""A run watched by its directory alone, while it is written to."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from run_folders import make_run

from neurotrain.app.cli import main
from neurotrain.app.runs.looks import look
from neurotrain.app.runs.process import ProcessRecord, read_record, write_record


def _running(folder: Path, *, seconds: float, limits: str) -> Path:
    run = make_run(folder, outcome="running", dice=None)
    record = read_record(run)
    assert record is not None
    changed = {"began": time.time() - seconds, "first_step": 0}
    write_record(run, ProcessRecord(**{**record.__dict__, **changed}))
    with (run / "config.yaml").open("a") as file:
        file.write(f"trainer: {limits}\n")
    (run / "metrics.csv").write_text(
        "step,epoch,val/dice,throughput/samples_per_second\n5,0,0.25,\n10,1,0.5,64\n12,2,,\n13,2,nan,"
    )
    return run


@pytest.mark.parametrize(
    ("limits", "total"),
    [
        ("{max_steps: 36, max_epochs: null}", 36),
        ("{max_steps: -1, max_epochs: 10}", 50),
        ("{max_steps: 36, max_epochs: 10}", 36),
        ("{max_steps: -1, max_epochs: -1}", None),
    ],
)
def test_a_look(limits: str, total: int | None, tmp_path: Path) -> None:
    seen = look(_running(tmp_path / "x", seconds=120, limits=limits))
    assert (seen.status, seen.step, seen.epoch, seen.total_steps) == ("running", 12, 2, total)
    assert seen.metrics["val/dice"] == 0.5  # the row that is not whole does not count
    assert seen.samples_per_second == 64
    if total is None:
        assert seen.seconds_left is None
    else:
        assert seen.seconds_left == pytest.approx(10 * (total - 12), rel=0.05)
    assert "RAM" in seen.usage or not seen.usage


def test_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _running(tmp_path / "x", seconds=120, limits="{max_steps: 36}")
    with pytest.raises(SystemExit) as ended:
        main(["monitor", str(run), "--once"])
    rows = dict(line.rstrip().split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (ended.value.code, rows["step"], rows["val/dice"]) == (0, "12 of 36, epoch 3", "0.5")
    with pytest.raises(SystemExit):
        main(["monitor", "x", "--once", "--json", "--runs-dir", str(tmp_path)])
    assert json.loads(capsys.readouterr().out)["total_steps"] == 36


def test_it_ends_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = make_run(tmp_path / "x", outcome="failed", dice=None)
    (failed / "metrics.csv").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["monitor", str(failed)])
    assert (ended.value.code, "failed" in capsys.readouterr().out) == (1, True)
