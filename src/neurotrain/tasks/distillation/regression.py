"""Regression on the teacher's trajectories: a method's own loss, or a term beside another."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from neurotrain.diffusion import RoleView
from neurotrain.noise import Solver
from neurotrain.tasks.distillation.base import Moment, Workplace, mean_square
from neurotrain.tasks.distillation.trajectories import TrajectoryCache, TrajectoryKey, follow, weights_fingerprint

log = logging.getLogger(__name__)


@final
class TrajectoryRegression:
    """Squared distance of what a student predicts from the data in which the teacher's trajectory ends.

    A student of several steps is asked at all of its times, each as likely. Trajectories are made once, before the
    first batch, and kept on disk; see :mod:`neurotrain.tasks.distillation.trajectories`. Where something steers the
    samples, the family draws it for each of them.

    Args:
        weight: of the term beside a method's own loss.
        folder: of the caches; None: ``trajectories`` in the run's folder.
        teacher_steps: of the teacher.
        sampler: solver of the teacher.
        guidance: scale of the teacher's guidance.
        count: trajectories.
        shard: trajectories a file.
        seed: of their noise.

    Raises:
        ValueError: if a number is out of range.

    Reference:
        Luhman & Luhman, 2021 (arXiv:2101.02388). As a term of distribution matching: Yin et al., 2023
        (arXiv:2311.18828), section 3.3; beside a discriminator: Kang et al., 2024 (arXiv:2405.05967).

    Example:
        >>> TrajectoryRegression(weight=4.0, count=20000, teacher_steps=50).weight
        4.0
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        folder: Path | None = None,
        teacher_steps: int = 100,
        sampler: Solver = "heun",
        guidance: float = 1.0,
        count: int = 100000,
        shard: int = 8192,
        seed: int = 0,
    ) -> None:
        if not weight > 0:
            raise ValueError(f"weight={weight}: must be above 0; leave the regression out instead")
        for name, value in (("teacher_steps", teacher_steps), ("count", count), ("shard", shard)):
            if value < 1:
                raise ValueError(f"{name}={value}: expected 1 or more")
        self.weight, self.guidance = weight, guidance
        self._folder, self._teacher_steps = folder, teacher_steps
        self._sampler: Solver = sampler
        self._count, self._shard, self._seed = count, shard, seed
        self._times: tuple[float, ...] = ()
        self._states, self._end = torch.empty(0), torch.empty(0)
        self._condition: dict[str, Tensor] = {}

    def check(self, *, steps: int) -> None:
        """Refuse a student of more steps than its teacher.

        Raises:
            ValueError: names both numbers.
        """
        if self._teacher_steps < steps:
            raise ValueError(f"teacher_steps={self._teacher_steps}: expected at least the student's steps={steps}")

    def prepare(self, teacher: RoleView, *, times: tuple[float, ...], workplace: Workplace) -> None:
        """Fill the cache where trajectories are missing, and read it.

        Args:
            teacher: whose trajectories they are.
            times: at which the student is called, falling.
            workplace: of the run.
        """
        key = self.key(teacher, times=times)
        cache = TrajectoryCache(root=self._folder or workplace.folder / "trajectories", key=key)
        made = cache.fill(
            lambda index, length: self.make(teacher, index, length, times=times, device=workplace.device),
            rank=workplace.rank,
            world_size=workplace.world_size,
        )
        workplace.barrier("trajectories")
        log.info("%d trajectories in %s (%d shards made by this rank)", self._count, cache.folder, made)
        held = cache.read()
        self._times = times
        self._states, self._end = held.pop("states"), held.pop("end")
        self._condition = {name.removeprefix("condition/"): value for name, value in held.items()}

    def error(self, student: RoleView, count: int, moment: Moment) -> Tensor:
        """Mean square at random trajectories and random times of the student, not weighted.

        Args:
            student: with gradients.
            count: trajectories to draw.
            moment: whose generator draws them.

        Returns:
            A scalar.
        """
        assert len(self._end), "prepare() comes first"
        generator = moment.generator
        device = generator.device
        which = torch.randint(len(self._end), (count,), generator=generator, device=device).cpu()
        place = torch.randint(len(self._times), (count,), generator=generator, device=device).cpu()
        x_t, end = self._states[which, place].to(device), self._end[which].to(device)
        t = torch.tensor(self._times, device=device)[place.to(device)]
        condition = {name: value[which].to(device) for name, value in self._condition.items()}
        return mean_square(student.predict_x0(x_t, t, condition) - end)

    def key(self, teacher: RoleView, *, times: tuple[float, ...]) -> TrajectoryKey:
        """What the trajectories depend on; arguments as of :meth:`prepare`."""
        handle, context = teacher.handle, teacher.context
        return TrajectoryKey(
            # The same weights in chunks of another length are another teacher.
            teacher=f"{weights_fingerprint(handle.module)} {handle.spec.abilities}",
            schedule=f"{handle.spec.latent.schedule} in {context.schedule}",
            data=context.fingerprint,
            shape=context.shape,
            times=times,
            guidance=self.guidance,
            sampler=self._sampler,
            steps=self._teacher_steps,
            count=self._count,
            shard=self._shard,
            seed=self._seed,
        )

    def make(
        self, teacher: RoleView, index: int, length: int, *, times: tuple[float, ...], device: torch.device
    ) -> Mapping[str, Tensor]:
        """Trajectories of one shard.

        Args:
            teacher: whose they are.
            index: of the shard.
            length: trajectories in it.
            times: of the student, falling.
            device: of the teacher.

        Returns:
            See :func:`neurotrain.tasks.distillation.trajectories.follow`.
        """
        # One generator a shard, on the CPU: the numbers depend on neither ranks nor device.
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        noise = teacher.adapter.draw_noise(length, generator=generator).to(device)
        drawn = teacher.adapter.draw_condition(length, generator=generator)
        return follow(
            teacher,
            noise,
            {name: value.to(device) for name, value in drawn.items()},
            times=times,
            steps=self._teacher_steps,
            sampler=self._sampler,
            guidance=self.guidance,
        )
