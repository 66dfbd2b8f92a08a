"""Run directories as runs leave them, written in a moment."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neurotrain.app.runs.process import Outcome, ProcessRecord, this_process, write_record

CONFIG = """\
name: {name}
seed: {seed}
stage: fit
model:
  lr: {lr}
paths:
  run_dir: {run_dir}
secret: ${{oc.env:KEY}}
"""


def make_run(
    folder: Path,
    *,
    name: str = "drive",
    seed: int = 0,
    lr: float = 0.1,
    dice: float | None = 0.5,
    started: str = "2026-11-20T10:00:00+00:00",
    outcome: Outcome | None = None,
    pid: int | None = None,
    host: str | None = None,
    checkpoint: bool = False,
) -> Path:
    """Write a run directory: finished where it has a figure."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(name=name, seed=seed, lr=lr, run_dir=folder))
    (folder / "overrides.txt").write_text(f"# 2026-11-19\nold=1\n# 2026-11-20\nmodel.lr={lr}\n")
    (folder / "environment.json").write_text(json.dumps({"started": started, "packages": {"torch": "2.15"}}))
    (folder / "metrics.csv").write_text("step,epoch,val/dice,train/loss\n5,0,0.25,\n10,1,,0.125\n15,2,0.")
    if dice is not None:
        summary: dict[str, Any] = {"metrics": {"test/dice": dice}, "wall_seconds": 61.0, "data": {"name": name}}
        (folder / "summary.json").write_text(json.dumps(summary))
    if checkpoint:
        (folder / "checkpoints").mkdir()
        # the end of an empty zip file's directory
        (folder / "checkpoints" / "last.ckpt").write_bytes(b"PK\5\6" + bytes(18))
    if outcome is not None:
        own = asdict(this_process(folder))
        changes = {"outcome": outcome, "pid": pid or own["pid"], "host": host or platform.node()}
        write_record(folder, ProcessRecord(**{**own, **changes}))
    return folder
