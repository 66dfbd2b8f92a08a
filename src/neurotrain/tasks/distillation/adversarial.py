"""Adversarial distillation: a discriminator on the frozen teacher's features of noisy samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.diffusion import Condition, PreparedBatch
from neurotrain.noise import LogitNormalTimes, TimeSampling
from neurotrain.tasks.distillation.base import Method, Moment, Needs, Update, Workplace, noise_like
from neurotrain.tasks.distillation.regression import TrajectoryRegression
from neurotrain.tasks.distillation.rollout import simulated_input


def hinge(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """The discriminator's loss: real logits above 1, the others below -1.

    Example:
        >>> hinge(torch.tensor([2.0]), torch.tensor([0.5])).item()
        1.5
    """
    return F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()


class Adversarial(Method):
    """The student's samples, noised, must look to the teacher's features as noised real data do.

    A student that begins as its teacher needs no more. One that begins from noise can be held near its teacher by a
    ``regression``, which is added to its loss.

    Args:
        steps: of the student.
        times: distribution of the noise under which real and made are compared.
        r1_weight: of the squared gradient of the real logits by the real features; 0: none.
        update_ratio: updates of the discriminator for one of the student.
        regression: on the teacher's trajectories, at all of the student's times; None: there is none.

    Raises:
        ValueError: if a number is out of range, or the regression has fewer steps of the teacher than the student's.

    Reference:
        Sauer et al., 2024 (arXiv:2403.12015); the penalty: Mescheder et al., 2018 (arXiv:1801.04406); with a
        regression: Kang et al., 2024 (arXiv:2405.05967).

    Example:
        >>> method = Adversarial(update_ratio=2, regression=TrajectoryRegression(count=20000))
        >>> method.period("student"), method.period("discriminator")
        (2, 1)
    """

    needs: ClassVar[Needs] = Needs(trained=("student", "discriminator"), frozen=("teacher",))

    def __init__(
        self,
        *,
        steps: int = 1,
        times: TimeSampling | None = None,
        r1_weight: float = 0.1,
        update_ratio: int = 1,
        regression: TrajectoryRegression | None = None,
    ) -> None:
        if steps < 1 or update_ratio < 1 or r1_weight < 0:
            raise ValueError(
                f"steps={steps} and update_ratio={update_ratio} must be 1 or more, r1_weight={r1_weight} 0"
            )
        if regression is not None:
            regression.check(steps=steps)
        self._steps, self._ratio, self._r1 = steps, update_ratio, r1_weight
        self._regression = regression
        self._times = LogitNormalTimes() if times is None else times

    def prepare(self, workplace: Workplace) -> None:
        """Make the trajectories, where there is a regression."""
        if self._regression is not None:
            times = self.student_times(self._steps)
            self._regression.prepare(self.views["teacher"], times=times, workplace=workplace)

    def period(self, role: str) -> int:
        """The student steps in every ``update_ratio``-th iteration."""
        return self._ratio if role == "student" else 1

    def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
        """The discriminator, then, where it is its turn, the student."""
        yield self._discriminator_update(batch, moment)
        if moment.iteration % self._ratio == 0:
            yield self._student_update(batch, moment)

    def _samples(self, batch: PreparedBatch, moment: Moment) -> Tensor:
        student = self.views["student"]
        x_t, t = simulated_input(
            student.predict_x0,
            noise_like(batch.x0, moment),
            self.student_times(self._steps),
            condition=batch.condition,
            schedule=self.context.schedule,
            generator=moment.generator,
        )
        return student.predict_x0(x_t, t, batch.condition)

    def _student_update(self, batch: PreparedBatch, moment: Moment) -> Update:
        x0 = self._samples(batch, moment)
        with self.views["discriminator"].frozen():
            logits, _ = self._logits(x0, batch.condition, moment)
        fooled = -logits.mean()
        if self._regression is None:
            return Update("student", fooled)
        error = self._regression.error(self.views["student"], len(x0), moment)
        loss = fooled + self._regression.weight * error
        return Update("student", loss, {"fooled": fooled, "regression": error})

    def _discriminator_update(self, batch: PreparedBatch, moment: Moment) -> Update:
        with torch.no_grad():
            made = self._samples(batch, moment)
        on_fake, _ = self._logits(made, batch.condition, moment)
        on_real, features = self._logits(batch.x0, batch.condition, moment, penalised=self._r1 > 0)
        loss = hinge(on_real, on_fake)
        figures = {"real": on_real.mean(), "fake": on_fake.mean()}
        if self._r1 > 0:
            gradients = torch.autograd.grad(on_real.sum(), features, create_graph=True)
            penalty = torch.stack([part.square().flatten(1).sum(1).mean() for part in gradients]).sum()
            loss = loss + 0.5 * self._r1 * penalty
            figures["r1"] = penalty
        return Update("discriminator", loss, figures)

    def _logits(
        self, x0: Tensor, condition: Condition, moment: Moment, *, penalised: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        context = self.context
        t = self._times(len(x0), generator=moment.generator, device=x0.device)
        t = t.clamp(context.first_time, context.last_time)
        x_t = self.adapter.add_noise(x0, noise_like(x0, moment), t)
        features = self.views["teacher"].features(x_t, t, condition)
        if penalised:
            features = [part.detach().requires_grad_(True) for part in features]
        return self.views["discriminator"].handle.module(features, t), features
