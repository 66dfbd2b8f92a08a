"""Trials as submitit's jobs, which run on this machine here: submitted, stopped, found again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from ledgers import until

from neurotrain.app.jobs.process import attempt_of, begin_attempt
from neurotrain.app.jobs.supervisor import processes_of
from neurotrain.app.sweeps.driver import Driver
from neurotrain.app.sweeps.grid import Grid
from neurotrain.app.sweeps.settings import Slurm
from neurotrain.app.sweeps.slurm import Cluster, ClusterLauncher, ClusterTask, ClusterTrial
from neurotrain.app.sweeps.trials import Plan, SweepError, SweepFolder

TASK = (
    "import json, os, sys, time; run_dir = sys.argv[1]; os.makedirs(run_dir + '/checkpoints', exist_ok=True)\n"
    "print(sys.argv[2:], flush=True); time.sleep(float(sys.argv[2]))\n"
    "json.dump({'metrics': {'score': 1.0}}, open(run_dir + '/summary.json', 'w'))"
)


def _launcher(folder: Path, cluster: Cluster, *, jobs: int = 2) -> ClusterLauncher:
    def command(plan: Plan, begun: bool) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", TASK, plan.run_dir, *plan.arguments, *(["again"] if begun else [])]

    place = SweepFolder(folder / "sweep")
    settings = Slurm(minutes=5)
    return ClusterLauncher(
        folder=place, command=command, slurm=settings, jobs=jobs, cwd=folder, seconds=None, grace=5.0, cluster=cluster
    )


def _plan(folder: Path, number: int, seconds: str) -> Plan:
    return Plan(number, (f"x={number}",), (seconds,), str(folder / "runs" / str(number)))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # submitit leaves its own logs to the collector
def test_a_sweep_runs_as_jobs(tmp_path: Path) -> None:
    launcher = _launcher(tmp_path, "debug")
    plans = [_plan(tmp_path, number, "0") for number in range(2)]
    for plan in plans:
        launcher.folder.keep(plan)
    told: list[str] = []
    source = Grid(plans, objective="score")
    result = Driver(folder=launcher.folder, source=source, launcher=launcher, tell=told.append, pause=0.01).run()
    assert result.exit_code == 0, told
    assert [outcome.objective for _, outcome in result.outcomes] == [1.0, 1.0]
    again = Driver(folder=launcher.folder, source=source, launcher=launcher, tell=told.append).run()
    assert again.exit_code == 0
    assert [outcome.attempts for _, outcome in again.outcomes] == [1, 1]


def test_a_job_is_stopped_by_a_note_and_begun_again_from_its_checkpoint(tmp_path: Path) -> None:
    launcher = _launcher(tmp_path, "local", jobs=1)
    plan = _plan(tmp_path, 0, "60")
    folder = launcher.folder.of(plan)
    trial = launcher.start(plan)
    assert trial is not None
    assert launcher.start(_plan(tmp_path, 1, "0")) is None  # one in the queue is enough
    until(lambda: (folder / "log.txt").is_file() and (folder / "log.txt").read_text())
    later = _launcher(tmp_path, "local")
    found = later.adopt(plan)  # by a driver that did not start it: submitit's local jobs then know nothing of it
    assert not isinstance(found, ClusterTrial)
    trial.stop("pruned")
    until(lambda: trial.poll() is not None)
    ending = trial.poll()
    assert ending is not None
    until(trial._job.done)
    assert ending.reason == "pruned"
    until(lambda: not processes_of(attempt_of(folder)["token"]))
    assert later.adopt(plan) == ending
    assert (folder / "log.txt").read_text() == "['60']\n"
    task = ClusterTask(("a",), (sys.executable, "-c", ""), plan.run_dir, str(folder), "", str(tmp_path), None, 1.0)
    assert task.checkpoint().function is task


def test_a_job_that_is_not_wanted_any_more_does_not_run(tmp_path: Path) -> None:
    launcher = _launcher(tmp_path, "debug")
    plan = _plan(tmp_path, 0, "0")
    folder = launcher.folder.of(plan)
    old = begin_attempt(folder, {})
    lost = launcher.adopt(plan)
    assert lost is not None
    assert not isinstance(lost, ClusterTrial)
    assert lost.reason == "lost"
    new = begin_attempt(folder, {})
    command = (sys.executable, "-I", "-S", "-c", TASK, plan.run_dir, "0")
    ClusterTask(command, command, plan.run_dir, str(folder), old, str(tmp_path), None, 1.0)()
    assert not (folder / "exit.json").exists()
    assert json.loads((folder / "attempt.json").read_text())["token"] == new


def test_without_slurm_its_absence_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SweepError, match="no sbatch on this machine"):
        _launcher(tmp_path, "slurm")
