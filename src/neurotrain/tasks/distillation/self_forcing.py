"""Self-forcing: a causal student is trained on the videos that it makes itself, chunk after chunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from neurotrain.diffusion import Condition, PreparedBatch, RoleSpec, RoleView, even_times
from neurotrain.noise import Denoise
from neurotrain.tasks.distillation.base import Moment, Needs, noise_like
from neurotrain.tasks.distillation.dmd2 import Dmd2, Weighting
from neurotrain.tasks.distillation.rollout import check_causal, chunk_by_chunk, chunk_of, few_steps


class SelfForcing(Dmd2):
    """Distribution matching of whole videos, which the student makes as it will when it samples.

    The student rolls out: each chunk in a few steps, looking back at its own earlier chunks. In each iteration a random
    one of its steps is the last of every chunk, and only that step has gradients; none goes back through earlier
    chunks.
    Teacher and critic see the whole clip; the student follows the difference of their scores, in every
    ``update_ratio``-th iteration.

    Args:
        steps: of a chunk.
        update_ratio: updates of the critic for one of the student.
        guidance: scale of the teacher's guidance.
        weighting: of the student's gradient.
        low: smallest time at which scores are compared, as a share of the range.
        high: largest such time.

    Raises:
        ValueError: if a number is out of range.

    Reference:
        Huang et al., 2025 (arXiv:2506.08009), algorithm 1.
    """

    needs: ClassVar[Needs] = Needs(trained=("student", "critic"), frozen=("teacher",))

    def __init__(
        self,
        *,
        steps: int = 4,
        update_ratio: int = 5,
        guidance: float = 1.0,
        weighting: Weighting = "sample",
        low: float = 0.02,
        high: float = 0.98,
    ) -> None:
        super().__init__(
            steps=steps, update_ratio=update_ratio, guidance=guidance, weighting=weighting, low=low, high=high
        )

    def check_specs(self, specs: Mapping[str, RoleSpec]) -> None:
        """See :meth:`Method.check_specs`.

        Raises:
            ValueError: if the student is not causal.
        """
        super().check_specs(specs)
        check_causal(specs, method="SelfForcing")

    def bind(self, views: Mapping[str, RoleView]) -> None:
        """See :meth:`Method.bind`."""
        super().bind(views)
        self._chunk = chunk_of(views["student"])

    def samples(self, batch: PreparedBatch, moment: Moment) -> Tensor:
        """The student's videos up to a random step, with gradients to the last call of each chunk."""
        generator = moment.generator
        noise = noise_like(batch.x0, moment)
        stop = 1 + int(torch.randint(self._steps, (1,), generator=generator, device=generator.device))
        return self._rolled_out(
            self.views["student"], noise, steps=self._steps, stop=stop, condition=batch.condition, generator=generator
        )

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
        """Chunk by chunk, as in training.

        Raises:
            ValueError: if guidance is asked for.
        """
        if guidance != 1.0:
            raise ValueError(f"guidance={guidance}: SelfForcing trains its student to be sampled without")
        return self._rolled_out(view, noise, steps=steps, stop=steps, condition=condition, generator=generator)

    def _rolled_out(
        self,
        view: RoleView,
        noise: Tensor,
        *,
        steps: int,
        stop: int,
        condition: Condition,
        generator: torch.Generator,
    ) -> Tensor:
        context = view.context
        times = even_times(steps, first=context.first_time, last=context.last_time)[:stop].tolist()

        def denoise(predict_x0: Denoise, part: Tensor) -> Tensor:
            return few_steps(
                _last_alone(predict_x0, calls=stop), part, times, schedule=context.schedule, generator=generator
            )

        return chunk_by_chunk(view, noise, chunk=self._chunk, condition=condition, denoise=denoise)


def _last_alone(predict_x0: Denoise, *, calls: int) -> Denoise:
    """The same, with gradients in the last of so many calls at most."""
    done = 0

    def ask(x_t: Tensor, t: Tensor) -> Tensor:
        nonlocal done
        done += 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and done == calls):
            return predict_x0(x_t, t)

    return ask
