"""Roles: what a configuration says of one, what a run holds of one, and all of them together."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from neurotrain.diffusion.specs import RoleSpec
from neurotrain.ema import ExponentialMovingAverage

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""Takes parameter groups, returns an optimizer."""

LearningRate = Callable[[int, int], float]
"""Factor of the learning rate at (step, all steps), both counted on the role's own clock."""


class Role:
    """What a configuration says of one role; the family turns it into a :class:`RoleHandle`.

    A role is trained exactly if it has an optimizer. No name is privileged: methods say which roles they need.

    Args:
        network: of the role; None: the family's own (a closed form, a pretrained pipeline).
        optimizer: factory over parameter groups; None: the role is frozen.
        schedule: factor of the learning rate at each step of this role; None: constant.
        weights: safetensors to start from.
        initialize_from: name of another role whose weights this one starts from.
        ema_decay: of the average of its weights; None: no average is kept.
        ema_warmup: whether the average's first updates forget faster.
        gradient_clip: largest norm of its gradient; None: not clipped.

    Raises:
        ValueError: if settings contradict each other, or have no effect.
    """

    def __init__(
        self,
        *,
        network: nn.Module | None = None,
        optimizer: OptimizerFactory | None = None,
        schedule: LearningRate | None = None,
        weights: Path | None = None,
        initialize_from: str | None = None,
        ema_decay: float | None = None,
        ema_warmup: bool = True,
        gradient_clip: float | None = 1.0,
    ) -> None:
        if weights is not None and initialize_from is not None:
            raise ValueError(f"weights={str(weights)!r} and initialize_from={initialize_from!r}: give one of them")
        if optimizer is None and ema_decay is not None:
            raise ValueError(f"ema_decay={ema_decay} has no effect: a role without an optimizer is frozen")
        if optimizer is None and schedule is not None:
            raise ValueError("schedule has no effect: a role without an optimizer is frozen")
        if gradient_clip is not None and gradient_clip <= 0:
            raise ValueError(f"gradient_clip={gradient_clip}: must be above 0; null does not clip")
        self.network, self.optimizer, self.schedule = network, optimizer, schedule
        self.weights, self.initialize_from = weights, initialize_from
        self.gradient_clip = gradient_clip
        self.average = None if ema_decay is None else ExponentialMovingAverage(decay=ema_decay, warmup=ema_warmup)

    @property
    def trainable(self) -> bool:
        """Whether it has an optimizer."""
        return self.optimizer is not None


@dataclass(kw_only=True)
class RoleHandle:
    """What a run holds of one role.

    Attributes:
        name: its key.
        module: its network.
        spec: what the network says of itself.
        settings: of the configuration.
        steps: the role's own clock: optimizer steps done.
        optimizer: once the trainer has set up; None for a frozen role.
        average_is_in: whether the averaged weights are in the module right now.
    """

    name: str
    module: nn.Module
    spec: RoleSpec
    settings: Role
    steps: int = 0
    optimizer: Optimizer | None = None
    average_is_in: bool = False
    _rates: list[float] = field(default_factory=list[float])

    @property
    def trainable(self) -> bool:
        """Whether a method may train it."""
        return self.settings.trainable

    @property
    def average(self) -> ExponentialMovingAverage | None:
        """Of its weights."""
        return self.settings.average

    def parameters(self) -> list[nn.Parameter]:
        """Those that are trained."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def build_optimizer(self) -> Optimizer:
        """Make and keep the optimizer; vectors and scalars (norms, biases) do not decay.

        Raises:
            ValueError: if nothing in the network is trainable.
        """
        assert self.settings.optimizer is not None
        parameters = self.parameters()
        if not parameters:
            raise ValueError(f"role {self.name!r} has an optimizer, but its network has nothing to train")
        groups: list[dict[str, Any]] = [
            {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
            {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = self.settings.optimizer([group for group in groups if group["params"]])
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        return self.optimizer

    def set_rate(self, *, horizon: int) -> None:
        """Set the learning rate of the step that comes next on this role's clock.

        Args:
            horizon: steps that this role will take in the whole run.
        """
        assert self.optimizer is not None
        factor = 1.0 if self.settings.schedule is None else self.settings.schedule(self.steps, horizon)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def advance(self) -> None:
        """Count a step of the optimizer, and let the average follow: both move only when the role does."""
        self.steps += 1
        if self.average is not None:
            self.average.update()

    @contextmanager
    def averaged(self) -> Generator[None]:
        """Put the averaged weights in for a while, where there are any."""
        # Before the first fit there are no averages yet: the weights are what there is.
        if self.average is None or self.average.module is None:
            yield
            return
        with self.average.swap():
            self.average_is_in = True
            try:
                yield
            finally:
                self.average_is_in = False

    def state_dict(self) -> dict[str, Any]:
        """Clock and average: plain numbers and tensors."""
        return {"steps": self.steps, "average": None if self.average is None else dict(self.average.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`.

        Raises:
            ValueError: if one has an average and the other none.
        """
        self.steps = int(state["steps"])
        kept = state["average"]
        if (kept is None) != (self.average is None):
            raise ValueError(
                f"role {self.name!r}: the checkpoint has {'no ' if kept is None else 'an '}average of its weights, "
                f"this run {'none' if self.average is None else 'one'}: set ema_decay as before"
            )
        if self.average is not None:
            self.average.load_state_dict({"updates": kept["updates"], "average": kept["average"]})


class RoleManager(Mapping[str, RoleHandle]):
    """All handles by name.

    Args:
        handles: of a pipeline, in any order.

    Raises:
        ValueError: if two have one name.
    """

    def __init__(self, handles: Iterable[RoleHandle]) -> None:
        self._handles: dict[str, RoleHandle] = {}
        for handle in handles:
            if handle.name in self._handles:
                raise ValueError(f"two roles are called {handle.name!r}")
            self._handles[handle.name] = handle

    def __getitem__(self, name: str) -> RoleHandle:
        """The handle of that name."""
        if name not in self._handles:
            raise KeyError(missing_role(name, self._handles))
        return self._handles[name]

    def __iter__(self) -> Iterator[str]:
        """Names, in the order of the configuration."""
        return iter(self._handles)

    def __len__(self) -> int:
        """Number of roles."""
        return len(self._handles)

    @property
    def trainable(self) -> dict[str, RoleHandle]:
        """Those that are trained, in the order of their names: the order of the optimizers."""
        return {name: self._handles[name] for name in sorted(self._handles) if self._handles[name].trainable}

    @property
    def frozen(self) -> dict[str, RoleHandle]:
        """The others."""
        return {name: handle for name, handle in self._handles.items() if not handle.trainable}


def missing_role(name: str, known: Iterable[str]) -> str:
    """Say that there is no such role, and which come near.

    Example:
        >>> missing_role("teachr", ["student", "teacher"])
        "no role 'teachr'; nearest: 'teacher'"
    """
    options = list(known)
    near = difflib.get_close_matches(name, options, n=1)
    return f"no role {name!r}; nearest: {near[0]!r}" if near else f"no role {name!r}; there are: {', '.join(options)}"


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor | None:
    """Norm of all gradients together; None where there is none at all.

    Args:
        parameters: of one role.
    """
    from torch.nn.utils import get_total_norm

    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return get_total_norm(gradients) if gradients else None
