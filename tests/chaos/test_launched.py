"""The same faults under the command that people type, with the launcher that Lightning starts the other rank by."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from killing import small_drive

from neurotrain.callbacks import find_last

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.all_kills


def _command(folder: Path, *more: str) -> list[str]:
    more = ("trainer.max_epochs=400", "data.dataset.train=6", "data.validation=2", *more)
    overrides = [*small_drive(folder / "data", folder / "run", 0), "trainer=ddp_sim", *more]
    return [sys.executable, str(ROOT / "train.py"), "experiment=drive_unet", *overrides]


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "tests" / "e2e"), str(ROOT / "src")])
    return {**os.environ, "PYTHONPATH": path, "NEUROTRAIN_ALLOW": "killing", "GLOO_SOCKET_IFNAME": "lo"}


def _trouble(rank: int, fault: str) -> list[str]:
    return [
        "callbacks.trouble._target_=killing.TroubleOnRank",
        f"callbacks.trouble.rank={rank}",
        "callbacks.trouble.step=5",
        f"callbacks.trouble.fault={fault}",
    ]


def _assert_nobody_is_left(folder: Path) -> None:
    """No process still has the run's folder on its command line."""
    deadline = time.monotonic() + 60
    while left := [pid for pid in Path("/proc").glob("[0-9]*") if str(folder).encode() in _line(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def _line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


@pytest.mark.parametrize(("rank", "fault"), [(0, "raises"), (1, "raises"), (0, "is stopped"), (1, "is stopped")])
def test_one_rank_has_trouble(rank: int, fault: str, tmp_path: Path, tried: Callable[..., None]) -> None:
    tried(f"one rank {fault}, under the launcher")
    command = _command(tmp_path, "callbacks.watchdog.deadline=20", *_trouble(rank, fault))
    run = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=900, check=False)
    told = run.stdout + run.stderr
    assert run.returncode != 0, told
    if fault == "raises":
        assert "RuntimeError: a rank has its own trouble" in told
        assert "Traceback" in told
    else:
        assert "nothing has happened for" in told
    _assert_nobody_is_left(tmp_path)
    assert find_last(tmp_path / "run" / "checkpoints") is not None


def test_sigterm_to_the_launcher_ends_both_ranks(tmp_path: Path, tried: Callable[..., None]) -> None:
    tried("SIGTERM, under the launcher")
    with (tmp_path / "told").open("wb") as told:
        process = subprocess.Popen(_command(tmp_path), env=_environment(), stdout=told, stderr=told)
    deadline = time.monotonic() + 800
    while not list((tmp_path / "run").glob("checkpoints/*.whole")):
        assert time.monotonic() < deadline
        assert process.poll() is None, (tmp_path / "told").read_text()
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, (tmp_path / "told").read_text()
    assert "stopped by SIGTERM" in (tmp_path / "told").read_text()
    _assert_nobody_is_left(tmp_path)
