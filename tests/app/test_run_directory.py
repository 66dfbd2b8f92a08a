from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neurotrain.app.run_directory import ResumeError, environment, locate
from neurotrain.app.runs.atomic import write_atomically


def _checkpoint(run: Path, step: int = 8) -> Path:
    path = run / "checkpoints" / f"step-{step:08d}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"step": step}, path)
    return path


def test_new_runs_never_share_a_folder(tmp_path: Path) -> None:
    first, second = (locate(name="toy", runs_dir=tmp_path, run_dir=None, resume=None) for _ in range(2))
    assert first.path.parent == second.path.parent == tmp_path / "toy"
    assert first.path != second.path
    assert first.checkpoint is None


def test_last_finds_the_newest_run_that_has_a_checkpoint(tmp_path: Path) -> None:
    _checkpoint(tmp_path / "toy" / "20260101-000000-aaaaaa")
    newest = _checkpoint(tmp_path / "toy" / "20260102-000000-aaaaaa")
    (tmp_path / "toy" / "20260103-000000-aaaaaa").mkdir()
    found = locate(name="toy", runs_dir=tmp_path, run_dir=None, resume="last")
    assert found.checkpoint == newest
    assert found.path == newest.parents[1]


def test_last_starts_anew_where_there_is_nothing_and_must_refuses(tmp_path: Path) -> None:
    assert locate(name="toy", runs_dir=tmp_path, run_dir=None, resume="last").checkpoint is None
    with pytest.raises(ResumeError, match="resume=must"):
        locate(name="toy", runs_dir=tmp_path, run_dir=None, resume="must")


def test_a_path_names_a_run_or_a_checkpoint(tmp_path: Path) -> None:
    early, late = _checkpoint(tmp_path / "run", 4), _checkpoint(tmp_path / "run", 8)
    assert locate(name="toy", runs_dir=tmp_path, run_dir=None, resume=str(tmp_path / "run")).checkpoint == late
    assert locate(name="toy", runs_dir=tmp_path, run_dir=None, resume=str(early)).checkpoint == early


@pytest.mark.parametrize("target", ["nowhere", "empty", "loose.ckpt"])
def test_a_path_without_a_run_is_refused(target: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "loose.ckpt").write_bytes(b"")
    with pytest.raises(ResumeError, match=target):
        locate(name="toy", runs_dir=tmp_path, run_dir=None, resume=str(tmp_path / target))


def test_a_new_run_never_falls_on_an_old_one(tmp_path: Path) -> None:
    _checkpoint(tmp_path / "run")
    with pytest.raises(ResumeError, match="resume=last"):
        locate(name="toy", runs_dir=tmp_path, run_dir=tmp_path / "run", resume=None)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_atomically(target, "old")
    write_atomically(target, "new")
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_the_environment_names_versions_and_device() -> None:
    found = environment()
    assert {"torch", "lightning", "numpy"} <= found["packages"].keys()
    assert found["device"]
