"""No rank waits for ever for another one: a run that stalls, or loses a rank, ends and says where."""

# pyright: reportPrivateUsage=false, reportIncompatibleMethodOverride=false
from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.optim import Optimizer

from neurotrain.callbacks.ranks import Peer, RankBoard

log = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds that a rank has to end by itself once it, or another one, has failed."""

LEAD = 5.0
"""Seconds that rank 0 is ahead of the others, so that its report is the one that is seen."""

_names = itertools.count()


class Watchdog(Callback):
    """Ends a run of several ranks in which nothing has happened for too long, or of which one rank has failed.

    Each rank notes what it begins: a batch, its backward pass, a validation. If it begins nothing new within
    ``deadline``, because it waits in a collective for a rank that hangs, or hangs itself, it says what it and all other
    ranks were at, kills the ranks of its machine and exits with code 1; other machines do the same. If a rank raises,
    it lets the others know: they have a few seconds to end by themselves, then they are ended. A run in one process is
    not watched: nobody waits for it.

    A rank that failed is expected to end: its process does not outlive the error for long.
    """

    def __init__(self, *, deadline: float = 900.0) -> None:
        """Set how long nothing may happen.

        Args:
            deadline: seconds without anything new on a rank. The longest single step, the first one with its
                compilation, writing a checkpoint and computing the figures of a validation must fit in.

        Raises:
            ValueError: if it is not positive.
        """
        if deadline <= 0:
            raise ValueError(f"deadline={deadline}: expected a positive number of seconds")
        self.deadline = deadline
        self._board: RankBoard | None = None
        self._ended = threading.Event()
        self._place, self._beat, self._step = "sets up", time.monotonic(), 0
        self._failed_at: float | None = None
        self._main = threading.main_thread().ident

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begins to watch a run of several ranks."""
        self._end()
        if trainer.world_size == 1:
            return
        self._note(trainer, "sets up")
        self._failed_at, self._ended = None, threading.Event()
        self._main = threading.get_ident()
        period = min(2.0, self.deadline / 5)
        self._board = RankBoard(f"watchdog {next(_names)}", place=self._told_place, period=period)
        watch = threading.Thread(target=self._watch, args=(self._board, self._ended), name="watchdog", daemon=True)
        watch.start()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ends together with the other ranks, which else would miss this one."""
        if self._board is not None:
            self._note(trainer, "ends")
            trainer.strategy.barrier("Watchdog")
            self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lets the other ranks know of an error; a stop that all agreed on is none."""
        if self._board is None:
            return
        if isinstance(exception, SystemExit):
            self._end()
            return
        self._failed_at = time.monotonic()
        self._board.tell_failure("".join(traceback.format_exception_only(exception)).strip())

    def _end(self) -> None:
        self._ended.set()
        if self._board is not None:
            self._board.end()
            self._board = None

    def _watch(self, board: RankBoard, ended: threading.Event) -> None:
        patience = self.deadline + (LEAD if board.rank else 0.0)
        while not ended.wait(min(1.0, self.deadline / 5)):
            now = time.monotonic()
            if self._failed_at is not None and now - self._failed_at > GRACE:
                self._exit(board, f"rank {board.rank} has failed, and does not end by itself")
            failed = min((peer.heard for peer in board.failed), default=board.lost)
            if failed is not None and now - failed > GRACE and self._failed_at is None:
                gone = "; ".join(peer.told() for peer in board.failed) or "rank 0 has ended"
                self._exit(board, f"{gone}; rank {board.rank} ends too, while it {self._told_place()}")
            if now - self._beat > patience:
                self._exit(board, self._report(board, now))

    def _report(self, board: RankBoard, now: float) -> str:
        lines = [
            f"nothing has happened for {now - self._beat:.0f} s (callbacks.watchdog.deadline={self.deadline:g}): "
            f"rank {board.rank} {self._told_place()}",
            *(f"  {peer.told()}" for peer in board.peers),
            f"rank {board.rank} stands at:",
            "".join(traceback.format_stack(sys._current_frames()[self._main or 0])).rstrip(),
        ]
        return "\n".join(lines)

    def _exit(self, board: RankBoard, said: str) -> NoReturn:
        """End this process and those of the machine that cannot or will not end by themselves."""
        log.error(said)
        if board.rank:  # only rank 0 shows its log on the terminal
            os.write(2, f"error: {said}\n".encode())
        for peer in board.peers:
            _kill(peer)
        os._exit(1)

    def _told_place(self) -> str:
        """What this rank is at, and the line of its main thread."""
        frame = sys._current_frames().get(self._main or 0)
        line = "" if frame is None else f" ({frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name})"
        return f"{self._place} at step {self._step}{line}"

    def _note(self, trainer: Trainer, place: str) -> None:
        self._place, self._beat, self._step = place, time.monotonic(), trainer.global_step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes where the run is."""
        self._note(trainer, "begins to train")

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Notes where the run is."""
        self._note(trainer, "computes the loss of a batch")

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Notes where the run is."""
        self._note(trainer, "is in a backward pass, in which the gradients of all ranks are brought together,")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Notes where the run is."""
        self._note(trainer, "is in the optimizer's step")

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Notes where the run is."""
        self._note(trainer, "is between two batches (callbacks, checkpoint, or loading the next one)")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes where the run is."""
        self._note(trainer, "is at the end of an epoch")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes where the run is."""
        self._note(trainer, "is at the end of the training")

    def on_validation_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Notes where the run is."""
        self._note(trainer, "validates a batch")

    def on_validation_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Notes where the run is."""
        self._note(trainer, "is past a batch of validation (loading the next one, or bringing the figures together)")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes where the run is."""
        self._note(trainer, "is at the end of a validation")

    def on_test_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Notes where the run is."""
        self._note(trainer, "tests a batch")

    def on_test_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Notes where the run is."""
        self._note(trainer, "is past a batch of the test (loading the next one, or bringing the figures together)")

    def on_predict_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Notes where the run is."""
        self._note(trainer, "predicts a batch")

    def on_predict_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Notes where the run is."""
        self._note(trainer, "is past a batch of predictions")


def _kill(peer: Peer) -> None:
    if peer.is_here:
        try:
            os.kill(peer.pid, signal.SIGKILL)  # also ends what SIGSTOP has stopped
        except ProcessLookupError:
            log.info("rank %d had ended", peer.rank)
