"""Mean flow: the average velocity between two times, learned from its own derivative."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from neurotrain.diffusion import Condition, PreparedBatch, RoleSpec, RoleView, even_times
from neurotrain.noise import FlowSchedule, LogitNormalTimes, TimeSampling, expand, initial_state
from neurotrain.tasks.distillation.base import Method, Moment, Needs, Update
from neurotrain.tasks.distillation.coupling import coupled_noise


class MeanFlow(Method):
    """``u(x_t, r, t) = v - (t - r) du/dt``: a velocity that leads from ``t`` to ``r`` in one step.

    The derivative along the trajectory is a Jacobian-vector product in direction ``(v, 0, 1)``. The network predicts
    ``flow`` and is told ``t - r`` (channel ``span``); the schedule is a flow without shift.

    Args:
        times: distribution of each of the two times.
        equal_share: share of samples with ``r = t``, which learn the velocity itself.
        power: p of the weight ``(|error|^2 + c)^-p``; 0 is the mean square.
        offset: c.
        coupling: samples among which noise and data are paired by least distance, which straightens the trajectories
            (see :func:`neurotrain.tasks.distillation.coupling.paired_noise`); 1: drawn apart. Unconditional data only.

    Raises:
        ValueError: if a number is out of range.

    Reference:
        Geng et al., 2025 (arXiv:2505.13447), algorithm 1.
    """

    needs: ClassVar[Needs] = Needs()

    def __init__(
        self,
        *,
        times: TimeSampling | None = None,
        equal_share: float = 0.5,
        power: float = 0.5,
        offset: float = 1e-3,
        coupling: int = 1,
    ) -> None:
        if not 0 <= equal_share < 1 or power < 0 or offset <= 0:
            raise ValueError(
                f"equal_share={equal_share} must be in [0, 1), power={power} 0 or more, offset={offset} above 0"
            )
        if coupling < 1:
            raise ValueError(f"coupling={coupling}: expected 1 or more")
        self._times = LogitNormalTimes(mean=-0.4) if times is None else times
        self._equal, self._power, self._offset = equal_share, power, offset
        self._coupling = coupling

    def tells(self) -> tuple[str, ...]:
        """The length of the way."""
        return ("span",)

    def check_specs(self, specs: Mapping[str, RoleSpec]) -> None:
        """See :meth:`Method.check_specs`.

        Raises:
            ValueError: if schedule or network are not what the method is defined for.
        """
        student = specs["student"].latent
        if student.schedule != FlowSchedule():
            raise ValueError(f"mean flow is defined for FlowSchedule(shift=1.0), not {student.schedule}")
        if student.prediction != "flow":
            raise ValueError(f"prediction={student.prediction!r} of the student: mean flow predicts 'flow'")
        super().check_specs(specs)

    def bind(self, views: Mapping[str, RoleView]) -> None:
        """Take the views."""
        super().bind(views)
        _load_derivatives()

    def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
        """One update of the student."""
        x0, student = batch.x0, self.views["student"]
        t, r, moving = self._pair(len(x0), moment)
        noise = coupled_noise(batch, moment, size=self._coupling)
        x_t = self.adapter.add_noise(x0, noise, t)
        velocity = noise - x0

        found = _average_velocity(student, x_t, r, t, batch.condition)
        change = self._change(x_t, velocity, (r, t), batch.condition, moving=moving)
        wanted = (velocity - expand(t - r, x_t) * change).detach()
        square = (found - wanted).float().square().flatten(1).sum(1)
        weight = (square.detach() + self._offset) ** -self._power
        yield Update("student", (weight * square).mean(), {"square": square.mean()})

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
        """Steps of average velocity from 1 to 0."""
        if guidance != 1.0:
            raise ValueError(f"guidance={guidance} has no effect on a mean flow")
        context = view.context
        times = even_times(steps, first=0.0, last=context.last_time).tolist()
        x_t = initial_state(noise, torch.tensor(times[0], device=noise.device), context.schedule)
        for here, there in pairwise(times):
            t, r = (torch.full((len(noise),), time, device=noise.device) for time in (here, there))
            x_t = x_t - (here - there) * _average_velocity(view, x_t, r, t, condition)
        return x_t

    def _pair(self, count: int, moment: Moment) -> tuple[Tensor, Tensor, int]:
        """Times, ends ``r <= t``, and how many differ: those come first."""
        generator = moment.generator
        first, second = (self._times(count, generator=generator, device=generator.device) for _ in range(2))
        t, r = torch.maximum(first, second), torch.minimum(first, second)
        # Their share is exact in the mean over iterations, whatever the number of samples is.
        chance = float(torch.rand((), generator=generator, device=generator.device))
        moving = count - int(self._equal * count + chance)
        return t, torch.cat((r[:moving], t[moving:])), moving

    def _change(
        self, x_t: Tensor, velocity: Tensor, times: tuple[Tensor, Tensor], condition: Condition, *, moving: int
    ) -> Tensor:
        """``du/dt`` along the trajectory; 0 for those with ``r = t``, whose target does not depend on it."""
        count = max(moving, 1)  # every rank calls the network
        x, direction, r, t = (value[:count] for value in (x_t, velocity, *times))
        some = {name: value[:count] for name, value in condition.items()}

        def average(x: Tensor, end: Tensor, time: Tensor) -> Tensor:
            return _average_velocity(self.views["student"], x, end, time, some)

        one, zero = torch.ones_like(t), torch.zeros_like(t)
        # The fused kernels of attention know no forward derivative, the plain one does.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            change = torch.func.jvp(average, (x, r, t), (direction, zero, one))[1]
        return torch.cat((change, torch.zeros_like(x_t[count:], dtype=change.dtype)))


def _load_derivatives() -> None:
    """Let torch load its forward derivatives now, without the warning of its own that it compiles them the old way."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script. is deprecated", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit.script. is not supported", category=FutureWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


def _average_velocity(view: RoleView, x_t: Tensor, r: Tensor, t: Tensor, condition: Condition) -> Tensor:
    # The network itself: what is differentiated must not pass through conversions of other schedules.
    return view.adapter.evaluate(view.handle.module, x_t, t, {**condition, "span": t - r})
