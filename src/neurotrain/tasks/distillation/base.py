"""What an algorithm of distillation is: which roles it needs, and what each of its updates minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neurotrain.diffusion import Condition, PreparedBatch, Role, RoleSpec, RoleView, SharedContext, even_times
from neurotrain.diffusion.adapter import Adapter
from neurotrain.diffusion.roles import missing_role


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Roles of a method.

    Attributes:
        trained: roles that must be there and be trained.
        frozen: roles that must be there and be frozen.
        optional: trained roles that may be left out.
        may_freeze: frozen roles that may be left out.
    """

    trained: tuple[str, ...] = ("student",)
    frozen: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    may_freeze: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a run stands when a method is asked for its updates.

    Attributes:
        iteration: from 0; batches that are accumulated belong to one.
        iterations: of the whole run.
        generator: of this rank: all noise and times of the method come from it.
    """

    iteration: int
    iterations: int
    generator: torch.Generator

    @property
    def progress(self) -> float:
        """Share of the run that is over, in [0, 1)."""
        return self.iteration / self.iterations


@dataclass(frozen=True)
class Update:
    """One step of one role.

    Attributes:
        role: whose optimizer steps.
        loss: what it minimises, a scalar.
        figures: further numbers of the log.
    """

    role: str
    loss: Tensor
    figures: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a method may prepare things before the first batch.

    Attributes:
        rank: of this process.
        world_size: number of processes.
        device: of the networks.
        barrier: waits for all processes.
        folder: of the run.
    """

    rank: int
    world_size: int
    device: torch.device
    folder: Path
    barrier: Any


class Method(ABC):
    """An algorithm: it talks to views of roles, draws from the generator that it is given, and yields losses.

    The task that runs it owns backward passes, accumulation, clipping, optimizers, clocks and checkpoints.

    Attributes:
        needs: roles that it takes.
        views: of the roles, once bound.
    """

    needs: ClassVar[Needs] = Needs()
    views: Mapping[str, RoleView]

    def check(self, roles: Mapping[str, Role]) -> None:
        """Refuse roles that do not fit the method.

        Raises:
            ValueError: names the role that is missing, unknown, or wrongly frozen or trained.
        """
        needs, title = self.needs, type(self).__name__
        for name in (*needs.trained, *needs.frozen):
            if name not in roles:
                raise ValueError(f"{title} needs the role {name!r}; there are: {', '.join(roles) or 'none'}")
        frozen = (*needs.frozen, *needs.may_freeze)
        known = (*needs.trained, *needs.optional, *frozen)
        for name, role in roles.items():
            if name not in known:
                raise ValueError(f"{title} has no use for a role: {missing_role(name, known)}")
            if role.trainable and name in frozen:
                raise ValueError(f"{title} does not train the role {name!r}: remove its optimizer")
            if not role.trainable and name not in frozen:
                raise ValueError(f"{title} trains the role {name!r}: give it an optimizer")

    def tells(self) -> tuple[str, ...]:
        """Further numbers that it tells the student, by channel."""
        return ()

    def check_specs(self, specs: Mapping[str, RoleSpec]) -> None:
        """Refuse roles whose networks cannot do what the method asks of them; no weight has been loaded yet.

        Args:
            specs: of the roles that denoise, by name.

        Raises:
            ValueError: names method, role, network and what it lacks.
        """
        title, told = type(self).__name__, self.tells()
        student = specs["student"]
        for channel in told:
            if channel not in student.abilities.scalars:
                raise ValueError(
                    f"{title} tells its student the {channel!r}: the network of role 'student', a "
                    f"{student.abilities.network}, has no place for it"
                )
        if "guidance" in told and not student.latent.condition:
            raise ValueError(f"{title} learns guidance by its scale, but nothing conditions role 'student'")
        for role, spec in specs.items():
            for channel in spec.abilities.needs:
                if role != "student" or channel not in told:
                    raise ValueError(
                        f"the network of role {role!r}, a {spec.abilities.network}, must be told the {channel!r}, and "
                        f"{title} does not say it: set {channel} of the pipeline"
                    )

    def bind(self, views: Mapping[str, RoleView]) -> None:
        """Take the roles' views."""
        self.views = views

    def prepare(self, workplace: Workplace) -> None:  # noqa: B027 - most methods have nothing to prepare
        """Make what is needed before the first batch of a fit, on every rank."""

    @abstractmethod
    def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
        """Yield the updates of one iteration, in their order.

        Each is carried out before the next is asked for, so a later loss sees the new weights.
        """

    def period(self, role: str) -> int:
        """Iterations from one update of a role to the next; the first is in iteration 0."""
        return 1

    def student_times(self, steps: int) -> tuple[float, ...]:
        """At which a student of so many steps is called, falling."""
        context = self.context
        return tuple(even_times(steps, first=context.first_time, last=context.last_time)[:-1].tolist())

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
        """Samples of a role as its training meant it: predict the data, add fresh noise of the next time, repeat."""
        from neurotrain.tasks.distillation.rollout import few_steps

        context = view.context
        times = even_times(steps, first=context.first_time, last=context.last_time)[:-1].tolist()
        return few_steps(
            lambda x_t, t: view.predict_x0(x_t, t, condition, guidance=guidance),
            noise,
            times,
            schedule=context.schedule,
            generator=generator,
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold beside roles and clocks: plain values and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - most methods have no state
        """Go on from :meth:`state_dict`."""

    def networks(self) -> dict[str, nn.Module]:
        """Networks of its own, beside the roles', which must be brought to the device."""
        return {}

    @property
    def context(self) -> SharedContext:
        """What all roles share."""
        return self.adapter.context

    @property
    def adapter(self) -> Adapter:
        """Operations of the family."""
        return self.views["student"].adapter


def mean_square(error: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of squares, each sample weighted, in float32 at least.

    Args:
        error: ``(B, ...)``.
        weight: ``(B,)``; None: 1.

    Example:
        >>> mean_square(torch.tensor([[1.0], [2.0]]), torch.tensor([2.0, 0.0])).item()
        1.0
    """
    wide = error.to(torch.promote_types(error.dtype, torch.float32)).square().flatten(1).mean(1)
    return (wide if weight is None else wide * weight.to(wide)).mean()


def uniform(count: int, *, low: float, high: float, moment: Moment) -> Tensor:
    """Times ``(count,)``, each as likely, drawn from the moment's generator."""
    generator = moment.generator
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def noise_like(x0: Tensor, moment: Moment) -> Tensor:
    """Standard normal of a tensor's shape, drawn from the moment's generator."""
    generator = moment.generator
    return torch.randn(x0.shape, generator=generator, device=generator.device)
