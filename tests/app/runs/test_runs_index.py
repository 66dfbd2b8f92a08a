"""The index says what the run directories say, whatever becomes of it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from run_folders import make_run

from neurotrain.app.runs import index as index_module
from neurotrain.app.runs.errors import RunsError
from neurotrain.app.runs.index import NAME, RunIndex
from neurotrain.app.runs.reading import RunFacts, read_run


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    make_run(tmp_path / "drive" / "one")
    make_run(tmp_path / "drive" / "two", dice=0.75)
    make_run(tmp_path / "typed")
    return tmp_path


def _ids(runs_dir: Path) -> list[str]:
    return [facts.id for facts in RunIndex(runs_dir=runs_dir).runs()]


def test_facts_of_a_run(runs_dir: Path) -> None:
    one = RunIndex(runs_dir=runs_dir).runs()[0]
    assert (one.id, one.experiment, one.seed, one.stage) == ("drive/one", "drive", 0, "fit")
    # the torn last row does not count; what the summary lacks is the last value that was logged
    assert one.metrics == {"step": 10, "epoch": 1, "val/dice": 0.25, "train/loss": 0.125, "test/dice": 0.5}
    assert one.parameters["model.lr"] == 0.1
    assert one.parameters["secret"] == "${oc.env:KEY}"
    assert one.overrides == ["model.lr=0.1"]
    assert one.environment == {"packages.torch": "2.15"}
    assert RunFacts.from_json(one.to_json()) == one


def test_only_what_has_changed_is_read(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: Path, root: Path) -> RunFacts:
        read.append(path.name)
        return read_run(path, root)

    monkeypatch.setattr(index_module, "read_run", counted)
    assert len(RunIndex(runs_dir=runs_dir).runs()) == len(read) == 3
    RunIndex(runs_dir=runs_dir).runs()
    assert len(read) == 3
    with (runs_dir / "drive" / "two" / "metrics.csv").open("a") as file:
        file.write("5,\n")  # the torn row becomes whole
    assert RunIndex(runs_dir=runs_dir).runs()[1].metrics["val/dice"] == 0.5
    assert read[3:] == ["two"]


def test_a_change_of_the_same_size_is_noticed(runs_dir: Path) -> None:
    RunIndex(runs_dir=runs_dir).runs()
    path = runs_dir / "typed" / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 7"))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert RunIndex(runs_dir=runs_dir).runs()[2].seed == 7


def test_runs_come_and_go(runs_dir: Path) -> None:
    assert _ids(runs_dir) == ["drive/one", "drive/two", "typed"]
    shutil.rmtree(runs_dir / "drive" / "one")
    make_run(runs_dir / "deep" / "sweep" / "3")
    assert _ids(runs_dir) == ["deep/sweep/3", "drive/two", "typed"]
    with closing(sqlite3.connect(runs_dir / NAME)) as connection:
        assert {row[0] for row in connection.execute("SELECT id FROM runs")} == set(_ids(runs_dir))


@pytest.mark.parametrize("damage", ["deleted", "no database", "torn", "another version", "foreign rows", "no table"])
def test_a_bad_index_is_made_anew(damage: str, runs_dir: Path) -> None:
    before = RunIndex(runs_dir=runs_dir).runs()
    path = runs_dir / NAME
    if damage == "deleted":
        path.unlink()
    elif damage == "no database":
        path.write_bytes(b"hello" * 1000)
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:4096] + bytes(4096))
    else:
        change = {
            "another version": "PRAGMA user_version = 999",
            "foreign rows": "UPDATE runs SET facts = '[1]'",
            "no table": "DROP TABLE runs",
        }[damage]
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(change)
    assert RunIndex(runs_dir=runs_dir).runs() == before
    with closing(sqlite3.connect(path)) as connection:
        stored = {name: RunFacts.from_json(text) for name, text in connection.execute("SELECT id, facts FROM runs")}
    assert stored == {facts.id: facts for facts in before}


def test_a_locked_index_is_done_without(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunIndex(runs_dir=runs_dir).runs()
    make_run(runs_dir / "new")
    monkeypatch.setattr(index_module, "_WAIT", 0.01)
    with closing(sqlite3.connect(runs_dir / NAME)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert _ids(runs_dir) == ["drive/one", "drive/two", "new", "typed"]


def _looks(runs_dir: Path) -> None:
    for turn in range(5):
        make_run(runs_dir / f"{os.getpid()}-{turn}")
        assert len(RunIndex(runs_dir=runs_dir).runs()) >= 3 + turn + 1


def test_several_processes_at_once(runs_dir: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_looks, args=(runs_dir,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(RunIndex(runs_dir=runs_dir).runs()) == 18
    with closing(sqlite3.connect(runs_dir / NAME)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_links_are_not_followed(runs_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    make_run(outside / "run")
    (runs_dir / "linked").symlink_to(outside)
    assert _ids(runs_dir) == ["drive/one", "drive/two", "typed"]


def test_torn_files_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "x")
    (run / "config.yaml").write_text("a: [")
    (run / "summary.json").write_text('{"metrics": {')
    (run / "process.json").write_text('{"pid"')
    (run / "metrics.csv").write_bytes(b"step,loss\n1,0.5\n2,abc\n3\n\xff,1\n4,0.25\n")
    facts = read_run(run, tmp_path)
    assert (facts.parameters, facts.process, facts.metrics) == ({}, None, {"step": 4, "loss": 0.25})


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunsError, match="--runs-dir"):
        RunIndex(runs_dir=tmp_path / "absent")
