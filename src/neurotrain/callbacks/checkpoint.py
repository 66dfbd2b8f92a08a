"""Checkpoints of a run: complete or not there, and exact to resume from."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.types import STEP_OUTPUT

from neurotrain.callbacks import resume
from neurotrain.callbacks.checkpoint_files import (
    BEST,
    LAST,
    find_last,
    hidden_name,
    link,
    publish,
    remove,
    remove_leftovers,
    step_name,
    steps,
)
from neurotrain.callbacks.checkpoint_marks import mark, marker, unmark
from neurotrain.callbacks.checkpoint_writing import CheckpointWriter, DiskFullError, is_lack_of_room, lack_of_room
from neurotrain.callbacks.rng import rng_state, set_rng_state
from neurotrain.callbacks.run_logger import NOTHING, RunLogger

log = logging.getLogger(__name__)

__all__ = ["RunCheckpoint", "find_last"]

_MODES, _ANSWERS = ("min", "max"), ("continue", "stop")


class RunCheckpoint(Checkpoint):
    """Writes ``checkpoints/step-00000123.ckpt`` under ``trainer.default_root_dir``, and ``last.ckpt``, ``best.ckpt``.

    A checkpoint is written under a hidden name, synced and renamed; then a marker with its size and digest is written
    beside it, by which :func:`find_last` knows the newest whole one. ``last`` and ``best`` are hard links (relative
    symbolic links where the file system has none) that are replaced atomically. Where there is no room, the earlier
    ones stay and the run goes on, or ends, as ``on_disk_full`` says; a run whose very end cannot be saved fails.

    It is written between two steps, after all other callbacks, or, where validation or the end of an epoch follows,
    after that: so it holds their results. It also holds the state of the random generators, which a resumed run takes
    over before its first batch, and it loads under ``torch.load(weights_only=True)``. What a :class:`MetricsCsv` or
    :class:`TensorBoardRun` has past the checkpoint is cut on resume, and so are checkpoints of later steps.

    Attributes:
        best_score: best value of the monitored metric so far.
        best_model_path: for ``trainer.test(ckpt_path="best")``; empty before there is a best one.
    """

    _leave: Callable[[Trainer], NoReturn] | None = None  # ends the run once it is saved

    def __init__(
        self,
        *,
        every_n_steps: int | None = None,
        every_n_epochs: int = 1,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "max",
        keep: int = 2,
        save_on_exception: bool = True,
        on_disk_full: Literal["continue", "stop"] = "continue",
    ) -> None:
        """Set when to save and what to keep. The end of training always saves, and so does each improvement.

        Args:
            every_n_steps: optimizer steps between checkpoints; None saves at epoch ends only.
            every_n_epochs: epochs between checkpoints.
            monitor: name of the logged metric that decides which checkpoint is ``best.ckpt``; None makes no best.
            mode: whether higher (``max``) or lower values of it are better. NaN and infinity are never best.
            keep: number of newest checkpoints that stay, beside the best one.
            save_on_exception: save when a run is stopped by SIGTERM or an error between two steps. Within a step there
                is no state to resume from: then the last regular checkpoint stands.
            on_disk_full: where there is no room: ``continue`` with a warning until the next is due, or ``stop``.

        Raises:
            ValueError: if a number is below 1, or ``mode`` is neither ``min`` nor ``max``.
        """
        for name, value in (("every_n_steps", every_n_steps), ("every_n_epochs", every_n_epochs), ("keep", keep)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: expected 1 or more")
        for name, value, known in (("mode", mode, _MODES), ("on_disk_full", on_disk_full, _ANSWERS)):
            if value not in known:
                raise ValueError(f"{name}={value!r}: expected {known[0]!r} or {known[1]!r}")
        self.every_n_steps = every_n_steps
        self.every_n_epochs = every_n_epochs
        self.monitor = monitor
        self.mode: Literal["min", "max"] = mode
        self.keep = keep
        self.save_on_exception = save_on_exception
        self.on_disk_full: Literal["continue", "stop"] = on_disk_full
        self.best_score: float | None = None
        self.best_model_path = ""
        self._best: str | None = None
        self._on_disk: tuple[float | None, str | None] = None, None  # best score and file that were really saved
        self._folder: Path | None = None
        self._device: torch.device | None = None
        self._restored: dict[str, Any] | None = None
        self._loader_states: list[dict[str, Any]] = []
        self._start: int | None = None  # step at which this process began to train
        self._step, self._due = 0, False
        self._saved: tuple[int, int, int] | None = None

    @property
    def folder(self) -> Path:
        """Where the checkpoints are; known once the trainer has set up."""
        assert self._folder is not None, "no trainer has set this callback up yet"
        return self._folder

    def leave_once_saved(self, leave: Callable[[Trainer], NoReturn]) -> None:
        """Saves at the next point from which the run can go on exactly, then calls ``leave``, which ends the run.

        Args:
            leave: given the trainer; raises. All ranks ask for it at the same step.
        """
        self._leave = leave

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the folder; before a fit, removes what a killed run left half written."""
        self._folder = Path(trainer.default_root_dir) / "checkpoints"
        self._device = trainer.strategy.root_device
        self._restored, self._saved, self._due, self._start, self._leave = None, None, False, None, None
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.follow(trainer)
        if stage == "fit" and trainer.is_global_zero and not resume.is_trial(trainer):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Cuts the metrics that were logged past the checkpoint."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._loader_states = resume.loader_states(checkpoint)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.cut(int(checkpoint["global_step"]))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the state until training starts; evaluation does not need it."""
        self._restored = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Brings a resumed run to exactly where the checkpoint was written; last before the first batch is fetched."""
        self._start = self._step = trainer.global_step
        state, self._restored = self._restored, None
        if state is None:
            self._begin_logs(trainer)
            return
        self._restore_best(trainer, state)
        if state["position"] == "epoch_end":
            resume.begin_next_epoch(trainer, self._loader_states)
        else:
            resume.load_left_out(trainer)
        self._loader_states = []
        if trainer.global_rank < len(state["rng"]):  # more ranks than before: the new ones keep their own seeds
            set_rng_state(state["rng"][trainer.global_rank], self._device)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Saves every ``every_n_steps``, or lets the validation or epoch end that follows do so."""
        step, before = trainer.global_step, self._step
        self._step = step
        regular = self.every_n_steps is not None and step // self.every_n_steps != before // self.every_n_steps
        if not regular and (self._leave is None or step == before):  # a step that accumulates is not done yet
            return
        if resume.boundary_follows(trainer):
            self._due = True
        else:
            resume.log_now(trainer)
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves after a validation within an epoch if that was due or brought the best score."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or trainer.is_last_batch:
            return
        if self._improved(trainer, must_be_there=False) or self._due:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves at the end of an epoch, with the metrics of its validation."""
        improved = self._improved(trainer, must_be_there=resume.has_validated(trainer))
        if improved or self._due or (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            resume.log_now(trainer)
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves what the run ends with.

        Raises:
            DiskFullError: if there is no room for it.
        """
        self._save(trainer, at_the_end=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves if the run was stopped at a point from which it can go on exactly."""
        # Before training has begun, not everything of the checkpoint that is resumed has been restored.
        if not self.save_on_exception or self._start in (None, trainer.global_step):
            return
        if isinstance(exception, DiskFullError) or self._leave is not None:
            return
        # One rank's error must not wait for the others to save; SIGTERM reaches them all.
        if trainer.world_size > 1 and not isinstance(exception, SIGTERMException):
            return
        if not resume.between_steps(trainer):
            return
        try:
            self._save(trainer)
        except Exception as error:  # the first error is the one to show
            exception.add_note(f"and no checkpoint could be saved: {error!r}")

    def state_dict(self) -> dict[str, Any]:
        """Best score, best file and the random generators of all ranks: plain numbers, text and tensors."""
        own = rng_state(self._device)
        ranks: list[Any] = [own]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            ranks = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(ranks, own)
        return {"best_score": self.best_score, "best": self._best, "rng": ranks}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Notes where the run stands."""
        where = resume.position(trainer)
        resume.amend(checkpoint, where)
        checkpoint["callbacks"][self.state_key]["position"] = where

    def _begin_logs(self, trainer: Trainer) -> None:
        """Forgets what another attempt logged that was killed before its first checkpoint."""
        if trainer.global_step > 0 or steps(self.folder):
            return
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.cut(NOTHING)

    def _improved(self, trainer: Trainer, *, must_be_there: bool) -> bool:
        """Whether the monitored metric is better than ever; a value that was seen before never is."""
        if self.monitor is None:
            return False
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            if must_be_there:
                nearest = difflib.get_close_matches(self.monitor, trainer.callback_metrics, n=3)
                raise ValueError(f"monitor={self.monitor!r} is not logged; nearest: {nearest or 'none'}")
            return False
        score = float(value)
        if trainer.world_size > 1:
            score = trainer.strategy.broadcast(score)  # ranks must agree on whether to save
        sign = 1 if self.mode == "max" else -1
        if not math.isfinite(score) or (self.best_score is not None and sign * score <= sign * self.best_score):
            return False
        self.best_score, self._best = score, step_name(trainer.global_step)
        return True

    def _save(self, trainer: Trainer, *, at_the_end: bool = False) -> None:
        """Saves what is not saved yet, and leaves where :meth:`leave_once_saved` asked for it."""
        now = resume.moment(trainer)
        self._due = False
        if now != self._saved and not resume.is_trial(trainer):
            self._write(trainer, now, at_the_end=at_the_end)
        if self._leave is not None:
            self._leave(trainer)

    def _write(self, trainer: Trainer, now: tuple[int, int, int], *, at_the_end: bool) -> None:
        """Writes a checkpoint, then lets the links point to it, then removes what is too old."""
        name = step_name(trainer.global_step)
        temporary = self.folder / hidden_name(name)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.flush()
        writer = CheckpointWriter()
        with writer.used_by(trainer.strategy):
            trainer.save_checkpoint(temporary, weights_only=False)
        no_room = self._publish(name, temporary, writer) if trainer.is_global_zero else None
        no_room = trainer.strategy.broadcast(no_room)  # all ranks go on alike, and none before the files are there
        if no_room is None:
            self._saved, self._on_disk = now, (self.best_score, self._best)
        else:
            self._do_without(trainer, no_room, stop=at_the_end or self.on_disk_full == "stop")
        if self._best is not None:
            self.best_model_path = str(self.folder / BEST)

    def _publish(self, name: str, temporary: Path, writer: CheckpointWriter) -> str | None:
        """Gives a written checkpoint its names; says why if there was no room."""
        path = self.folder / name
        try:
            if writer.error is not None:
                raise writer.error
            if not temporary.is_file():
                raise RuntimeError("RunCheckpoint needs a strategy that writes each checkpoint as one file, at once")
            unmark(path)  # of an earlier one at the same step
            publish(temporary, path)
            mark(path)
            link(path, LAST)
            if self._best == name:
                link(path, BEST)
        except OSError as error:
            if not is_lack_of_room(error):
                raise
            remove_leftovers(self.folder)
            if not marker(path).is_file():
                path.unlink(missing_ok=True)
            return lack_of_room(error, folder=self.folder, needed=writer.bytes)
        self._prune(newest=name)
        return None

    def _do_without(self, trainer: Trainer, no_room: str, *, stop: bool) -> None:
        """Goes on with the earlier checkpoints, or stops."""
        self.best_score, self._best = self._on_disk
        said = f"step {trainer.global_step} is not saved: {no_room}; earlier checkpoints stay"
        if stop:
            raise DiskFullError(said)
        if trainer.is_global_zero:
            log.warning(said)

    def _prune(self, *, newest: str) -> None:
        paths = [path for _, path in sorted(steps(self.folder).items(), reverse=True)]
        for path in paths[self.keep :]:
            if path.name not in (newest, self._best):
                remove(path)

    def _restore_best(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Goes on with the best score if its file is here; checkpoints of a future that will not be are removed."""
        best = state["best"]
        if best is not None and (self.folder / best).is_file():
            self.best_score, self._best = state["best_score"], best
            self.best_model_path = str(self.folder / BEST)
        self._on_disk = self.best_score, self._best
        trainer.strategy.barrier("RunCheckpoint")  # all ranks have looked before one changes the folder
        if not trainer.is_global_zero or resume.is_trial(trainer):
            return
        if self._best is not None:
            link(self.folder / self._best, BEST)
        later = [path for step, path in steps(self.folder).items() if step > trainer.global_step]
        for path in later:
            remove(path)
        if later:
            log.info("removed %d checkpoints past step %d, where the run goes on", len(later), trainer.global_step)
