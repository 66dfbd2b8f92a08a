"""Runs a pipeline's tasks as their dependencies finish, and knows afterwards what it need not run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from neurotrain.app.jobs.interrupts import Interrupts
from neurotrain.app.jobs.leases import Lease, Leases
from neurotrain.app.jobs.process import Command, Ending, Job, attempt_of, settle
from neurotrain.app.pipelines.instances import Instance


class State(StrEnum):
    """What became of a task."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    BLOCKED = "blocked"
    INTERRUPTED = "interrupted"

    @property
    def is_good(self) -> bool:
        """Whether what the task makes is there."""
        return self in (State.FINISHED, State.UNCHANGED)


@dataclass
class Progress:
    """Where a task stands.

    Attributes:
        state: of it.
        tries: attempts of this driver.
        began: monotonic seconds of the present attempt.
        seconds: of the last attempt.
        note: why it is not finished, or nothing.
    """

    state: State = State.WAITING
    tries: int = 0
    began: float = 0.0
    seconds: float | None = None
    note: str = ""


class PipelineDriver:
    """Runs tasks side by side.

    Args:
        instances: each after those that it needs.
        parallel: tasks at once.
        leases: of GPUs.
        show: is told of each task whose state has changed, and of ``None`` now and then.
        pause: seconds between two looks.
    """

    def __init__(
        self,
        instances: Sequence[Instance],
        *,
        parallel: int,
        leases: Leases,
        show: Callable[[Instance | None], None],
        pause: float = 0.05,
    ) -> None:
        self.instances = list(instances)
        self.progress = {instance.name: Progress() for instance in instances}
        self.parallel = parallel
        self.leases = leases
        self.show = show
        self.pause = pause
        self.interrupts = Interrupts()
        self._heeded = 0
        self._running: dict[str, tuple[Job, Lease]] = {}
        self._named = {instance.name: instance for instance in instances}

    def run(self) -> int:
        """Run until every task has ended or cannot begin, or SIGINT or SIGTERM.

        Returns:
            0 where every task is finished, 128 plus the signal that ended the pipeline, else 1.
        """
        with self.interrupts.watched():
            try:
                self._work()
            finally:
                self._end_all()
        good = all(progress.state.is_good for progress in self.progress.values())
        return self.interrupts.exit_code or (0 if good else 1)

    def _work(self) -> None:
        while True:
            self._look()
            for instance in self.instances:
                if not self._has_stopped:
                    self._consider(instance)
            self._heed()
            if not self._running and (self._has_stopped or not self._any_waiting()):
                return
            self.show(None)
            time.sleep(self.pause)

    @property
    def _has_stopped(self) -> bool:
        return self.interrupts.number is not None

    def _any_waiting(self) -> bool:
        return any(progress.state is State.WAITING for progress in self.progress.values())

    def _consider(self, instance: Instance) -> None:
        """Skip, block or start a task that waits, if its turn has come."""
        progress = self.progress[instance.name]
        if progress.state is not State.WAITING:
            return
        needs = [self.progress[name].state for name in instance.needs]
        if any(state in (State.FAILED, State.BLOCKED) for state in needs):
            missing = [name for name in instance.needs if self.progress[name].state in (State.FAILED, State.BLOCKED)]
            self._turn(instance, State.BLOCKED, f"needs {', '.join(missing)}")
        elif all(state.is_good for state in needs):
            if progress.tries == 0 and self._is_unchanged(instance):
                self._turn(instance, State.UNCHANGED)
            elif len(self._running) < self.parallel:
                self._start(instance)

    def _is_unchanged(self, instance: Instance) -> bool:
        """Whether the newest attempt finished, was told the same, and worked on what is there now."""
        ending = settle(instance.folder, grace=instance.task.grace)
        label = attempt_of(instance.folder)
        same = label.get("fingerprint") == instance.fingerprint and label.get("inputs") == self._inputs(instance)
        return ending is not None and ending.ok and same and not _missing(instance)

    def _inputs(self, instance: Instance) -> dict[str, str]:
        """Return which attempt of each needed task made what this one reads."""
        return {name: attempt_of(self._named[name].folder)["token"] for name in instance.needs}

    def _start(self, instance: Instance) -> None:
        lease = self.leases.take(instance.task.devices) if instance.task.devices else Lease((), ())
        if lease is None:
            return
        progress = self.progress[instance.name]
        command = Command(
            arguments=instance.command,
            folder=instance.folder,
            cwd=instance.cwd,
            environment={**instance.environment, **lease.environment},
            seconds=instance.task.seconds,
            grace=instance.task.grace,
            label={"fingerprint": instance.fingerprint, "inputs": self._inputs(instance)},
        )
        self._running[instance.name] = (Job.start(command, keep=lease.descriptors), lease)
        progress.tries += 1
        progress.began = time.monotonic()
        self._turn(instance, State.RUNNING)

    def _look(self) -> None:
        """See which tasks have ended."""
        for name, (job, lease) in list(self._running.items()):
            ending = job.poll()
            if ending is None:
                continue
            del self._running[name]
            lease.release()
            self._conclude(self._named[name], ending)

    def _conclude(self, instance: Instance, ending: Ending) -> None:
        progress = self.progress[instance.name]
        progress.seconds = ending.seconds
        missing = _missing(instance) if ending.ok else []
        if ending.ok and not missing:
            self._turn(instance, State.FINISHED)
            return
        note = f"did not make {', '.join(missing)}" if ending.ok else str(ending)
        if self._has_stopped:
            self._turn(instance, State.INTERRUPTED, note)
        elif progress.tries <= instance.task.retries:
            self._turn(instance, State.WAITING, f"{note}; attempt {progress.tries} of {instance.task.retries + 1}")
        else:
            self._turn(instance, State.FAILED, note)

    def _turn(self, instance: Instance, state: State, note: str = "") -> None:
        progress = self.progress[instance.name]
        progress.state, progress.note = state, note
        self.show(instance)

    def _heed(self) -> None:
        """After a signal end all tasks; after two at once."""
        if self._heeded == self.interrupts.count:
            return
        self._heeded = self.interrupts.count
        for job, _ in self._running.values():
            job.stop("stopped")
            if self._heeded > 1:
                job.kill()

    def _end_all(self) -> None:
        """Leave nothing running, whatever happened here."""
        for job, lease in self._running.values():
            job.stop("stopped")
            lease.release()
        while any(job.poll() is None for job, _ in self._running.values()):
            time.sleep(self.pause)
        self._running.clear()


def _missing(instance: Instance) -> list[str]:
    return [f"{name} ({path})" for name, path in instance.outputs.items() if not Path(path).exists()]
