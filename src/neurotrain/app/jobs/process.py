"""A job as its driver sees it: started once, looked at, ended, and told apart from what a dead driver left."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neurotrain.app.jobs import supervisor
from neurotrain.app.jobs.supervisor import EXIT, HISTORY, TOKEN, processes_of, signal_processes, write_record

ATTEMPT = "attempt.json"
GRACE = 30.0
"""Seconds between SIGTERM, at which a training saves, and SIGKILL."""


class LeftoverError(ValueError):
    """Processes of an earlier attempt cannot be ended."""


@dataclass(frozen=True)
class Command:
    """What to run.

    Attributes:
        arguments: program and arguments; no shell.
        folder: of the job: its log and its records.
        cwd: where to run.
        environment: variables beside the inherited ones.
        without: inherited variables that are left out.
        seconds: limit of time; None where there is none.
        grace: seconds between SIGTERM and SIGKILL.
        label: kept with the attempt, for :func:`attempt_of`.
    """

    arguments: tuple[str, ...]
    folder: Path
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    without: frozenset[str] = frozenset()
    seconds: float | None = None
    grace: float = GRACE
    label: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True)
class Ending:
    """How the newest attempt of a job ended.

    Attributes:
        returncode: of the command, negative for a signal; None where it was killed together with its supervisor.
        reason: ``exited``, ``timeout``, ``driver died``, ``terminated``, ``lost``, or what the driver gave.
        seconds: wall time of the attempt; None where nobody was left to take it.
        error: why the command could not be started, or None.
    """

    returncode: int | None
    reason: str
    seconds: float | None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the command ended by itself, with 0."""
        return self.returncode == 0 and self.reason == "exited"

    def __str__(self) -> str:
        """One short phrase: ``exit code 2``, ``killed by SIGKILL``, ``over its time limit``."""
        if self.error is not None:
            return self.error
        if self.reason == "timeout":
            return "over its time limit"
        if self.returncode is None:
            return "killed together with its supervisor"
        if self.reason != "exited":
            return f"ended: {self.reason}"
        if self.returncode < 0:
            return f"killed by {signal.Signals(-self.returncode).name}"
        return f"exit code {self.returncode}"


class Job:
    """A command that runs under a supervisor; made by :meth:`start`.

    Args:
        folder: of the job.
        process: the supervisor.
        grace: seconds that what it left behind has between SIGTERM and SIGKILL.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], grace: float) -> None:
        self.folder = folder
        self._process = process
        self._grace = grace

    @classmethod
    def start(cls, command: Command, *, keep: Sequence[int] = ()) -> Job:
        """Start a command whose folder no earlier attempt is still using.

        Args:
            command: what to run.
            keep: descriptors, of leases, that stay open in the job however its driver ends.

        Returns:
            The running job.
        """
        token = begin_attempt(command.folder, command.label)
        inherited = {name: value for name, value in os.environ.items() if name not in command.without}
        process = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-I", "-S", supervisor.__file__],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**inherited, TOKEN: token},
            start_new_session=True,
            pass_fds=tuple(keep),
        )
        job = cls(command.folder, process, command.grace)
        told = {
            "command": list(command.arguments),
            "folder": str(command.folder.absolute()),
            "token": token,
            "cwd": str(command.cwd),
            "environment": dict(command.environment),
            "seconds": command.seconds,
            "grace": command.grace,
            "keep": list(keep),
        }
        job._tell(json.dumps(told))
        return job

    def poll(self) -> Ending | None:
        """Return how the job ended, or None while it runs."""
        if self._process.poll() is None:
            return None
        assert self._process.stdin is not None
        self._process.stdin.close()
        return settle(self.folder, grace=self._grace)

    def stop(self, reason: str) -> None:
        """Ask the job to end: SIGTERM now, SIGKILL after its grace; the first reason counts."""
        self._tell(f"stop {reason}")

    def kill(self) -> None:
        """End the job at once."""
        token = attempt_of(self.folder)["token"]
        signal_processes([found for found in processes_of(token) if found != self._process.pid], signal.SIGKILL)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            left = memoryview(line.encode() + b"\n")
            while left:
                left = left[os.write(self._process.stdin.fileno(), left) :]
        except BrokenPipeError:
            return  # it has ended: `poll` says how


def begin_attempt(folder: Path, label: Mapping[str, object]) -> str:
    """Note that a job is about to be started: before there is any process, so that whoever looks can find it.

    Args:
        folder: of the job, made where absent.
        label: kept with the attempt.

    Returns:
        The token of the attempt, which all its processes inherit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(16)
    write_record(folder / ATTEMPT, {**label, "token": token, "attempt": attempts(folder) + 1})
    return token


def attempts(folder: Path) -> int:
    """Return how many times a job was started."""
    return int(attempt_of(folder).get("attempt", 0))


def attempt_of(folder: Path) -> dict[str, Any]:
    """Return the newest attempt of a job: ``token``, ``attempt`` from 1, and its label; empty before the first."""
    return _read(folder / ATTEMPT)


def seconds_spent(folder: Path) -> float:
    """Return the wall time of all attempts of a job that left a record."""
    try:
        lines = (folder / HISTORY).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return 0.0
    return sum(json.loads(line)["seconds"] for line in lines if line.endswith("}"))


def recorded(folder: Path) -> Ending | None:
    """Return how the newest attempt of a job ended, as its supervisor wrote it down; None where it did not."""
    record = _read(folder / EXIT)
    if record.get("token") is None or record["token"] != attempt_of(folder).get("token"):
        return None
    return Ending(record["returncode"], record["reason"], record["seconds"], record["error"])


def settle(folder: Path, *, grace: float = GRACE) -> Ending | None:
    """Say how the newest attempt of a job ended, after ending what a dead driver left of it.

    Args:
        folder: of the job.
        grace: seconds that leftovers have between SIGTERM and SIGKILL.

    Returns:
        The ending, or None where the job was never started.

    Raises:
        LeftoverError: if a process of it survives SIGKILL, as one that waits for a broken disk does.
    """
    attempt = attempt_of(folder)
    if not attempt:
        return None
    token = attempt["token"]
    if recorded(folder) is None and (left := processes_of(token)):
        # A supervisor that is still there asks the command, once, and writes the record: a second SIGTERM, as one
        # straight to the command would be, tells a training not to save.
        signal_processes([one for one in left if _is_supervisor(one)] or left, signal.SIGTERM)
        _wait_for_end(token, grace + 2)
        signal_processes(processes_of(token), signal.SIGKILL)
        if left := _wait_for_end(token, 5.0):
            raise LeftoverError(f"{folder}: processes {left} of an earlier attempt do not end on SIGKILL")
    return recorded(folder) or Ending(None, "lost", None)


def _is_supervisor(process: int) -> bool:
    try:
        return supervisor.__file__.encode() in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False  # ended meanwhile


def _wait_for_end(token: str, seconds: float) -> list[int]:
    end = time.monotonic() + seconds
    while (left := processes_of(token)) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
