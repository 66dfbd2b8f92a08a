"""Progressive distillation: half as many steps, again and again, each student the next one's teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neurotrain.diffusion import Condition, PreparedBatch, RoleHandle, RoleView, even_times
from neurotrain.noise import ddim, ddim_step, expand, initial_state
from neurotrain.tasks.distillation.base import Method, Moment, Needs, Update, mean_square, noise_like


class Progressive(Method):
    """One step of the student takes two of its teacher; then the student teaches, and the steps are halved.

    Rounds share the run evenly. What teaches after a round is the student as it was then (its averaged weights, where
    there are any); it is kept in the checkpoints.

    Args:
        start_steps: of the first teacher, a power of 2 times ``end_steps``.
        end_steps: of the last student.
        guidance: scale of the first teacher's guidance; later ones have learned it.

    Raises:
        ValueError: if the steps cannot be halved from one to the other.

    Reference:
        Salimans & Ho, 2022 (arXiv:2202.00512), algorithm 2; the weight of an error of the data is its ``max(SNR, 1)``.
    """

    needs: ClassVar[Needs] = Needs(frozen=("teacher",))

    def __init__(self, *, start_steps: int = 64, end_steps: int = 1, guidance: float = 1.0) -> None:
        rounds, left = 0, start_steps
        while left > end_steps >= 1 and left % 2 == 0:
            left //= 2
            rounds += 1
        if left != end_steps or not rounds:
            raise ValueError(f"start_steps={start_steps}: expected end_steps={end_steps} times 2, 4, 8, ...")
        self._start, self._rounds, self._guidance = start_steps, rounds, guidance
        self._round = 0
        self._retaught: RoleView | None = None

    def bind(self, views: Mapping[str, RoleView]) -> None:
        """Take the views; the copy that will teach is made of the student."""
        super().bind(views)
        student = views["student"]
        handle = RoleHandle(
            name="retaught",
            module=copy.deepcopy(student.handle.module).requires_grad_(False).eval(),
            spec=student.handle.spec,
            settings=views["teacher"].handle.settings,
        )
        self._retaught = student.adapter.bind(handle)

    def networks(self) -> dict[str, nn.Module]:
        """The copy that teaches."""
        return {"retaught": self._copy.handle.module}

    def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
        """One update of the student at its own times."""
        self._follow_rounds(moment)
        x0, condition = batch.x0, batch.condition
        steps = self._start >> (self._round + 1)
        t, middle, s = self._times(len(x0), steps, moment)
        x_t = self.adapter.add_noise(x0, noise_like(x0, moment), t)
        with torch.no_grad():
            wanted = self._two_steps(x_t, t, middle, s, condition)
        found = self.views["student"].predict_x0(x_t, t, condition)
        weight = self.context.schedule.log_snr(t).exp().clamp(1.0, _MAX_WEIGHT)
        yield Update("student", mean_square(found - wanted, weight))

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
        """Deterministic steps, as it was trained for."""
        context = view.context
        times = even_times(steps, first=0.0, last=context.last_time)
        start = initial_state(noise, times[0], context.schedule)
        return ddim(lambda x, t: view.predict_x0(x, t, condition, guidance=guidance), start, times, context.schedule)

    def state_dict(self) -> dict[str, Any]:
        """The round and the copy that teaches."""
        return {"round": self._round, "retaught": self._copy.handle.module.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in that round."""
        self._round = int(state["round"])
        self._copy.handle.module.load_state_dict(state["retaught"])

    @property
    def _copy(self) -> RoleView:
        assert self._retaught is not None, "bind() comes first"
        return self._retaught

    def _follow_rounds(self, moment: Moment) -> None:
        due = moment.iteration * self._rounds // moment.iterations
        if due > self._round:
            student = self.views["student"].handle
            with student.averaged():
                self._copy.handle.module.load_state_dict(student.module.state_dict())
            self._round = due

    def _times(self, count: int, steps: int, moment: Moment) -> tuple[Tensor, Tensor, Tensor]:
        generator = moment.generator
        place = torch.randint(1, steps + 1, (count,), generator=generator, device=generator.device)
        last = self.context.last_time
        return place * last / steps, (place - 0.5) * last / steps, (place - 1) * last / steps

    def _two_steps(self, x_t: Tensor, t: Tensor, middle: Tensor, s: Tensor, condition: Condition) -> Tensor:
        """The data that a single step from ``t`` must see to arrive where the teacher's two steps do."""
        schedule = self.context.schedule
        teacher = self._copy if self._round else self.views["teacher"]
        guidance = 1.0 if self._round else self._guidance
        first = teacher.predict_x0(x_t, t, condition, guidance=guidance)
        half = ddim_step(x_t, first, t, middle, schedule)
        second = teacher.predict_x0(half, middle, condition, guidance=guidance)
        at_data = expand(s <= 0, x_t)
        there = torch.where(s <= 0, middle, s)  # any time: the last step ends in the data itself
        end = ddim_step(half, second, middle, there, schedule)
        ratio = expand(schedule.sigma(there) / schedule.sigma(t), x_t)
        alpha_t, alpha_s = expand(schedule.alpha(t), x_t), expand(schedule.alpha(there), x_t)
        return torch.where(at_data, second, (end - ratio * x_t) / (alpha_s - ratio * alpha_t))


_MAX_WEIGHT = 25.0
"""Bound of the signal-to-noise ratio as a weight: near the data it has none."""
