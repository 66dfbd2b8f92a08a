"""Fine-tuning: the method with a student alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from neurotrain.diffusion import Condition, PreparedBatch, RoleView, solve
from neurotrain.noise import Prediction, Solver, TimeSampling, UniformTimes, convert, min_snr_weight
from neurotrain.tasks.distillation.base import Method, Moment, Needs, Update, mean_square
from neurotrain.tasks.distillation.coupling import coupled_noise


class FineTune(Method):
    """Denoise real data: the mean square of the error of a prediction.

    Args:
        target: in which prediction the error is measured; None: the network's own.
        times: distribution of the training times; uniform where not given.
        min_snr_gamma: bound of the signal-to-noise ratio that weighs an error of the data; None: all count alike.
        coupling: samples among which noise and data are paired by least distance, which straightens the trajectories
            (see :func:`neurotrain.tasks.distillation.coupling.paired_noise`); 1: drawn apart. Unconditional data only.
        sampler: solver of the sampling equation, for validation.

    Raises:
        ValueError: if a value is out of range.
    """

    needs: ClassVar[Needs] = Needs()

    def __init__(
        self,
        *,
        target: Prediction | None = None,
        times: TimeSampling | None = None,
        min_snr_gamma: float | None = None,
        coupling: int = 1,
        sampler: Solver = "dpm_solver_2m",
    ) -> None:
        if min_snr_gamma is not None and min_snr_gamma <= 0:
            raise ValueError(f"min_snr_gamma={min_snr_gamma}: must be above 0")
        if coupling < 1:
            raise ValueError(f"coupling={coupling}: expected 1 or more")
        self._target: Prediction | None = target
        self._sampler: Solver = sampler
        self._gamma, self._coupling = min_snr_gamma, coupling
        self._times = UniformTimes() if times is None else times

    def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
        """One update of the student."""
        student, context, x0 = self.views["student"], self.context, batch.x0
        target: Prediction = student.prediction if self._target is None else self._target
        t = self._times(len(x0), generator=moment.generator, device=x0.device)
        t = t.clamp(context.first_time, context.last_time)
        noise = coupled_noise(batch, moment, size=self._coupling)
        x_t = self.adapter.add_noise(x0, noise, t)
        wanted = convert(x0, x_t, t, schedule=context.schedule, source="x0", target=target)
        error = student.predict(x_t, t, batch.condition, target=target) - wanted
        weight = None
        if self._gamma is not None:
            weight = min_snr_weight(t, context.schedule, prediction=target, gamma=self._gamma)
        yield Update("student", mean_square(error, weight))

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
        """Follow the sampling equation."""
        return solve(view, noise, steps=steps, sampler=self._sampler, condition=condition, guidance=guidance)
