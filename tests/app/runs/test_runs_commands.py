"""The commands as they are typed."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from run_folders import make_run

from neurotrain.app.cli import main


class Terminal(io.StringIO):
    """Standard input of somebody who answers."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    runs = tmp_path / "runs"
    make_run(runs / "drive" / "20261120-a1", dice=0.5, lr=0.1)
    make_run(runs / "drive" / "20261121-b2", dice=0.75, lr=0.2, started="2026-11-21T10:00:00+00:00")
    make_run(runs / "drive" / "20261122-c3", dice=float("nan"), seed=3, started="2026-11-22T10:00:00+00:00")
    make_run(runs / "btcv" / "x", name="btcv", dice=0.875, outcome="finished")
    return runs


def _run(capsys: pytest.CaptureFixture[str], runs_dir: Path, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--runs-dir", str(runs_dir)])
    told = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, told.out, told.err


def _ids(capsys: pytest.CaptureFixture[str], runs_dir: Path, *arguments: str) -> list[str]:
    code, out, _ = _run(capsys, runs_dir, "runs", "list", "--json", *arguments)
    assert code == 0
    return [facts["id"].rpartition("-")[2] for facts in json.loads(out)]


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ([], ["c3", "b2", "btcv/x", "a1"]),
        (["--sort", "test/dice"], ["a1", "b2", "btcv/x", "c3"]),
        (["--sort", "test/dice", "--descending"], ["btcv/x", "b2", "a1", "c3"]),
        (["--experiment", "drive", "--limit", "2"], ["c3", "b2"]),
        (["--where", "test/dice>0.5"], ["b2", "btcv/x"]),
        (["--where", "test/dice>0.5", "--where", "model.lr=0.2"], ["b2"]),
        (["--where", "status=finished and seed=3"], ["c3"]),
        (["--since", "2026-11-21"], ["c3", "b2"]),
    ],
)
def test_list(arguments: list[str], ids: list[str], runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _ids(capsys, runs_dir, *arguments) == ids


def test_the_list_for_people(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = _run(capsys, runs_dir, "runs", "list", "--experiment", "drive", "--where", "model.lr < 1")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["run", "status", "started", "time", "model.lr", "test/dice", "val/dice"]
    assert lines[2][:2] + lines[2][4:] == ["drive/20261121-b2", "finished", "0:01:01", "0.2", "0.75", "0.25"]


def test_json_has_no_nan(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = _run(capsys, runs_dir, "runs", "show", "c3", "--json")
    shown: dict[str, Any] = json.loads(out, parse_constant=lambda text: pytest.fail(text))
    assert shown["metrics"]["test/dice"] is None
    assert (shown["status"], shown["seed"]) == ("finished", 3)


def test_show(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, runs_dir, "runs", "show", str(runs_dir / "drive" / "20261121-b2"))
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (code, rows["test/dice"], rows["model.lr"], rows["overrides"]) == (0, "0.75", "0.2", "model.lr=0.2")
    assert rows["secret"] == "${oc.env:KEY}"


def test_compare_shows_what_differs_only(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = _run(capsys, runs_dir, "runs", "compare", "a1", "b2", "x", "--json")
    told = json.loads(out)
    a, b, x = "drive/20261120-a1", "drive/20261121-b2", "btcv/x"
    assert told["parameters"] == {"model.lr": {a: 0.1, b: 0.2, x: 0.1}, "name": {a: "drive", b: "drive", x: "btcv"}}
    assert told["metrics"] == {"test/dice": {a: 0.5, b: 0.75, x: 0.875}}
    _, out, _ = _run(capsys, runs_dir, "runs", "compare", "a1", "b2")
    assert "environment: equal" in out
    assert [line.split() for line in out.splitlines() if line.startswith("test/dice")] == [
        ["test/dice", "0.5", "0.75", "+0.25"]
    ]


def test_compare_tests_samples_in_pairs(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shift in (("20261120-a1", 0.0), ("20261121-b2", 0.1)):
        rows = "".join(f"{i},{0.1 * i + shift * (1 + 0.01 * i):.6f}\n" for i in range(8))
        (runs_dir / "drive" / name / "test_samples.csv").write_text(f"id,dice\n{rows}")
    _, out, _ = _run(capsys, runs_dir, "runs", "compare", "a1", "b2", "--samples", "--json")
    (test,) = json.loads(out)["samples"]
    assert (test["figure"], test["samples"]) == ("dice", 8)
    assert test["difference"]["mean"] == pytest.approx(0.1035)
    assert test["wilcoxon_p"] == pytest.approx(2 / 2**8)
    code, _, err = _run(capsys, runs_dir, "runs", "compare", "a1", "c3", "--samples")
    assert (code, "test_samples.csv is missing" in err) == (2, True)


@pytest.mark.parametrize(
    ("mode", "experiment", "run"), [("max", [], "btcv/x"), ("min", [], "a1"), ("max", ["--experiment", "drive"], "b2")]
)
def test_best(mode: str, experiment: list[str], run: str, runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = ("runs", "best", "--metric", "test/dice", "--mode", mode, "--json", *experiment)
    code, out, _ = _run(capsys, runs_dir, *best)
    assert (code, json.loads(out)["id"].rpartition("-")[2]) == (0, run)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs", "show", "z9"], "z9: no such run"),
        (["runs", "show", "2026112"], "2026112: 3 runs are meant"),
        (["runs", "best", "--metric", "test/dise", "--mode", "max"], "did you mean 'test/dice'?"),
        (["runs", "list", "--where", "model.lrr=1"], "did you mean 'model.lr'?"),
        (["runs", "list", "--sort", "tset/dice"], "did you mean 'test/dice'?"),
        (["runs", "list", "--columns", "tset/dice"], "did you mean 'test/dice'?"),
        (["runs", "list", "--experiment", "drve"], "did you mean 'drive'?"),
        (["runs", "list", "--since", "yesterday"], "--since yesterday: expected a date"),
        (["runs", "list", "--descending"], "--descending has no effect without --sort"),
        (["runs", "list", "--limit", "0"], "--limit 0: must be at least 1"),
        (["runs", "compare", "a1", "drive/20261120-a1"], "at least two different runs"),
        (["monitor", "a1", "--json"], "--json has no effect without --once"),
    ],
)
def test_mistakes(arguments: list[str], message: str, runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _run(capsys, runs_dir, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err


def test_rm_asks(runs_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs_dir / "drive" / "20261120-a1"
    code, _, err = _run(capsys, runs_dir, "runs", "rm", "a1")
    assert (code, "add --yes" in err, run.is_dir()) == (2, True, True)
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert _run(capsys, runs_dir, "runs", "rm", "a1")[0] == 1
    assert run.is_dir()
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert _run(capsys, runs_dir, "runs", "rm", "a1")[0] == 0
    assert [path.name for path in sorted((runs_dir / "drive").iterdir())] == ["20261121-b2", "20261122-c3"]


def test_rm_refuses_a_running_one_before_it_removes_any(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(runs_dir / "live", outcome="running")
    code, _, err = _run(capsys, runs_dir, "runs", "rm", "a1", "live", "--yes")
    assert (code, err) == (2, "error: live is running: stop it first\n")
    assert len(_ids(capsys, runs_dir)) == 5


def test_rm_leaves_alone_what_links_point_to(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = runs_dir.parent / "outside"
    make_run(outside / "run")
    (runs_dir / "btcv" / "x" / "data").symlink_to(outside)
    (runs_dir / "linked").symlink_to(outside)
    assert _run(capsys, runs_dir, "runs", "rm", "btcv/x", "--yes")[0] == 0
    assert not (runs_dir / "btcv" / "x").exists()
    for name in ("linked/run", "../outside/run", str(outside / "run"), "..", "."):
        assert _run(capsys, runs_dir, "runs", "rm", name, "--yes")[0] == 2
    assert (outside / "run" / "config.yaml").is_file()
