"""Distribution matching: the student follows the difference of two scores, the teacher's and its own samples'."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.diffusion import Condition, PreparedBatch
from neurotrain.noise import expand
from neurotrain.tasks.distillation.base import (
    Method,
    Moment,
    Needs,
    Update,
    Workplace,
    mean_square,
    noise_like,
    uniform,
)
from neurotrain.tasks.distillation.regression import TrajectoryRegression
from neurotrain.tasks.distillation.rollout import simulated_input

Weighting = Literal["sample", "kl"]
"""``sample``: each gradient is divided by the sample's distance to the teacher's data; ``kl``: the divergence's own."""


def matching_gradient(
    x0: Tensor, real: Tensor, fake: Tensor, *, alpha: Tensor, sigma: Tensor, weighting: Weighting
) -> Tensor:
    """Gradient of the divergence of a student's noisy samples from the teacher's, by the student's samples.

    ``KL(p_fake || p_real)`` at one time has the gradient ``alpha (s_fake - s_real)``, and with
    ``s = (alpha x0_hat - x_t) / sigma^2`` this is ``alpha^2 / sigma^2 (fake - real)``.

    Args:
        x0: the student's samples ``(B, ...)``.
        real: data that the teacher sees in them at some noise.
        fake: data that the critic sees in them.
        alpha: weight of the data at that noise, ``(B,)``.
        sigma: weight of the noise, ``(B,)``.
        weighting: what multiplies the difference.

    Returns:
        ``(B, ...)``, for one sample; it is not divided by B.

    Reference:
        Yin et al., 2023 (arXiv:2311.18828), equations 7 and 8.
    """
    difference = fake - real
    if weighting == "kl":
        return expand((alpha / sigma).square(), x0) * difference
    scale = (x0 - real).abs().flatten(1).mean(1).clamp(min=1e-6)
    return difference / expand(scale, x0)


