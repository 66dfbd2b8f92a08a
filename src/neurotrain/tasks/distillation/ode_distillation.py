"""Distillation of the sampling equation: regress where the teacher's trajectories end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neurotrain.diffusion import PreparedBatch, even_times
from neurotrain.noise import Solver
from neurotrain.tasks.distillation.base import Method, Moment, Needs, Update, Workplace, mean_square
from neurotrain.tasks.distillation.trajectories import TrajectoryCache, TrajectoryKey, follow, weights_fingerprint

log = logging.getLogger(__name__)


class OdeDistillation(Method):
    """The student predicts, from a state of the teacher's trajectory, the data in which that trajectory ends.

    Trajectories are made once, before the first batch, and kept on disk; see
    :mod:`neurotrain.tasks.distillation.trajectories`. The batches of the loader give their size alone.

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
        for name, value in (("steps", steps), ("count", count), ("shard", shard)):
            if value < 1:
                raise ValueError(f"{name}={value}: expected 1 or more")
        if teacher_steps < steps:
            raise ValueError(f"teacher_steps={teacher_steps}: expected at least the student's steps={steps}")
        self._folder, self._steps, self._teacher_steps = folder, steps, teacher_steps
        self._sampler: Solver = sampler
        self._guidance, self._count, self._shard, self._seed = guidance, count, shard, seed
        self._states, self._end = torch.empty(0), torch.empty(0)
        self._condition: dict[str, Tensor] = {}

    @property
    def times(self) -> tuple[float, ...]:
        """At which the student is called."""
        context = self.context
        return tuple(even_times(self._steps, first=context.first_time, last=context.last_time)[:-1].tolist())

    def prepare(self, workplace: Workplace) -> None:
        """Fill the cache where trajectories are missing, and read it."""
        cache = TrajectoryCache(root=self._folder or workplace.folder / "trajectories", key=self._key())
        made = cache.fill(
            lambda index, length: self._make(index, length, workplace.device),
            rank=workplace.rank,
            world_size=workplace.world_size,
        )
        workplace.barrier("trajectories")
        log.info("%d trajectories in %s (%d shards made by this rank)", self._count, cache.folder, made)
        held = cache.read()
        self._states, self._end = held.pop("states"), held.pop("end")
        self._condition = {name.removeprefix("condition/"): value for name, value in held.items()}

    def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
        """One update of the student, at random trajectories and random times of its own."""
        count, device = len(batch.x0), batch.x0.device
        generator = moment.generator
        which = torch.randint(len(self._end), (count,), generator=generator, device=generator.device).cpu()
        place = torch.randint(self._steps, (count,), generator=generator, device=generator.device).cpu()
        x_t, end = self._states[which, place].to(device), self._end[which].to(device)
        t = torch.tensor(self.times, device=device)[place.to(device)]
        condition = {name: value[which].to(device) for name, value in self._condition.items()}
        yield Update("student", mean_square(self.views["student"].predict_x0(x_t, t, condition) - end))

    def _key(self) -> TrajectoryKey:
        teacher = self.views["teacher"].handle
        return TrajectoryKey(
            # The same weights in chunks of another length are another teacher.
            teacher=f"{weights_fingerprint(teacher.module)} {teacher.spec.abilities}",
            schedule=f"{teacher.spec.latent.schedule} in {self.context.schedule}",
            data=self.context.fingerprint,
            shape=self.context.shape,
            times=self.times,
            guidance=self._guidance,
            sampler=self._sampler,
            steps=self._teacher_steps,
            count=self._count,
            shard=self._shard,
            seed=self._seed,
        )

    def _make(self, index: int, length: int, device: torch.device) -> dict[str, Tensor]:
        # One generator a shard, on the CPU: the numbers depend on neither ranks nor device.
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        noise = self.adapter.draw_noise(length, generator=generator).to(device)
        drawn = self.adapter.draw_condition(length, generator=generator)
        return follow(
            self.views["teacher"],
            noise,
            {name: value.to(device) for name, value in drawn.items()},
            times=self.times,
            steps=self._teacher_steps,
            sampler=self._sampler,
            guidance=self._guidance,
        )
