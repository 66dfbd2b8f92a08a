"""``process.json``: who works in a run directory, and how that ended; a killed process leaves it as it was."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from neurotrain.app.runs.atomic import write_atomically
from neurotrain.app.runs.rows import METRICS, last_values
from neurotrain.documents import parse_json

NAME = "process.json"

Outcome = Literal["running", "finished", "failed", "interrupted"]
"""What the process itself said last; ``running`` until it ends, so also of one that was killed."""


@dataclass(frozen=True, kw_only=True)
class ProcessRecord:
    """One process of a run, its first rank.

    Attributes:
        pid: on ``host``.
        host: name of the machine.
        ticks: when the kernel started it, which tells it from a later process of the same number; None where the
            system does not say.
        began: seconds since the epoch.
        first_step: optimizer steps that the run's metrics told of when it began.
        outcome: see :data:`Outcome`.
        error: type of the exception that ended it; what it says stands in the log, where secrets are hidden.
    """

    pid: int
    host: str
    ticks: int | None
    began: float
    first_step: int = 0
    outcome: Outcome = "running"
    error: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether it ran on this machine."""
        return self.host == platform.node()

    def is_alive(self) -> bool:
        """Whether it runs on this machine now."""
        if not self.is_here:
            return False
        if self.ticks is not None:
            return _ticks(self.pid) == self.ticks
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def this_process(run_dir: Path) -> ProcessRecord:
    """Describe the calling process as the one that works in ``run_dir``."""
    pid = os.getpid()
    step = int(last_values(run_dir / METRICS).get("step", 0))
    return ProcessRecord(pid=pid, host=platform.node(), ticks=_ticks(pid), began=time.time(), first_step=step)


def read_record(run_dir: Path) -> ProcessRecord | None:
    """Return the record of a run directory; None where there is none, or none that can be read."""
    try:
        values = parse_json((run_dir / NAME).read_text(encoding="utf-8"))
        return ProcessRecord(**values)
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_record(run_dir: Path, record: ProcessRecord) -> None:
    """Write ``process.json`` atomically."""
    write_atomically(run_dir / NAME, json.dumps(asdict(record), indent=2) + "\n")


@contextmanager
def recorded(run_dir: Path, *, first_rank: bool = True) -> Generator[None]:
    """Say in ``process.json`` that this process works in ``run_dir``, and how its work ended.

    Args:
        run_dir: exists.
        first_rank: whether this process speaks for the run; others write nothing.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with recorded(folder):
        ...     read_record(folder).is_alive()
        True
        >>> read_record(folder).outcome
        'finished'
    """
    if not first_rank:
        yield
        return
    record = this_process(run_dir)
    write_record(run_dir, record)
    try:
        yield
    except Exception as error:
        write_record(run_dir, replace(record, outcome="failed", error=type(error).__name__))
        raise
    except BaseException:  # SIGTERM, SIGINT, SystemExit: somebody ended it
        write_record(run_dir, replace(record, outcome="interrupted"))
        raise
    write_record(run_dir, replace(record, outcome="finished"))


def _ticks(pid: int) -> int | None:
    """Field 22 of Linux's ``/proc/<pid>/stat``, counted behind the name, which may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])
