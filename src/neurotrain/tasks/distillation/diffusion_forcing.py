"""Diffusion forcing: every chunk of a video at a noise level of its own, so that one network can go on with any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from neurotrain.diffusion import Condition, PreparedBatch, RoleSpec, RoleView, even_times
from neurotrain.noise import Solver, initial_state, solver
from neurotrain.tasks.distillation.base import Method, Moment, Needs, Update, mean_square, noise_like, uniform
from neurotrain.tasks.distillation.rollout import check_causal, chunk_by_chunk, chunk_of


class DiffusionForcing(Method):
    """A causal student learns the velocity of every chunk at its own time, whatever the times of those before it.

    With a role ``teacher`` it learns what the teacher says of the noisy video, instead of what the noise was; the
    teacher may look ahead, as what the student can know of its answer is its mean.

    Samples are made chunk by chunk: each by a solver, looking back at the clean chunks before it.

    Args:
        sampler: of a chunk.

    Raises:
        ValueError: if the sampler is unknown.

    Reference:
        Chen et al., 2024 (arXiv:2407.01392).
    """

    needs: ClassVar[Needs] = Needs(may_freeze=("teacher",))

    def __init__(self, *, sampler: Solver = "euler") -> None:
        solver(sampler)
        self._sampler: Solver = sampler

    def check_specs(self, specs: Mapping[str, RoleSpec]) -> None:
        """See :meth:`Method.check_specs`.

        Raises:
            ValueError: if the student is not causal, or the teacher knows no times of frames.
        """
        super().check_specs(specs)
        check_causal(specs, method="DiffusionForcing")
        teacher = specs.get("teacher")
        if teacher is not None and not teacher.abilities.frame_times:
            raise ValueError(
                "DiffusionForcing asks for times of frames: the network of role 'teacher', a "
                f"{teacher.abilities.network}, knows one time a sample"
            )

    def bind(self, views: Mapping[str, RoleView]) -> None:
        """See :meth:`Method.bind`."""
        super().bind(views)
        self._chunk = chunk_of(views["student"])

    def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
        """One of the student."""
        x0, context = batch.x0, self.context
        chunks = x0.shape[2] // self._chunk
        t = uniform(len(x0) * chunks, low=context.first_time, high=context.last_time, moment=moment)
        t = t.view(len(x0), 1, chunks, 1, 1).repeat_interleave(self._chunk, 2)
        noise = noise_like(x0, moment)
        x_t = self.adapter.add_noise(x0, noise, t)
        wanted = noise - x0
        if "teacher" in self.views:
            with torch.no_grad():
                wanted = self.views["teacher"].predict_velocity(x_t, t, batch.condition)
        found = self.views["student"].predict_velocity(x_t, t, batch.condition)
        yield Update("student", mean_square(found - wanted))

    def generate(
        self,
        view: RoleView,
        noise: Tensor,
        *,
        steps: int,
        condition: Condition,
        guidance: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Chunk by chunk, each in ``steps`` steps of the solver.

        Raises:
            ValueError: if guidance is asked for.
        """
        if guidance != 1.0:
            raise ValueError(f"guidance={guidance}: DiffusionForcing samples without")
        context = view.context
        times = even_times(steps, first=context.first_time, last=context.last_time)
        solve = solver(self._sampler)
        return chunk_by_chunk(
            view,
            noise,
            chunk=self._chunk,
            condition=condition,
            denoise=lambda predict_x0, part: solve(
                predict_x0, initial_state(part, times[0], context.schedule), times, context.schedule
            ),
        )
