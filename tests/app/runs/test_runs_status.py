"""Statuses: what the process said, and whether it is still there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from run_folders import make_run

from neurotrain.app.runs.process import read_record, recorded, this_process
from neurotrain.app.runs.reading import read_run
from neurotrain.app.runs.status import SILENCE, is_resumable, status_of


def _status(run: Path) -> str:
    return status_of(read_run(run, run.parent))


def test_a_living_process_runs(tmp_path: Path) -> None:
    assert _status(make_run(tmp_path / "x", outcome="running", dice=None)) == "running"


def test_a_dead_process_was_interrupted(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    run = make_run(tmp_path / "x", outcome="running", pid=child, dice=None, checkpoint=True)
    facts = read_run(run, tmp_path)
    assert status_of(facts) == "interrupted"
    assert is_resumable(facts, "interrupted")


def test_another_process_of_the_same_number_is_not_taken_for_it(tmp_path: Path) -> None:
    record = this_process(make_run(tmp_path / "x"))
    assert record.is_alive()
    if record.ticks is not None:
        assert not replace(record, ticks=record.ticks - 1).is_alive()


def test_a_process_elsewhere_runs_while_its_files_change(tmp_path: Path) -> None:
    facts = read_run(make_run(tmp_path / "x", outcome="running", host="elsewhere"), tmp_path)
    assert status_of(facts, now=facts.changed + 1) == "running"
    assert status_of(facts, now=facts.changed + SILENCE) == "interrupted"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(ValueError("first\nsecond"), "failed"), (KeyboardInterrupt(), "interrupted"), (SystemExit(143), "interrupted")],
)
def test_the_end_is_recorded(error: BaseException, outcome: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "x", dice=None)
    with pytest.raises(type(error)), recorded(run):
        raise error
    record = read_record(run)
    assert record is not None
    assert (record.outcome, _status(run)) == (outcome, outcome)
    assert record.error == ("ValueError" if outcome == "failed" else None)
    assert record.first_step == 10


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with recorded(tmp_path, first_rank=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_runs_without_a_record(tmp_path: Path) -> None:
    finished = make_run(tmp_path / "finished")
    broken = make_run(tmp_path / "broken", dice=None)
    (broken / "log.txt").write_text("INFO drive runs in /x\nERROR the run stopped\nTraceback\n")
    again = make_run(tmp_path / "again", dice=None)
    (again / "log.txt").write_text("ERROR the run stopped\nINFO drive resumes in /x (seed 0)\n")
    resumed = make_run(tmp_path / "resumed")
    later = (resumed / "summary.json").stat().st_mtime_ns + 10**9
    os.utime(resumed / "overrides.txt", ns=(later, later))
    assert [_status(run) for run in (finished, broken, again, resumed)] == [
        "finished",
        "failed",
        "interrupted",
        "interrupted",
    ]