class Dmd2(Method):
    """Student and critic in turn: the critic learns the score of the student's samples, the student follows.

    The critic is updated in every iteration, the student in every ``update_ratio``-th. A student of several steps is
    trained on what it meets when it samples. With a role ``discriminator`` (a head on the critic's features) the critic
    also tells real data from the student's, and the student is trained to pass for real.

    The difference of two scores says little where the student makes nothing. A student that begins as its teacher makes
    something everywhere; for one that begins from noise there is the ``regression`` of the method's first form, which
    is added to the student's loss.

    Args:
        steps: of the student.
        update_ratio: updates of the critic for one of the student.
        guidance: scale of the teacher's guidance.
        weighting: of the student's gradient.
        low: smallest time at which scores are compared, as a share of the range.
        high: largest such time.
        gan_weight: of the adversarial loss in the student's; has an effect with a discriminator only.
        regression: on the teacher's trajectories, at all of the student's times; None: there is none.

    Raises:
        ValueError: if a number is out of range, or the regression has another guidance or fewer steps of the teacher
            than the student's.

    Reference:
        Yin et al., 2024 (arXiv:2405.14867); the regression: Yin et al., 2023 (arXiv:2311.18828), section 3.3.

    Example:
        >>> method = Dmd2(update_ratio=2, regression=TrajectoryRegression(weight=0.25, count=20000))
        >>> method.period("student"), method.period("critic")
        (2, 1)
    """

    needs: ClassVar[Needs] = Needs(trained=("student", "critic"), frozen=("teacher",), optional=("discriminator",))

    def __init__(
        self,
        *,
        steps: int = 1,
        update_ratio: int = 5,
        guidance: float = 1.0,
        weighting: Weighting = "sample",
        low: float = 0.02,
        high: float = 0.98,
        gan_weight: float = 3e-3,
        regression: TrajectoryRegression | None = None,
    ) -> None:
        if steps < 1 or update_ratio < 1:
            raise ValueError(f"steps={steps}, update_ratio={update_ratio}: expected 1 or more")
        if not 0 <= low < high <= 1:
            raise ValueError(f"low={low}, high={high}: expected 0 <= low < high <= 1")
        if gan_weight <= 0:
            raise ValueError(f"gan_weight={gan_weight}: must be above 0; leave the role discriminator out instead")
        if regression is not None:
            regression.check(steps=steps)
            if regression.guidance != guidance:
                raise ValueError(
                    f"guidance={guidance}, but regression.guidance={regression.guidance}: the student would follow two "
                    "teachers; set both alike"
                )
        self._steps, self._ratio, self._guidance = steps, update_ratio, guidance
        self._weighting: Weighting = weighting
        self._low, self._high, self._gan_weight = low, high, gan_weight
        self._regression = regression

    def prepare(self, workplace: Workplace) -> None:
        """Make the trajectories, where there is a regression."""
        if self._regression is not None:
            times = self.student_times(self._steps)
            self._regression.prepare(self.views["teacher"], times=times, workplace=workplace)

    def period(self, role: str) -> int:
        """The student steps in every ``update_ratio``-th iteration."""
        return self._ratio if role == "student" else 1

    def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
        """The student where it is its turn, then the critic, then the discriminator."""
        if moment.iteration % self._ratio == 0:
            yield self._student_update(batch, moment)
        with torch.no_grad():
            x0 = self.samples(batch, moment)
        yield self._critic_update(x0, batch.condition, moment)
        if "discriminator" in self.views:
            yield self._discriminator_update(batch.x0, x0, batch.condition, moment)

    def samples(self, batch: PreparedBatch, moment: Moment) -> Tensor:
        """The student's samples for a batch's conditions, with gradients to the last call of the student."""
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

    def gradient(self, x0: Tensor, condition: Condition, moment: Moment) -> Tensor:
        """Of the divergence at random noise by the student's samples, ``(B, ...)``; see :func:`matching_gradient`."""
        t, x_t = self._noised(x0, moment)
        schedule = self.context.schedule
        with torch.no_grad():
            real = self.views["teacher"].predict_x0(x_t, t, condition, guidance=self._guidance)
            fake = self.views["critic"].predict_x0(x_t, t, condition)
        return matching_gradient(
            x0, real, fake, alpha=schedule.alpha(t), sigma=schedule.sigma(t), weighting=self._weighting
        )

    def _student_update(self, batch: PreparedBatch, moment: Moment) -> Update:
        x0 = self.samples(batch, moment)
        gradient = self.gradient(x0.detach(), batch.condition, moment)
        loss = (gradient * x0).flatten(1).mean(1).mean()  # its derivative by the samples is the gradient
        figures = {"matching": gradient.square().mean().sqrt()}
        if "discriminator" in self.views:
            with self.views["critic"].frozen(), self.views["discriminator"].frozen():
                fooled = F.softplus(-self._logits(x0, batch.condition, moment)).mean()
            loss = loss + self._gan_weight * fooled
            figures["fooled"] = fooled
        if self._regression is not None:
            error = self._regression.error(self.views["student"], len(x0), moment)
            loss = loss + self._regression.weight * error
            figures["regression"] = error
        return Update("student", loss, figures)

    def _critic_update(self, x0: Tensor, condition: Condition, moment: Moment) -> Update:
        critic = self.views["critic"]
        generator = moment.generator
        context = self.context
        t = uniform(len(x0), low=context.first_time, high=context.last_time, moment=moment)
        noise = torch.randn(x0.shape, generator=generator, device=generator.device)
        x_t = self.adapter.add_noise(x0, noise, t)
        return Update("critic", mean_square(critic.predict_velocity(x_t, t, condition) - (noise - x0)))

    def _discriminator_update(self, real: Tensor, fake: Tensor, condition: Condition, moment: Moment) -> Update:
        with self.views["critic"].frozen():
            on_real = self._logits(real, condition, moment)
            on_fake = self._logits(fake, condition, moment)
        return Update("discriminator", F.softplus(-on_real).mean() + F.softplus(on_fake).mean())

    def _logits(self, x0: Tensor, condition: Condition, moment: Moment) -> Tensor:
        t, x_t = self._noised(x0, moment)
        features = self.views["critic"].features(x_t, t, condition)
        return self.views["discriminator"].handle.module(features, t)

    def _noised(self, x0: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
        context = self.context
        span = context.last_time - context.first_time
        low, high = (context.first_time + share * span for share in (self._low, self._high))
        t = uniform(len(x0), low=low, high=high, moment=moment)
        return t, self.adapter.add_noise(x0, noise_like(x0, moment), t)
