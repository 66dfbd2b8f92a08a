"""What all loggers of a run directory share: they count as checkpoints do, and go on from one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import Logger

NOTHING = -1
"""A step before all others: cut there, a log is empty."""


class RunLogger(Logger, ABC):
    """A log in a run directory, without steps that a resumed run takes once more.

    :class:`~neurotrain.callbacks.RunCheckpoint` lets it follow its trainer, writes it out before each checkpoint and
    cuts it where a run goes on.
    """

    def __init__(self, *, directory: Path) -> None:
        """Set where to log.

        Args:
            directory: of the run.
        """
        super().__init__()
        self._directory = Path(directory)
        self._trainer: Trainer | None = None

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
