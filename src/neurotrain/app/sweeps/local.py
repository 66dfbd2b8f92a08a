"""Trials on this machine: a process each, a device each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from neurotrain.app.jobs.leases import Lease, Leases
from neurotrain.app.jobs.process import Command, Ending, Job, attempts, settle
from neurotrain.app.sweeps.trials import Plan, SweepFolder

WITHOUT = frozenset({"NEUROTRAIN_RUN_DIR"})
"""Variables of a run that a trial must not take for its own."""

CommandOf = Callable[[Plan, bool], Sequence[str]]
"""Gives the command of a plan; the flag says that an earlier attempt was interrupted."""


class LocalTrial:
    """A job and the lease of its devices.

    Args:
        job: that runs.
        lease: given back when it has ended.
    """

    def __init__(self, job: Job, lease: Lease) -> None:
        self._job = job
        self._lease = lease

    def poll(self) -> Ending | None:
        """Return how it ended, or None while it runs."""
        ending = self._job.poll()
        if ending is not None:
            self._lease.release()
        return ending

    def stop(self, reason: str) -> None:
        """Ask it to save and end."""
        self._job.stop(reason)

    def kill(self) -> None:
        """End it at once."""
        self._job.kill()


class LocalLauncher:
    """Starts each trial as a supervised process with a lease.

    Args:
        folder: of the sweep.
        command: of a plan.
        leases: of devices and places.
        cwd: where trials run.
        seconds: limit of time for a trial, or None.
        grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        *,
        folder: SweepFolder,
        command: CommandOf,
        leases: Leases,
        cwd: Path,
        seconds: float | None = None,
        grace: float = 60.0,
    ) -> None:
        self.folder = folder
        self.command = command
        self.leases = leases
        self.cwd = cwd
        self.seconds = seconds
        self.grace = grace

    def start(self, plan: Plan) -> LocalTrial | None:
        """Start a trial, or return None where no device is free."""
        lease = self.leases.take(plan.devices)
        if lease is None:
            return None
        folder = self.folder.of(plan)
        command = Command(
            arguments=tuple(self.command(plan, attempts(folder) > 0)),
            folder=folder,
            cwd=self.cwd,
            environment=lease.environment,
            without=WITHOUT,
            seconds=self.seconds,
            grace=self.grace,
        )
        return LocalTrial(Job.start(command, keep=lease.descriptors), lease)

    def adopt(self, plan: Plan) -> Ending | None:
        """Return how a trial of an earlier driver ended, after ending what is left of it."""
        return settle(self.folder.of(plan), grace=self.grace)


def training_command(program: Sequence[str]) -> CommandOf:
    """Return what makes the command of a training: one process without ``-m``, in the run directory that was planned.

    Args:
        program: that takes ``train.py``'s arguments.

    Returns:
        A function of a plan and of whether it was begun before.
    """

    def command(plan: Plan, begun: bool) -> tuple[str, ...]:
        resume = ("resume=last",) if begun and plan.resumes else ()
        return (*program, *plan.arguments, f"paths.run_dir={plan.run_dir}", *resume)

    return command


def this_program() -> tuple[str, ...]:
    """Return the command that started this process, without its arguments."""
    spec = sys.modules["__main__"].__spec__
    if spec is not None:  # python -m package.module
        return (sys.executable, "-m", spec.name)
    return (sys.executable, str(Path(sys.argv[0]).absolute()))
