"""Runs one command as a process group of its own, ends it in time, and leaves a record of how it ended.

Executed as a script by :class:`neurotrain.app.jobs.process.Job`, with the standard library alone, so that it starts in
some twenty milliseconds. It outlives a driver that is killed just long enough to end the command cleanly: the pipe on
its standard input closes with the driver.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TOKEN = "NEUROTRAIN_JOB"  # noqa: S105 - the name of a variable
"""Variable that every process of a job inherits: how leftovers are found, whatever session they moved to."""

EXIT = "exit.json"
HISTORY = "attempts.jsonl"
STOP = "stop.json"
"""Asks a supervisor that has no pipe to its driver, on another machine, to end its command: token and reason."""
_ENDING = frozenset({signal.SIGTERM, signal.SIGINT})
_WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
_FALLBACK = 1.0  # seconds between looks where nothing wakes us


def processes_of(token: str) -> list[int]:
    """Return the living processes, zombies left out, that inherited a job's token; none where there is no ``/proc``."""
    wanted = f"{TOKEN}={token}".encode()
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # ended meanwhile, or another user's
    return found


def signal_processes(processes: Sequence[int], number: int) -> None:
    """Send a signal to each process that is still there."""
    for process in processes:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue


def write_record(path: Path, record: Mapping[str, object]) -> None:
    """Write a record as JSON so that a reader sees all of it or none, after a power cut too."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(record, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Supervisor:
    """One command under supervision.

    Args:
        command: program and arguments; no shell.
        folder: where ``log.txt`` is appended and ``exit.json`` is left.
        token: of the attempt; in the command's environment.
        cwd: where the command runs.
        environment: of the command, the token excluded.
        seconds: limit of time, or None.
        grace: seconds between SIGTERM and SIGKILL.
        control: descriptor on which ``stop REASON`` arrives and whose end means that the driver died; None where there
            is no driver to die.
        keep: descriptors, of leases, that the command inherits.
    """

    def __init__(
        self,
        *,
        command: Sequence[str],
        folder: Path,
        token: str,
        cwd: str,
        environment: Mapping[str, str],
        seconds: float | None,
        grace: float,
        control: int | None = None,
        keep: Sequence[int] = (),
    ) -> None:
        self.command = list(command)
        self.folder = folder
        self.token = token
        self.cwd = cwd
        self.environment = {**environment, TOKEN: token}
        self.seconds = seconds
        self.grace = grace
        self.control = control
        self.keep = tuple(keep)
        self._reason: str | None = None
        self._kill_at: float | None = None
        self._pending = b""

    def run(self) -> dict[str, object]:
        """Run the command to its end, or end it, and return the record that was written.

        Returns:
            ``token, returncode`` (negative: the signal), ``reason`` (``exited``, ``timeout``, ``driver died``, or what
            ``stop`` was told), ``seconds`` and ``error`` (why it could not be started, or None).
        """
        wake, earlier = self._watch_signals()
        started = time.monotonic()
        error: str | None = None
        try:
            try:
                returncode = self._run(wake)
            except OSError as failure:  # no such program, no such folder
                returncode, error = 127, f"{failure}"
            return self._leave_record(returncode, error, time.monotonic() - started)
        finally:
            self._forget_signals(wake, earlier)

    def _leave_record(self, returncode: int, error: str | None, seconds: float) -> dict[str, object]:
        record: dict[str, object] = {
            "token": self.token,
            "returncode": returncode,
            "reason": self._reason or "exited",
            "seconds": round(seconds, 3),
            "error": error,
        }
        with (self.folder / HISTORY).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        write_record(self.folder / EXIT, record)
        return record

    def _run(self, wake: int) -> int:
        child = self._start()
        try:
            self._watch(wake, child.pid)
        except BaseException:  # a scheduler's own handler ends this process: not before the command has ended
            self._stop("terminated", child.pid)
            self._watch(wake, child.pid)
            raise
        finally:
            # The leader is not reaped yet: its number cannot belong to anybody else.
            _signal_group(child.pid, signal.SIGKILL)
            self._end_others()
            returncode = child.wait()
        return returncode

    def _start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - an argument list, no shell
                self.command,
                cwd=self.cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self.keep,
            )

    def _watch(self, wake: int, child: int) -> None:
        """Return when the command has ended, by itself or not."""
        deadline = None if self.seconds is None else time.monotonic() + self.seconds
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                self._stop("timeout", child)
                deadline = None
            if self._kill_at is not None and now >= self._kill_at:
                _signal_group(child, signal.SIGKILL)
                signal_processes(self._others(), signal.SIGKILL)
                self._kill_at = now + self.grace
            self._wait(wake, [moment - now for moment in (deadline, self._kill_at) if moment is not None], child)

    def _wait(self, wake: int, moments: Sequence[float], group: int) -> None:
        """Sleep until a child ends, the driver speaks or dies, or the next moment comes."""
        watched = [wake] if self.control is None else [wake, self.control]
        ready, _, _ = select.select(watched, [], [], max(0.0, min([*moments, _FALLBACK])))
        if wake in ready and not _ENDING.isdisjoint(os.read(wake, 4096)):
            self._stop("terminated", group)
        if self.control is None:
            self._read_stop(group)
        if self.control is None or self.control not in ready:
            return
        told = os.read(self.control, 4096)
        if not told:
            self.control = None
            self._stop("driver died", group)
        self._pending += told
        *lines, self._pending = self._pending.split(b"\n")
        for line in lines:
            self._stop(line.decode().removeprefix("stop "), group)

    def _read_stop(self, group: int) -> None:
        try:
            told = json.loads((self.folder / STOP).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        if told["token"] == self.token:
            self._stop(told["reason"], group)

    def _stop(self, reason: str, group: int) -> None:
        """Ask the command to end; what it is told first is the reason that counts."""
        if self._reason is None:
            self._reason = reason
            self._kill_at = time.monotonic() + self.grace
            _signal_group(group, signal.SIGTERM)

    def _others(self) -> list[int]:
        return [process for process in processes_of(self.token) if process != os.getpid()]

    def _end_others(self) -> None:
        """Kill what the command left running, in other sessions too."""
        end = time.monotonic() + 5.0
        while (left := self._others()) and time.monotonic() < end:
            signal_processes(left, signal.SIGKILL)
            time.sleep(0.01)

    def _watch_signals(self) -> tuple[int, tuple[object, ...]]:
        read, write = os.pipe()
        os.set_blocking(write, False)
        # Functions, for what is ignored would be ignored by the command as well.
        handlers = tuple(signal.signal(number, _ignore) for number in _WATCHED)
        return read, (signal.set_wakeup_fd(write), write, *handlers)

    def _forget_signals(self, wake: int, earlier: tuple[object, ...]) -> None:
        wakeup, write, *handlers = earlier
        assert isinstance(wakeup, int)
        assert isinstance(write, int)
        signal.set_wakeup_fd(wakeup)
        for number, handler in zip(_WATCHED, handlers, strict=True):
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        os.close(write)
        os.close(wake)


def _ignore(number: int, frame: object) -> None:
    """Let the signal reach the descriptor that wakes us, and nothing else."""


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        return


def _main() -> None:
    """Read the job from the first line of standard input, the driver's pipe, and run it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until the command runs, and while its end is written down
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return  # the driver died before it could say what to run
        line += byte
    told = json.loads(line)
    environment = {name: value for name, value in os.environ.items() if name != TOKEN}
    Supervisor(
        command=told["command"],
        folder=Path(told["folder"]),
        token=told["token"],
        cwd=told["cwd"],
        environment={**environment, **told["environment"]},
        seconds=told["seconds"],
        grace=told["grace"],
        control=0,
        keep=told["keep"],
    ).run()


if __name__ == "__main__":
    sys.exit(_main())
