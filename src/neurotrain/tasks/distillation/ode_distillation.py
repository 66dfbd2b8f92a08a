"""Distillation of the sampling equation: regress where the teacher's trajectories end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from neurotrain.diffusion import PreparedBatch
from neurotrain.noise import Solver
from neurotrain.tasks.distillation.base import Method, Moment, Needs, Update, Workplace
from neurotrain.tasks.distillation.regression import TrajectoryRegression


class OdeDistillation(Method):
    """The student predicts, from a state of the teacher's trajectory, the data in which that trajectory ends.

    Trajectories are made once, before the first batch, and kept on disk; see
    :mod:`neurotrain.tasks.distillation.trajectories`. The batches of the loader give their size alone. As a term beside
    another loss: :class:`neurotrain.tasks.distillation.regression.TrajectoryRegression`.

    Args:
        folder: of the caches; None: ``trajectories`` in the run's folder.
        steps: of the student.
        teacher_steps: of the teacher.
        sampler: solver of the teacher.
        guidance: scale of the teacher's guidance.
        count: trajectories.
        shard: trajectories a file.
        seed: of their noise.

    Raises:
        ValueError: if a number is out of range.

    Reference:
        Luhman & Luhman, 2021 (arXiv:2101.02388).
    """

    needs: ClassVar[Needs] = Needs(frozen=("teacher",))

    def __init__(
        self,
        *,
        folder: Path | None = None,
        steps: int = 1,
        teacher_steps: int = 100,
        sampler: Solver = "heun",
        guidance: float = 1.0,
        count: int = 100000,
        shard: int = 8192,
        seed: int = 0,
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps={steps}: expected 1 or more")
        self._steps = steps
        self._regression = TrajectoryRegression(
            folder=folder,
            teacher_steps=teacher_steps,
            sampler=sampler,
            guidance=guidance,
            count=count,
            shard=shard,
            seed=seed,
        )
        self._regression.check(steps=steps)

    @property
    def times(self) -> tuple[float, ...]:
        """At which the student is called."""
        return self.student_times(self._steps)

    def prepare(self, workplace: Workplace) -> None:
        """Fill the cache where trajectories are missing, and read it."""
        self._regression.prepare(self.views["teacher"], times=self.times, workplace=workplace)

    def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
        """One update of the student, at random trajectories and random times of its own."""
        yield Update("student", self._regression.error(self.views["student"], len(batch.x0), moment))
