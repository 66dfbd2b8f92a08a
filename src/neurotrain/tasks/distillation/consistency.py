"""Consistency distillation and training: every point of a trajectory is mapped to the same end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from neurotrain.diffusion import Condition, PreparedBatch, RoleView, even_times
from neurotrain.noise import NoiseSchedule, TimeSampling, UniformTimes, ddim_step, expand
from neurotrain.tasks.distillation.base import Method, Moment, Needs, Update, noise_like, uniform
from neurotrain.tasks.distillation.rollout import few_steps


def boundary_weights(t: Tensor, *, schedule: NoiseSchedule, first_time: float) -> tuple[Tensor, Tensor]:
    """Weights of the sample and of the predicted data in a consistency function.

    With ``s = sigma / alpha`` and ``s_0`` its smallest value, ``f = c x_t / alpha + (1 - c) x0(x_t)`` with
    ``c = s_0 / s``: a straight step along the prediction to the smallest noise. Exactly ``x_t / alpha`` there, and a
    network that is to give the trajectory's end predicts nothing large at any noise: the average velocity on the way.
    (With ``c = d^2 / ((s - s_0)^2 + d^2)`` its prediction would have to grow as ``d^2 / s^2`` towards the data.)

    Args:
        t: times ``(B,)``.
        schedule: of the noise.
        first_time: smallest time.

    Returns:
        Factors of ``x_t`` and of the predicted data, ``(B,)`` each.

    Reference:
        Song et al., 2023 (arXiv:2303.01469), section 3, for the condition; Kim et al., 2023 (arXiv:2310.02279),
        equation 9, for these weights.

    Example:
        >>> from neurotrain.noise import FlowSchedule
        >>> t = torch.tensor([0.5, 1.0])
        >>> boundary_weights(t, schedule=FlowSchedule(), first_time=0.5)
        (tensor([2., 1.]), tensor([0., 1.]))
    """
    wide = t.double()
    first = torch.tensor(first_time, dtype=torch.float64, device=t.device)
    alpha, sigma, smallest = schedule.alpha(wide), schedule.sigma(wide), schedule.sigma(first) / schedule.alpha(first)
    # Exact at the smallest time, which float32 may have rounded, and where there may be no noise at all.
    there = (t <= torch.tensor(first_time).to(t)) | (sigma <= alpha * smallest)
    kept = torch.where(there, 1 / alpha, smallest / sigma)
    learned = torch.where(there, torch.zeros_like(kept), 1 - alpha * kept)
    return kept.to(t.dtype), learned.to(t.dtype)


def consistency_function(view: RoleView, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """Where the trajectory through ``x_t`` ends, as a role says; the boundary condition holds by construction.

    Args:
        view: of the role.
        x_t: samples ``(B, *shape)``.
        t: their times ``(B,)``.
        condition: by channel.

    Returns:
        Data of the shape of ``x_t``.
    """
    context = view.context
    kept, learned = boundary_weights(t, schedule=context.schedule, first_time=context.first_time)
    return expand(kept, x_t) * x_t + expand(learned, x_t) * view.predict_x0(x_t, t, condition)


def pseudo_huber(error: Tensor, *, c: float) -> Tensor:
    """``sqrt(|error|^2 + c^2) - c`` of each sample, ``(B,)``; ``c`` 0 is the norm itself."""
    return (error.float().square().flatten(1).sum(1) + c**2).sqrt() - c


class Consistency(Method):
    """Neighbouring points of a trajectory must have one image; the one with less noise is taken as it is.

    The range of times is divided ever more finely: from ``start_intervals`` the intervals double to ``end_intervals``
    over the run. With a range of guidance scales the student is told each sample's scale (channel ``guidance`` of its
    network), and the teacher's step is guided by it.

    Args:
        start_intervals: at the beginning.
        end_intervals: at the end; ``start_intervals`` times a power of 2.
        solver: of the teacher's trajectory: ``ddim``, or ``heun`` with two calls a step.
        solver_steps: of the solver in one interval. Few long intervals with several steps each add up fewer errors of
            the student than many short ones.
        target: ``student``: the student itself, without gradients (improved training); ``ema``: its average.
        times: distribution over the intervals; uniform where not given.
        huber: c of the pseudo-Huber loss for data of one dimension; it grows with the root of the dimension.
        guidance: range of the scales of the teacher's guidance; None: none.

    Raises:
        ValueError: if values contradict each other.

    Reference:
        Song et al., 2023 (arXiv:2303.01469); Song & Dhariwal, 2023 (arXiv:2310.14189) for the doubled intervals, the
        loss and the student as its own target; Luo et al., 2023 (arXiv:2310.04378) for the guidance.
    """

    needs: ClassVar[Needs] = Needs(frozen=("teacher",))

    def __init__(
        self,
        *,
        start_intervals: int = 8,
        end_intervals: int = 64,
        solver: Literal["ddim", "heun"] = "heun",
        solver_steps: int = 1,
        target: Literal["student", "ema"] = "student",
        times: TimeSampling | None = None,
        huber: float = 0.03,
        guidance: tuple[float, float] | None = None,
    ) -> None:
        doublings = math.log2(end_intervals / start_intervals) if 0 < start_intervals <= end_intervals else 0.5
        if doublings != int(doublings):
            raise ValueError(
                f"end_intervals={end_intervals}: expected start_intervals={start_intervals} times 1, 2, 4, ..."
            )
        if huber < 0 or solver_steps < 1:
            raise ValueError(f"huber={huber}, solver_steps={solver_steps}: expected 0 or more, and 1 or more")
        self._solver_steps = solver_steps
        self._start, self._doublings = start_intervals, int(doublings)
        self._solver, self._target, self._huber, self._guidance = solver, target, huber, guidance
        self._times = UniformTimes() if times is None else times

    def tells(self) -> tuple[str, ...]:
        """The scale of guidance, where the student learns a range of them."""
        return () if self._guidance is None else ("guidance",)

    def bind(self, views: Mapping[str, RoleView]) -> None:
        """Take the views.

        Raises:
            ValueError: if the student's average is to be the target and there is none.
        """
        super().bind(views)
        if self._target == "ema" and "ema" not in views:
            raise ValueError("target='ema': the student has no average, set its ema_decay")

    def intervals(self, moment: Moment) -> int:
        """How finely times are divided now."""
        return self._start << min(int(moment.progress * (self._doublings + 1)), self._doublings)

    def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
        """One update of the student."""
        x0, condition = batch.x0, dict(batch.condition)
        t, s = self._neighbours(len(x0), moment)
        x_t = self.adapter.add_noise(x0, noise_like(x0, moment), t)
        scale = self._scales(len(x0), moment)
        with torch.no_grad():
            x_s = self._towards_data(x_t, t, s, condition, 1.0 if scale is None else scale)
            if scale is not None:
                condition["guidance"] = scale
            target = self.views["ema" if self._target == "ema" else "student"]
            wanted = consistency_function(target, x_s, s, condition)
        found = consistency_function(self.views["student"], x_t, t, condition)
        c = self._huber * math.sqrt(found[0].numel())
        # Over the interval's length, so that finer intervals do not weaken the gradient.
        yield Update("student", (pseudo_huber(found - wanted, c=c) / (t - s)).mean())

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
        """Multistep consistency sampling; the student is told the scale of guidance that it has learned."""
        context = view.context
        times = even_times(steps, first=context.first_time, last=context.last_time)[:-1].tolist()
        told = dict(condition)
        if self._guidance is not None:
            told["guidance"] = torch.full((len(noise),), guidance, device=noise.device)
        elif guidance != 1.0:
            raise ValueError(f"guidance={guidance} has no effect: this student was trained without")
        return few_steps(
            lambda x_t, t: consistency_function(view, x_t, t, told),
            noise,
            times,
            schedule=context.schedule,
            generator=generator,
        )

    def _neighbours(self, count: int, moment: Moment) -> tuple[Tensor, Tensor]:
        """Both ends of random intervals."""
        intervals, context = self.intervals(moment), self.context
        drawn = self._times(count, generator=moment.generator, device=moment.generator.device)
        place = (drawn * intervals).floor().clamp(0, intervals - 1)
        width = (context.last_time - context.first_time) / intervals
        low = context.first_time + place * width
        return (low + width).clamp(max=context.last_time), low

    def _scales(self, count: int, moment: Moment) -> Tensor | None:
        if self._guidance is None:
            return None
        return uniform(count, low=self._guidance[0], high=self._guidance[1], moment=moment)

    def _towards_data(
        self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, guidance: float | Tensor
    ) -> Tensor:
        """The teacher's steps from ``t`` to ``s``."""
        for step in range(self._solver_steps):
            here, there = (t + (s - t) * (done / self._solver_steps) for done in (step, step + 1))
            x_t = self._one_step(x_t, here, there, condition, guidance)
        return x_t

    def _one_step(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, guidance: float | Tensor) -> Tensor:
        teacher, schedule = self.views["teacher"], self.context.schedule
        x0 = teacher.predict_x0(x_t, t, condition, guidance=guidance)
        x_s = ddim_step(x_t, x0, t, s, schedule)
        if self._solver == "ddim":
            return x_s
        # The mean of the data seen at both ends makes the exponential integrator one of second order.
        ahead = teacher.predict_x0(x_s, s, condition, guidance=guidance)
        return ddim_step(x_t, (x0 + ahead) / 2, t, s, schedule)
