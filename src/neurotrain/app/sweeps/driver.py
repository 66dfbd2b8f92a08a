"""Keeps trials running until there are none left, or until it is told to stop, and tells the truth at the end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from neurotrain.app.jobs.interrupts import Interrupts
from neurotrain.app.jobs.process import Ending
from neurotrain.app.sweeps.trials import Outcome, Plan, Status, SweepFolder

STOPPED = "stopped"


class RunningTrial(Protocol):
    """A trial that was started, on this machine or on another one."""

    def poll(self) -> Ending | None:
        """Return how it ended, or None while it runs."""
        ...

    def stop(self, reason: str) -> None:
        """Ask it to save and end."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class Launcher(Protocol):
    """Starts trials where there is room."""

    def start(self, plan: Plan) -> RunningTrial | None:
        """Start a trial, or return None where there is no room for it now."""
        ...

    def adopt(self, plan: Plan) -> RunningTrial | Ending | None:
        """Return what an earlier driver left of a trial: still running, ended, or never started."""
        ...


class Source(Protocol):
    """Says which trials there are to run."""

    @property
    def objective(self) -> str | None:
        """Name of the figure that trials are compared by."""
        ...

    def known(self) -> list[Plan]:
        """Return the trials that were planned so far, in order."""
        ...

    def next(self) -> Plan | None:
        """Plan one more trial, or return None where there is none."""
        ...

    def watch(self, plan: Plan) -> str | None:
        """Return why a running trial should end early, or None."""
        ...

    def done(self, plan: Plan, outcome: Outcome) -> None:
        """Learn what became of a trial; also of one that an earlier driver ran, perhaps not for the first time."""
        ...

    def repeats(self, outcome: Outcome) -> bool:
        """Return whether a trial with that outcome is run again when a sweep is taken up."""
        ...


@dataclass
class SweepResult:
    """How a sweep ended.

    Attributes:
        outcomes: of every trial, in order.
        signal: that ended it, or None.
    """

    outcomes: list[tuple[Plan, Outcome]]
    signal: int | None

    @property
    def exit_code(self) -> int:
        """0 where every trial finished or was pruned, 128 plus the signal where one ended the sweep, else 1."""
        if self.signal is not None:
            return 128 + self.signal
        return 0 if all(outcome.status.is_final for _, outcome in self.outcomes) else 1


class Driver:
    """Runs the trials of a source with a launcher.

    Args:
        folder: of the sweep.
        source: of trials.
        launcher: of trials.
        tell: prints a line.
        pause: seconds between two looks.
    """

    def __init__(
        self,
        *,
        folder: SweepFolder,
        source: Source,
        launcher: Launcher,
        tell: Callable[[str], None],
        pause: float = 0.1,
    ) -> None:
        self.folder = folder
        self.source = source
        self.launcher = launcher
        self.tell = tell
        self.pause = pause
        self.interrupts = Interrupts()
        self._plans: dict[int, Plan] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._running: dict[int, RunningTrial] = {}
        self._waiting: list[Plan] = []
        self._hopeless = False
        self._heeded = 0
        self._told_of_waiting = False

    def run(self) -> SweepResult:
        """Run until every trial has ended, or SIGINT or SIGTERM; running trials then save and end.

        Returns:
            What became of each trial.
        """
        with self.interrupts.watched():
            try:
                self._work()
            except BaseException:
                for running in self._running.values():
                    running.stop("driver died")
                raise
        self._save()
        return SweepResult(
            [(plan, self._outcomes[number]) for number, plan in sorted(self._plans.items())], self.interrupts.number
        )

    def _work(self) -> None:
        self._take_up()
        self._save()
        while True:
            self._fill()
            self._heed()
            self._look()
            if not self._running and (self._has_stopped or not self._waiting):
                return
            time.sleep(self.pause)

    @property
    def _has_stopped(self) -> bool:
        return self.interrupts.number is not None or self._hopeless

    def _take_up(self) -> None:
        """Learn what earlier drivers did: skip what is finished, go on with the rest."""
        for plan in self.source.known():
            self._plans[plan.number] = plan
            left = self.launcher.adopt(plan)
            if left is not None and not isinstance(left, Ending):
                self._running[plan.number] = left
                self._outcomes[plan.number] = Outcome(Status.RUNNING)
                continue
            outcome = self.folder.outcome(plan, left, self.source.objective)
            self._outcomes[plan.number] = outcome
            if outcome.status is Status.WAITING or self.source.repeats(outcome):
                self._waiting.append(plan)
            else:
                self.source.done(plan, outcome)
        skipped = len(self._plans) - len(self._waiting) - len(self._running)
        if skipped:
            self.tell(f"{skipped} trials have ended before: not run again")

    def _fill(self) -> None:
        """Start trials while there is room."""
        while not self._has_stopped:
            if not self._waiting:
                plan = self.source.next()
                if plan is None:
                    return
                self._plans[plan.number] = plan
                self._outcomes[plan.number] = Outcome(Status.WAITING)
                self._waiting.append(plan)
            plan = self._waiting[0]
            earlier = self._outcomes[plan.number]
            running = self.launcher.start(plan)
            if running is None:
                if not self._running and not self._told_of_waiting:
                    self._told_of_waiting = True
                    self.tell(f"trial {plan.number} waits for a free device")
                return
            self._waiting.pop(0)
            self._running[plan.number] = running
            self._outcomes[plan.number] = Outcome(Status.RUNNING)
            verb = "runs" if earlier.status is Status.WAITING else f"runs again ({earlier.note or earlier.status})"
            self.tell(f"trial {plan.number} {verb}: {' '.join(plan.overrides)}")
            self._save()

    def _look(self) -> None:
        """See which trials have ended and which should."""
        for number, running in list(self._running.items()):
            plan = self._plans[number]
            ending = running.poll()
            if ending is None:
                reason = None if self._has_stopped else self.source.watch(plan)
                if reason is not None:
                    running.stop(reason)
                continue
            del self._running[number]
            self._record(plan, self.folder.outcome(plan, ending, self.source.objective))

    def _record(self, plan: Plan, outcome: Outcome) -> None:
        self._outcomes[plan.number] = outcome
        figure = "" if outcome.objective is None else f", {self.source.objective}={outcome.objective:.6g}"
        note = f" ({outcome.note}; {self.folder.of(plan) / 'log.txt'})" if outcome.note else ""
        self.tell(f"trial {plan.number} {outcome.status}{figure}, {outcome.seconds:.1f} s{note}")
        if "the run has no figure" in outcome.note:
            self._hopeless = True  # nor will any other run have it
        else:
            self.source.done(plan, outcome)
        self._save()

    def _heed(self) -> None:
        """After a signal end all trials, whose checkpoints are what the sweep is taken up from; after two at once."""
        number = self.interrupts.number
        if number is None or self._heeded == self.interrupts.count:
            return
        if self._heeded == 0:
            self.tell(f"{signal.Signals(number).name}: trials save and end; the same command goes on with them")
        self._heeded = self.interrupts.count
        for running in self._running.values():
            running.stop(STOPPED)
            if self._heeded > 1:
                running.kill()

    def _save(self) -> None:
        self.folder.write_table((plan, self._outcomes[number]) for number, plan in sorted(self._plans.items()))
