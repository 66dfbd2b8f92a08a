"""Sweeps that are killed halfway and taken up again: nothing run twice, nothing lost."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections import Counter
from collections.abc import Generator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from ledgers import ledger, living, until
from tiny_sweep import start

from neurotrain.app.jobs.supervisor import processes_of, signal_processes


@pytest.fixture
def started(tmp_path: Path) -> Generator[BaseProcess]:
    """A sweep of 12 trials, two at once, of which the sixth and seventh run for ever."""
    process = start(tmp_path, trials=12, jobs=2)
    until(lambda: {"started 5", "started 6"} <= set(ledger(tmp_path)))
    yield process
    process.kill()
    process.join()
    process.close()


def _processes(folder: Path) -> list[int]:
    return living(folder, "sweep/trials/*/attempt.json")


def _statuses(folder: Path) -> dict[int, str]:
    with (folder / "sweep" / "trials.csv").open(newline="") as file:
        return {int(row["trial"]): row["status"] for row in csv.DictReader(file)}


def _take_up(folder: Path) -> str:
    (folder / "go").touch()
    (folder / "told.txt").unlink()
    assert _ended(start(folder, trials=12, jobs=2)) == 0
    return (folder / "told.txt").read_text()


def _ended(process: BaseProcess) -> int | None:
    process.join(timeout=60)
    return process.exitcode


def _assert_nothing_twice_nothing_lost(folder: Path) -> None:
    counted = Counter(ledger(folder))
    assert {line: count for line, count in counted.items() if line.startswith("ended")} == {
        f"ended {number}": 1 for number in range(12)
    }
    begun_again = {line for line in counted if line.startswith("resumed")}
    assert begun_again == {"resumed 5", "resumed 6"}
    assert all(count == 1 for count in counted.values())
    assert _statuses(folder) == dict.fromkeys(range(12), "finished")
    with (folder / "sweep" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["objective"]) for row in rows] == list(range(12))
    assert [row["attempts"] for row in rows] == ["2" if number in (5, 6) else "1" for number in range(12)]


def test_the_driver_is_killed(started: BaseProcess, tmp_path: Path) -> None:
    started.kill()
    started.join()
    until(lambda: not _processes(tmp_path))  # one that sees `go` before it is asked to end would finish, rightly
    told = _take_up(tmp_path)
    assert "5 trials have ended before" in told
    assert "trial 5 runs again" in told
    _assert_nothing_twice_nothing_lost(tmp_path)


def test_driver_supervisors_and_children_are_killed(started: BaseProcess, tmp_path: Path) -> None:
    assert started.pid is not None
    os.kill(started.pid, signal.SIGSTOP)  # so that it sees nothing of what follows
    signal_processes(_processes(tmp_path), signal.SIGKILL)
    started.kill()
    started.join()
    _take_up(tmp_path)
    _assert_nothing_twice_nothing_lost(tmp_path)


def test_a_child_is_killed_and_the_others_go_on(started: BaseProcess, tmp_path: Path) -> None:
    token = json.loads((tmp_path / "sweep" / "trials" / "0005" / "attempt.json").read_text())["token"]
    own = [process for process in processes_of(token) if b"supervisor.py" not in _cmdline(process)]
    assert len(own) == 1
    os.kill(own[0], signal.SIGKILL)
    until(lambda: _statuses(tmp_path)[5] == "interrupted")
    (tmp_path / "go").touch()
    assert _ended(started) == 1
    told = (tmp_path / "told.txt").read_text()
    assert "trial 5 interrupted" in told
    assert "killed by SIGKILL" in told
    assert Counter(_statuses(tmp_path).values()) == {"finished": 11, "interrupted": 1}
    _take_up(tmp_path)
    assert Counter(line for line in ledger(tmp_path) if line.startswith("ended")) == {
        f"ended {number}": 1 for number in range(12)
    }


def test_a_terminated_driver_leaves_nothing_running_and_says_so(started: BaseProcess, tmp_path: Path) -> None:
    assert _ended(start(tmp_path, trials=12, jobs=2)) == 2
    assert f"worked on by process {started.pid}" in (tmp_path / "refused.txt").read_text()
    started.terminate()
    assert _ended(started) == 128 + signal.SIGTERM
    assert "the same command goes on" in (tmp_path / "told.txt").read_text()
    assert _processes(tmp_path) == []
    assert Counter(_statuses(tmp_path).values()) == {"finished": 5, "interrupted": 2, "waiting": 5}
    _take_up(tmp_path)
    _assert_nothing_twice_nothing_lost(tmp_path)


def _cmdline(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()
