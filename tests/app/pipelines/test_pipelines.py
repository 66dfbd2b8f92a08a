"""Pipelines: run in order, taken up where they were killed, refused by name where they are wrong."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ledgers import ledger, living, until
from rich.console import Console
from tiny_pipeline import run, six, start, task

from neurotrain.app.cli import main
from neurotrain.app.jobs.supervisor import signal_processes
from neurotrain.app.pipelines.command import run_pipeline
from neurotrain.app.pipelines.definition import PipelineError, read_pipeline
from neurotrain.app.pipelines.instances import instances
from neurotrain.app.pipelines.shown import Shown

ALL = ("prepare", "train0", "train1", "test0", "test1", "report")


def _processes(folder: Path) -> list[int]:
    return living(folder, "state/tasks/*/attempt.json")


def _killed(folder: Path, *, with_children: bool = False) -> BaseProcess:
    process = start(folder, six(folder))
    until(lambda: {"started train0", "started train1"} <= set(ledger(folder)))
    if with_children:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)  # so that it sees nothing of what follows
        signal_processes(_processes(folder), signal.SIGKILL)
    process.kill()
    return process


def _take_up(folder: Path) -> None:
    (folder / "go").touch()
    code, told = run(folder, six(folder))
    assert code == 0, told
    assert "prepare: unchanged" in told
    assert "train[seed=0]: finished" in told
    assert Counter(ledger(folder)) == {
        **{f"ended {name}": 1 for name in ALL},
        **{f"started {name}": 2 if name.startswith("train") else 1 for name in ALL},
    }


def test_the_driver_is_killed_and_nothing_runs_twice(tmp_path: Path) -> None:
    _killed(tmp_path).join()
    until(lambda: not _processes(tmp_path))  # one that sees `go` before it is asked to end would finish, rightly
    _take_up(tmp_path)
    code, told = run(tmp_path, six(tmp_path))
    assert code == 0
    assert told.count(": unchanged") == 6
    assert len(ledger(tmp_path)) == 14


def test_driver_and_children_are_killed_and_nothing_runs_twice(tmp_path: Path) -> None:
    _killed(tmp_path, with_children=True).join()
    _take_up(tmp_path)


def test_an_interrupt_leaves_nothing_running(tmp_path: Path) -> None:
    process = start(tmp_path, six(tmp_path))
    until(lambda: {"started train0", "started train1"} <= set(ledger(tmp_path)))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(timeout=60)
    assert process.exitcode == 128 + signal.SIGINT
    assert _processes(tmp_path) == []
    _take_up(tmp_path)


def test_what_has_changed_runs_again_and_what_needs_it(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    pipeline = six(tmp_path)
    assert run(tmp_path, pipeline)[0] == 0
    pipeline["tasks"]["test"]["environment"] = {"NEW": "${variant.seed}"}
    pipeline["tasks"]["train"]["retries"] = 3  # decides nothing about the outcome
    code, told = run(tmp_path, pipeline)
    assert code == 0
    assert _states(told) == {
        "prepare": "unchanged",
        "train[seed=0]": "unchanged",
        "train[seed=1]": "unchanged",
        "test[seed=0]": "finished",
        "test[seed=1]": "finished",
        "report": "finished",
    }
    (tmp_path / "state" / "tasks" / "prepare" / "made").unlink()
    assert set(_states(run(tmp_path, pipeline)[1]).values()) == {"finished"}
    pipeline["tasks"]["train"]["variants"]["seed"] = [0, 1, 2]
    pipeline["tasks"]["test"]["variants"]["seed"] = [0, 1, 2]
    states = _states(run(tmp_path, pipeline)[1])
    assert {name for name, state in states.items() if state == "finished"} == {
        "train[seed=2]",
        "test[seed=2]",
        "report",
    }


def _states(told: str) -> dict[str, str]:
    """Last state of each task, of the plain lines."""
    lines = [line.partition(": ") for line in told.splitlines() if ": " in line and line[0] != "│"]
    return {name: state.split(" ")[0] for name, _, state in lines}


def _code(text: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", text]


def test_failures_are_retried_then_block_what_needs_them_and_nothing_else(tmp_path: Path) -> None:
    once = str(tmp_path / "once")
    flaky = f"import os, sys; old = os.path.exists({once!r}); open({once!r}, 'w').close(); sys.exit(not old)"
    content = {
        "name": "failing",
        "parallel": 4,
        "tasks": {
            "flaky": {"command": _code(flaky), "retries": 1},
            "bad": {"command": _code("import sys; print('why'); sys.exit(3)"), "retries": 2},
            "slow": {"command": _code("import time; time.sleep(60)"), "seconds": 0.3, "grace": 0.1},
            "lazy": {"command": _code("pass"), "outputs": {"model": "${task.dir}/model.pt"}},
            "absent": {"command": ["no-such-program-here"]},
            "after": {"command": _code("pass"), "needs": ["bad"]},
            "beyond": {"command": _code("pass"), "needs": ["after"]},
            "apart": {"command": _code("pass")},
        },
    }
    code, told = run(tmp_path, content)
    assert code == 1
    states = {"flaky": "finished", "apart": "finished", "after": "blocked", "beyond": "blocked"}
    assert _states(told) == {**states, **dict.fromkeys(("bad", "slow", "lazy", "absent"), "failed")}
    for reason in ("exit code 3", "over its time limit", "did not make model (", "no-such-program-here", "needs bad"):
        assert reason in told
    assert (tmp_path / "state" / "tasks" / "bad" / "log.txt").read_text() == "why\n" * 3
    assert _processes(tmp_path) == []


def test_parallel_is_the_width(tmp_path: Path) -> None:
    busy = (
        "import os, sys, time; folder = sys.argv[1]; own = f'{folder}/{os.getpid()}'; open(own, 'w').close()\n"
        "print(len(os.listdir(folder))); time.sleep(0.2); os.remove(own)"
    )
    (tmp_path / "busy").mkdir()
    widths = {"command": [*_code(busy), str(tmp_path / "busy")], "variants": {"n": [1, 2, 3, 4, 5]}}
    assert run(tmp_path, {"name": "wide", "parallel": 2, "tasks": {"busy": widths}})[0] == 0
    seen = [int(path.read_text()) for path in tmp_path.glob("state/tasks/*/log.txt")]
    assert len(seen) == 5
    assert max(seen) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"needs": ["prepar"]}, r"tasks\.report\.needs: no task 'prepar'; did you mean 'prepare'"),
        ({"comand": ["a"]}, r"tasks\.report\.comand: unknown key; did you mean 'command'"),
        ({"command": "echo a"}, r"tasks\.report\.command: .*list"),
        ({"command": ["sleep", 3]}, r"tasks\.report\.command\.1: .*string, found 3"),
        ({"command": ["${tasks.trian.made}"]}, r"no task 'trian'; did you mean 'train'\?"),
        ({"command": ["${tasks.train.mode}"]}, r"no output 'mode'; did you mean 'made'\?"),
        ({"command": ["x=${tasks.train.made}"]}, r"has 2 values: it must be an argument of its own"),
        ({"command": ["${variant.seed}"]}, r"\$\{variant\.seed\} names nothing"),
        ({"command": ["${oc.env:HOME}"]}, r"is no reference"),
        ({"command": ["${task.__class__}"]}, r"is no reference|names nothing"),
        ({"command": ["${unclosed"]}, r"is no reference"),
        ({"retries": -1}, r"tasks\.report\.retries: .*greater than or equal to 0"),
        ({"seconds": "1h"}, r"tasks\.report\.seconds: .*number, found '1h'"),
        ({"outputs": {"dir": "x"}}, r"outputs\.dir: the name of the task's own folder"),
    ],
)
def test_mistakes_are_named_before_anything_runs(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    content = six(tmp_path)
    content["tasks"]["report"].update(change)
    with pytest.raises(PipelineError, match=message):
        run(tmp_path, content)
    assert ledger(tmp_path) == []
    assert not (tmp_path / "state").exists()


def test_tasks_that_need_each_other_are_named(tmp_path: Path) -> None:
    content = six(tmp_path)
    content["tasks"]["prepare"]["needs"] = ["report"]
    with pytest.raises(PipelineError, match="prepare -> report -> test -> train -> prepare"):
        run(tmp_path, content)


def test_files_that_are_not_plain_yaml_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    for text, message in (
        ("a: !!python/object/apply:os.system ['touch canary']", "python/object"),
        ("name: a\nname: b", "'name' stands twice"),
        ("- a", "expected keys and values, found list"),
        ("name: [", r"p\.yaml"),
    ):
        file.write_text(text)
        with pytest.raises(PipelineError, match=message):
            read_pipeline(file)
    with pytest.raises(PipelineError, match="no such file"):
        read_pipeline(tmp_path / "q.yaml")


def test_variants_meet_where_they_agree(tmp_path: Path) -> None:
    variants = {"seed": [0, 1], "lr": [0.1, 1e-5]}
    content = {
        "name": "matrix",
        "tasks": {
            "train": task(tmp_path, "x", variants=variants),
            "test": {"command": ["a", "${tasks.train.made}"], "variants": {"seed": [0, 1]}},
            "flag": {"command": ["$${HOME}", "on=${variant.on}"], "variants": {"on": [True]}},
        },
    }
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump(content))
    made = {one.name: one for one in instances(read_pipeline(file), folder=tmp_path / "s", cwd=tmp_path)}
    assert [name for name in made if name.startswith("train")] == [
        "train[lr=0.1,seed=0]",
        "train[lr=0.1,seed=1]",
        "train[lr=1e-05,seed=0]",
        "train[lr=1e-05,seed=1]",
    ]
    assert made["test[seed=1]"].needs == ("train[lr=0.1,seed=1]", "train[lr=1e-05,seed=1]")
    assert len(made["test[seed=1]"].command) == 3
    assert made["flag[on=true]"].command == ("${HOME}", "on=true")
    assert len({one.folder for one in made.values()}) == 7


def test_the_command_says_what_is_wrong_and_shows_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump({"name": "one", "tasks": {"only": {"command": _code("pass")}}}))
    for arguments, code in ((["--parallel", "0"], 2), ([], 0)):
        with pytest.raises(SystemExit) as ended:
            main(["pipeline", "run", str(file), *arguments])
        assert ended.value.code == code
    told = capsys.readouterr()
    assert told.err == "error: --parallel 0: expected 1 or more\n"
    assert "only: finished" in told.out
    assert (tmp_path / "runs" / "pipelines" / "one" / "tasks" / "only" / "exit.json").is_file()


def test_a_terminal_gets_one_living_table(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump({"name": "one", "tasks": {"only": {"command": _code("pass")}}}))
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    assert run_pipeline(file, folder=tmp_path / "state", shown=Shown(console)) == 0
    assert "only: " not in screen.getvalue()
    assert "finished" in screen.getvalue().rpartition("only")[2]
