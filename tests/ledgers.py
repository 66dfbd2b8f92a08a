"""What tests of killed drivers look at: the ledger that tasks write, and which of their processes live."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from neurotrain.app.jobs.supervisor import processes_of


def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def ledger(folder: Path) -> list[str]:
    """The lines that tasks have written so far."""
    path = folder / "ledger.txt"
    return path.read_text().splitlines() if path.is_file() else []


def living(folder: Path, attempts: str) -> list[int]:
    """Processes of the jobs whose attempts lie at a pattern below a folder."""
    tokens = [json.loads(path.read_text())["token"] for path in folder.glob(attempts)]
    return [process for token in tokens for process in processes_of(token)]
