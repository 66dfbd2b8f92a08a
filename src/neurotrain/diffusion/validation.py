"""Sample from a role and score the samples, without a trace in the training."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from neurotrain.diffusion.adapter import Adapter, RoleView
from neurotrain.diffusion.context import Condition
from neurotrain.noise import Solver, initial_state, solver

Sampler = Literal["student", "ddim", "euler", "heun", "dpm_solver_2m"]
"""``student``: as the method trained its student to be sampled; the others: solvers of the sampling equation."""


@dataclass(frozen=True, kw_only=True)
class ValidationRequest:
    """What to sample.

    Attributes:
        role: whose network samples.
        steps: calls of the network for each sample (twice as many with ``heun``).
        sampler: how they are made.
        guidance: scale of classifier-free guidance.
        seeds: one batch of samples each.
        count: samples a seed.
        batch_size: samples at a time.
        averaged: whether the role's averaged weights sample, where it has any.

    Raises:
        ValueError: if a number is out of range.
    """

    role: str = "student"
    steps: int = 1
    sampler: Sampler = "student"
    guidance: float = 1.0
    seeds: tuple[int, ...] = (0,)
    count: int = 1000
    batch_size: int = 5000
    averaged: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        for name, value in (("steps", self.steps), ("count", self.count), ("batch_size", self.batch_size)):
            if value < 1:
                raise ValueError(f"{name}={value}: expected 1 or more")
        if not self.seeds:
            raise ValueError("seeds=(): one at least is needed")


class Generate(Protocol):
    """How a method's student makes samples."""

    def __call__(
        self,
        view: RoleView,
        noise: Tensor,
        *,
        steps: int,
        condition: Condition,
        guidance: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Latents of the shape of ``noise``, which is standard normal."""
        ...


Score = Callable[[Tensor], dict[str, float]]
"""Figures of decoded samples."""


class Validator:
    """Samples and scores; leaves weights, modes and all random states as they were.

    Args:
        adapter: of the family.
        score: figures of samples; None: there are none.
        reference: what those figures are between samples of the data itself, by name; asked for in tests.
    """

    def __init__(
        self,
        *,
        adapter: Adapter,
        score: Score | None = None,
        reference: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        self.adapter = adapter
        self._score, self._reference = score, reference

    def sample(self, view: RoleView, request: ValidationRequest, *, generate: Generate) -> Tensor:
        """Make the samples of a request.

        Args:
            view: of the role.
            request: what to make.
            generate: how the method's student makes samples.

        Returns:
            Decoded samples on the CPU, those of one seed after those of another.
        """
        made = generate if request.sampler == "student" else _Solved(request.sampler)
        with undisturbed(view.handle.module), _weights(view, averaged=request.averaged):
            return torch.cat([part for seed in request.seeds for part in self._of_seed(view, request, made, seed)])

    def score(self, samples: Tensor) -> dict[str, float]:
        """Figures of samples; empty where the family has none."""
        if self._score is None:
            return {}
        with torch.no_grad(), _generators_kept():
            return self._score(samples)

    def reference(self) -> dict[str, float]:
        """What the figures are between samples of the data itself; empty where the family does not say."""
        return {} if self._reference is None else self._reference()

    def _of_seed(self, view: RoleView, request: ValidationRequest, generate: Generate, seed: int) -> Iterator[Tensor]:
        device = next((tensor.device for tensor in _tensors(view.handle.module)), torch.device("cpu"))
        # Drawn on the CPU: one seed means one picture on every device.
        generator = torch.Generator().manual_seed(seed)
        for first in range(0, request.count, request.batch_size):
            count = min(request.batch_size, request.count - first)
            noise = self.adapter.draw_noise(count, generator=generator).to(device)
            condition = {
                name: value.to(device)
                for name, value in self.adapter.draw_condition(count, generator=generator).items()
            }
            latents = generate(
                view, noise, steps=request.steps, condition=condition, guidance=request.guidance, generator=generator
            )
            yield self.adapter.decode(latents).float().cpu()


@dataclass(frozen=True)
class _Solved:
    """A solver of the sampling equation, as a way to make samples."""

    name: Solver

    def __call__(
        self,
        view: RoleView,
        noise: Tensor,
        *,
        steps: int,
        condition: Condition,
        guidance: float,
        generator: torch.Generator,
    ) -> Tensor:
        return solve(view, noise, steps=steps, sampler=self.name, condition=condition, guidance=guidance)


def solve(
    view: RoleView, noise: Tensor, *, steps: int, sampler: Solver, condition: Condition, guidance: float = 1.0
) -> Tensor:
    """Follow a role's sampling equation from noise to data, over times that divide the shared range evenly.

    Args:
        view: of the role.
        noise: standard normal ``(B, *shape)``.
        steps: intervals.
        sampler: which solver.
        condition: by channel.
        guidance: scale of classifier-free guidance.

    Returns:
        Latents.
    """
    context = view.context
    times = even_times(steps, first=context.first_time, last=context.last_time)
    start = initial_state(noise, times[0], context.schedule)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return view.predict_x0(x_t, t, condition, guidance=guidance)

    return solver(sampler)(denoise, start, times, context.schedule)


def even_times(steps: int, *, first: float, last: float) -> Tensor:
    """Times at which a network is called in a number of steps, falling from ``last``, and 0 behind them.

    Example:
        >>> even_times(2, first=0.0, last=1.0).tolist()
        [1.0, 0.5, 0.0]
    """
    return torch.cat((torch.linspace(last, first, steps + 1, dtype=torch.float64)[:-1], torch.zeros(1).double()))


@contextmanager
def undisturbed(module: nn.Module) -> Generator[None]:
    """Evaluate a module without gradients, and give back its modes and all global random generators as they were."""
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad(), _generators_kept():
            module.eval()
            yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def _generators_kept() -> Generator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _weights(view: RoleView, *, averaged: bool) -> Generator[None]:
    if not averaged:
        yield
        return
    with view.handle.averaged():
        yield


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
