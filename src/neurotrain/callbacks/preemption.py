"""Signals that ask a run to end: it finishes its step, saves, and says by its exit code which signal it was."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher  # pyright: ignore[reportPrivateUsage]
from lightning.pytorch.utilities.types import STEP_OUTPUT

from neurotrain.callbacks.checkpoint import RunCheckpoint

log = logging.getLogger(__name__)

_ENDING = (signal.SIGTERM, signal.SIGINT)
_ASKING = (*_ENDING, signal.SIGUSR1)

ECHO = 0.5
"""Seconds in which signals count as one: a launcher passes on what the whole process group got as well."""

GRACE = 20.0
"""Seconds that the processes which this one launched have to end by themselves."""


class StoppedBySignal(SystemExit):
    """A run ended because a signal asked it to; leaves the process with 128 plus the signal's number."""

    def __init__(self, number: signal.Signals) -> None:
        """Note which.

        Args:
            number: of the signal.
        """
        super().__init__(128 + number)
        self.number = number


class Preemption(Callback):
    """Ends a run that gets SIGTERM, SIGINT or SIGUSR1 between two steps, with a checkpoint to go on from.

    The handler notes the signal and nothing else. After each batch all ranks agree on whether one of them was asked, so
    that they stop at the same step; then the step is finished, and the validation or the end of the epoch if one
    follows it, :class:`RunCheckpoint` saves, and every rank exits with 128 plus the number: 143 for SIGTERM, 130 for
    SIGINT, 138 for SIGUSR1, which is SLURM's word before it takes the machine away (``#SBATCH --signal=USR1@90``). A
    second SIGTERM or SIGINT ends the process at once; checkpoints that are there stay whole. Where signals cannot be
    handled, as outside the main thread, nothing is changed.
    """

    def __init__(self, *, requeue: bool = True) -> None:
        """Set what SIGUSR1 means.

        Args:
            requeue: inside a SLURM job, ask SLURM to run the job again once the checkpoint is there
                (``scontrol requeue``); the command of the job needs ``resume=last`` and its ``paths.run_dir``.
        """
        self.requeue = requeue
        self._received: signal.Signals | None = None
        self._since = 0.0
        self._trainer: Trainer | None = None
        self._stopping = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the signals over from Lightning, which gives them back when the fit ends in whatever way."""
        self._received, self._stopping, self._trainer = None, False, trainer
        if threading.current_thread() is threading.main_thread():
            for number in _ASKING:
                signal.signal(number, self._note)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Agrees with the other ranks on whether to stop; a checkpoint is written after all other callbacks."""
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends a run whose signal came after its last step before it is tested."""
        self._stop_if_asked(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets the trainer go."""
        self._trainer = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        asked, now = signal.Signals(number), time.monotonic()
        before = self._received
        if before is None or (asked in _ENDING and before not in _ENDING):
            self._received, self._since = asked, now
            again = "; once more ends at once" if asked in _ENDING else ""
            os.write(2, f"{asked.name}: stops after this step with a checkpoint{again}\n".encode())
        elif asked in _ENDING and now - self._since > ECHO:
            self._end_at_once(asked)

    def _end_at_once(self, asked: signal.Signals) -> None:
        """Die of the signal, so that whoever waits is told so; what this process launched goes first."""
        for process in _launched(self._trainer):
            process.kill()
        signal.signal(asked, signal.SIG_DFL)
        os.kill(os.getpid(), asked)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if self._stopping:
            return
        number = self._agreed(trainer)
        if number is None:
            return
        self._stopping, self._received = True, number
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, RunCheckpoint):
                callback.leave_once_saved(self._leave)
                return
        log.warning("%s: nothing saves checkpoints in this run", number.name)
        self._leave(trainer)

    def _agreed(self, trainer: Trainer) -> signal.Signals | None:
        """The signal that any rank got; the same answer on all of them."""
        number = 0 if self._received is None else int(self._received)
        if trainer.world_size > 1:
            told = torch.tensor(number, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
            number = int(told)
        return signal.Signals(number) if number else None

    def _leave(self, trainer: Trainer) -> NoReturn:
        assert self._received is not None
        if trainer.is_global_zero:
            log.info("stopped by %s after step %d of epoch %d", self._received.name, *_where(trainer))
            if self._received == signal.SIGUSR1 and self.requeue and "SLURM_JOB_ID" in os.environ:
                requeue(os.environ["SLURM_JOB_ID"])
        _await_launched(trainer)
        raise StoppedBySignal(self._received)


def requeue(job: str) -> bool:
    """Ask SLURM to run a job again.

    Args:
        job: its number, ``$SLURM_JOB_ID``.

    Returns:
        Whether SLURM said yes; if not, an error is logged.
    """
    command = ["scontrol", "requeue", job]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        log.error("%s failed: %s; the job is not requeued", " ".join(command), error)
        return False
    if said.returncode:
        log.error("%s failed with code %d: %s", " ".join(command), said.returncode, said.stderr.strip())
        return False
    log.info("SLURM runs job %s again", job)
    return True


def _where(trainer: Trainer) -> tuple[int, int]:
    return trainer.global_step, trainer.current_epoch


def _launched(trainer: Trainer | None) -> list[subprocess.Popen[bytes]]:
    """Processes of other ranks that Lightning started from this one."""
    launcher = None if trainer is None else trainer.strategy.launcher
    return list(launcher.procs) if isinstance(launcher, _SubprocessScriptLauncher) else []


def _await_launched(trainer: Trainer) -> None:
    """Wait for ranks that leave as well."""
    launcher, processes = trainer.strategy.launcher, _launched(trainer)
    if isinstance(launcher, _SubprocessScriptLauncher):
        launcher.procs.clear()  # Lightning watches this list, takes their exit codes for failures and would kill us
    deadline = time.monotonic() + GRACE
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        if process.poll() is None:
            process.kill()
