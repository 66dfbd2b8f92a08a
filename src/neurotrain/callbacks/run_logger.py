"""What all loggers of a run directory share: they count as checkpoints do, and go on from one."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import Logger

from neurotrain.callbacks.checkpoint_writing import is_lack_of_room

log = logging.getLogger(__name__)

NOTHING = -1
"""A step before all others: cut there, a log is empty."""


class RunLogger(Logger, ABC):
    """A log in a run directory, without steps that a resumed run takes once more.

    :class:`~neurotrain.callbacks.RunCheckpoint` lets it follow its trainer, writes it out before each checkpoint and
    cuts it where a run goes on.
    """

    def __init__(self, *, directory: Path, flush_seconds: float = 5.0) -> None:
        """Set where and how often to write; nothing is written before the first row.

        Args:
            directory: of the run; made where absent.
            flush_seconds: rows wait at most about this long for the disk.

        Raises:
            ValueError: if ``flush_seconds`` is negative.
        """
        super().__init__()
        if flush_seconds < 0:
            raise ValueError(f"flush_seconds={flush_seconds}: expected 0 or more")
        self.flush_seconds = flush_seconds
        self._directory = Path(directory)
        self._trainer: Trainer | None = None
        self._tried = time.monotonic()
        self._lacks_room = False

    @property
    def name(self) -> str:
        """Empty: the run directory names the run."""
        return ""

    @property
    def version(self) -> str:
        """Empty: the run directory names the run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run directory."""
        return str(self._directory)

    @property
    def log_dir(self) -> str:
        """The run directory."""
        return str(self._directory)

    def follow(self, trainer: Trainer) -> None:
        """Counts steps as ``trainer`` does from here on.

        Lightning hands its loggers a step that lags by one in training and ignores extra optimizers; checkpoints are
        named by ``trainer.global_step``, and so are the steps of a logger that follows.
        """
        self._trainer = trainer

    def count(self, step: int | None) -> int:
        """Optimizer steps done; ``step``, or 0, where no trainer is followed."""
        return self._trainer.global_step if self._trainer is not None else step or 0

    def is_due(self) -> bool:
        """Whether rows have waited for long enough."""
        return time.monotonic() - self._tried >= self.flush_seconds

    def has_room_for(self, write: Callable[[], None], path: Path) -> bool:
        """Whether the disk took what ``write`` writes to ``path``; where there is no room, that is said once."""
        self._tried = time.monotonic()
        try:
            write()
        except OSError as error:
            if not is_lack_of_room(error):
                raise
            if not self._lacks_room:
                log.warning("%s: %s; values wait in memory until there is room", path, error.strerror)
            self._lacks_room = True
        else:
            self._lacks_room = False
        return not self._lacks_room

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Does nothing: ``config.yaml`` in the run directory says what the run was told."""

    @abstractmethod
    def flush(self) -> None:
        """Writes what waits."""

    @abstractmethod
    def cut(self, step: int) -> None:
        """Forgets what was logged past ``step``, on the disk and in memory, and goes on from there.

        Args:
            step: optimizer steps that the checkpoint holds; what was logged there stays. :data:`NOTHING` forgets all.
        """

    def finalize(self, status: str) -> None:
        """Writes what waits, whatever ended the run."""
        self.flush()
