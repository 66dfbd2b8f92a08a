"""Trials as jobs of a SLURM cluster, by submitit; the folder of the sweep lies on a disk that all nodes share."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from neurotrain.app.jobs.process import Ending, attempt_of, attempts, begin_attempt, recorded
from neurotrain.app.jobs.supervisor import STOP, Supervisor, write_record
from neurotrain.app.sweeps.local import WITHOUT, CommandOf
from neurotrain.app.sweeps.settings import Slurm
from neurotrain.app.sweeps.trials import Plan, SweepError, SweepFolder

if TYPE_CHECKING:
    import submitit
    from submitit.helpers import DelayedSubmission

Cluster = Literal["slurm", "local", "debug"]
STARTED = "started.json"
_LATE = 10.0
"""Seconds that a record may need from the node where it was written to be seen here."""


@dataclass(frozen=True)
class ClusterTask:
    """What a node runs: the command of a trial under supervision; picklable.

    Attributes:
        command: of the trial's first attempt.
        command_again: of one that was begun before.
        run_dir: of the trial.
        folder: of the trial in the sweep.
        token: of the attempt.
        cwd: where to run.
        seconds: limit of time, or None.
        grace: seconds between SIGTERM and SIGKILL.
    """

    command: tuple[str, ...]
    command_again: tuple[str, ...]
    run_dir: str
    folder: str
    token: str
    cwd: str
    seconds: float | None
    grace: float

    def __call__(self) -> None:
        """Run the command; rank 0 leaves the trial's record, other ranks one of their own below it."""
        import submitit

        folder = Path(self.folder)
        if attempt_of(folder).get("token") != self.token:
            return  # submitted by a driver that died before it could note it, and submitted anew since
        job = submitit.JobEnvironment()
        place = folder if job.global_rank == 0 else folder / f"rank-{job.global_rank}"
        place.mkdir(exist_ok=True)
        if job.global_rank == 0:
            write_record(folder / STARTED, {"token": self.token, "job": job.job_id})
        begun = (Path(self.run_dir) / "checkpoints").is_dir()
        Supervisor(
            command=self.command_again if begun else self.command,
            folder=place,
            token=self.token,
            cwd=self.cwd,
            environment={name: value for name, value in os.environ.items() if name not in WITHOUT},
            seconds=self.seconds,
            grace=self.grace,
        ).run()

    def checkpoint(self) -> DelayedSubmission:
        """Return what runs when SLURM takes the job up after a preemption: the same trial, from its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class ClusterTrial:
    """A trial that was submitted.

    Args:
        folder: of the trial.
        job: submitit's.
    """

    def __init__(self, folder: Path, job: submitit.Job[None]) -> None:
        self._folder = folder
        self._job = job
        self._gone: float | None = None

    def poll(self) -> Ending | None:
        """Return how it ended, or None while it waits or runs."""
        ending = recorded(self._folder)
        if ending is not None or not self._job.done():
            return ending
        self._gone = time.monotonic() if self._gone is None else self._gone
        return Ending(None, "lost", None) if time.monotonic() - self._gone > _LATE else None

    def stop(self, reason: str) -> None:
        """Ask it to save and end; where it has not started, it does not start."""
        write_record(self._folder / STOP, {"token": attempt_of(self._folder)["token"], "reason": reason})

    def kill(self) -> None:
        """Let the cluster end it."""
        self._job.cancel(check=False)


class ClusterLauncher:
    """Submits trials, and finds those again that a driver which died has submitted.

    Args:
        folder: of the sweep.
        command: of a plan.
        slurm: what each job asks for.
        jobs: in the queue at once.
        cwd: where trials run.
        seconds: limit of time for an attempt, or None for the job's.
        grace: seconds between asking a trial to save and end, and killing it.
        cluster: ``slurm``; ``local`` and ``debug`` run submitit's jobs on this machine.

    Raises:
        SweepError: if submitit is not installed, or there is no SLURM.
    """

    def __init__(
        self,
        *,
        folder: SweepFolder,
        command: CommandOf,
        slurm: Slurm,
        jobs: int,
        cwd: Path,
        seconds: float | None,
        grace: float,
        cluster: Cluster = "slurm",
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise SweepError("sweep.launcher=slurm needs submitit: pip install 'neurotrain[slurm]'") from None
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise SweepError("sweep.launcher=slurm: there is no sbatch on this machine")
        self.folder = folder
        self.command = command
        self.slurm = slurm
        self.jobs = jobs
        self.cwd = cwd
        self.seconds = seconds
        self.grace = grace
        self._executor = submitit.AutoExecutor(folder=folder.path / "submitted", cluster=cluster)
        self._job_class = self._executor._executor.job_class  # pyright: ignore[reportPrivateUsage]
        self._submitted: list[ClusterTrial] = []

    def start(self, plan: Plan) -> ClusterTrial | None:
        """Submit a trial, or return None where enough are in the queue."""
        self._submitted = [trial for trial in self._submitted if trial.poll() is None]
        if len(self._submitted) >= self.jobs:
            return None
        folder = self.folder.of(plan)
        begun = attempts(folder) > 0
        token = begin_attempt(folder, {})
        task = ClusterTask(
            command=tuple(self.command(plan, begun)),
            command_again=tuple(self.command(plan, True)),
            run_dir=plan.run_dir,
            folder=str(folder.absolute()),
            token=token,
            cwd=str(self.cwd),
            seconds=self.seconds,
            grace=self.grace,
        )
        self._executor.update_parameters(**self._parameters(plan))
        job = self._executor.submit(task)
        write_record(folder / STARTED, {"token": token, "job": job.job_id})
        trial = ClusterTrial(folder, job)
        self._submitted.append(trial)
        return trial

    def adopt(self, plan: Plan) -> ClusterTrial | Ending | None:
        """Return a trial of an earlier driver: still in the queue, ended, or never submitted."""
        folder = self.folder.of(plan)
        if not attempts(folder):
            return None
        ending = recorded(folder)
        if ending is not None:
            return ending
        started = _read(folder / STARTED)
        if started.get("token") != attempt_of(folder)["token"]:
            return Ending(None, "lost", None)  # if it was submitted after all, it sees that it is not wanted
        job = self._job_class(self.folder.path / "submitted", started["job"])
        if job.done():
            return recorded(folder) or Ending(None, "lost", None)
        trial = ClusterTrial(folder, job)
        self._submitted.append(trial)
        return trial

    def _parameters(self, plan: Plan) -> dict[str, Any]:
        """Return what a job asks for: one task for each GPU, as Lightning expects it under SLURM."""
        asked = {
            "name": f"neurotrain-{plan.number}",
            "timeout_min": self.slurm.minutes,
            "tasks_per_node": max(1, plan.devices),
            "gpus_per_node": plan.devices,
            "cpus_per_task": self.slurm.cpus,
            "mem_gb": self.slurm.memory_gb,
            "slurm_partition": self.slurm.partition,
            "slurm_account": self.slurm.account,
            "slurm_qos": self.slurm.qos,
            "slurm_signal_delay_s": int(self.grace),
        }
        return {name: value for name, value in asked.items() if value is not None}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
