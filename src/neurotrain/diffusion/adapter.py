"""Operations on latents, noise and networks that every method is made of; no method is known here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neurotrain.diffusion.context import Condition, SharedContext, unconditional
from neurotrain.diffusion.roles import RoleHandle
from neurotrain.networks.denoisers import CausalDenoiser, Past
from neurotrain.noise import Prediction, add_noise, convert, expand, rescale


@dataclass(frozen=True)
class PreparedBatch:
    """Clean latents and what steers them.

    Attributes:
        x0: ``(B, *shape)`` in the space of the networks.
        condition: by channel, ``(B, ...)`` each.
    """

    x0: Tensor
    condition: Condition = field(default_factory=dict[str, Tensor])


class Adapter(ABC):
    """From the batches and networks of one family to latents and predictions.

    Args:
        context: what the roles share.
    """

    def __init__(self, *, context: SharedContext) -> None:
        self.context = context

    @abstractmethod
    def prepare_batch(self, batch: Mapping[str, Any]) -> PreparedBatch:
        """Encode a batch of the loader into latents and conditions."""

    @abstractmethod
    def encode(self, sample: Tensor) -> Tensor:
        """What the loader calls a sample, as latents."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Latents as samples."""

    @abstractmethod
    def draw_condition(self, count: int, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Conditions to sample with where no batch gives any; empty where nothing steers."""

    @abstractmethod
    def evaluate(self, network: nn.Module, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The network's own output at its own schedule's sample and times ``(B,)``."""

    @abstractmethod
    def features(self, network: nn.Module, x_t: Tensor, t: Tensor, condition: Condition) -> list[Tensor]:
        """What a discriminator sees of the network there: tensors ``(B, C, ...)``.

        Raises:
            ValueError: if the network has none.
        """

    def extend(
        self, network: nn.Module, x_t: Tensor, t: Tensor, condition: Condition, past: Past | None
    ) -> tuple[Tensor, Past]:
        """The network's own output for the chunk of a video that comes next, see :meth:`CausalDenoiser.extend`.

        Raises:
            ValueError: if the network does not make videos chunk by chunk.
        """
        if not isinstance(network, CausalDenoiser):
            raise ValueError(f"{type(network).__name__} is no CausalDenoiser: it does not go on chunk by chunk")
        return network.extend(x_t, t, condition, past=past)

    def draw_noise(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Standard normal latents ``(count, *shape)`` on the generator's device."""
        return torch.randn(count, *self.context.shape, generator=generator, device=generator.device)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``alpha(t) x_0 + sigma(t) noise`` of the shared schedule; ``t`` is ``(B,)``, or one a frame of videos."""
        return add_noise(x0, noise, t, self.context.schedule)

    def bind(self, handle: RoleHandle) -> RoleView:
        """The same operations with one role's network."""
        return RoleView(adapter=self, handle=handle)


class RoleView:
    """One role as methods see it: samples, times and predictions are those of the shared schedule.

    A network of another schedule or prediction type is asked at the equal signal-to-noise ratio, and its answer
    converted, both exactly.

    Args:
        adapter: of the family.
        handle: of the role.
        averaged: whether the role's averaged weights answer; without gradients then.
    """

    def __init__(self, *, adapter: Adapter, handle: RoleHandle, averaged: bool = False) -> None:
        self.adapter = adapter
        self.handle = handle
        self.averaged = averaged

    @property
    def name(self) -> str:
        """Of the role."""
        return self.handle.name

    @property
    def context(self) -> SharedContext:
        """What all roles share."""
        return self.adapter.context

    @property
    def prediction(self) -> Prediction:
        """What the network predicts."""
        return self.handle.spec.latent.prediction

    def predict(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: Condition | None = None,
        *,
        target: Prediction,
        guidance: float | Tensor = 1.0,
    ) -> Tensor:
        """Ask the network, and convert what it says.

        Args:
            x_t: samples ``(B, *shape)`` of the shared schedule.
            t: their times ``(B,)``; ``(B, 1, T, 1, 1)`` where the network knows times of frames.
            condition: by channel.
            target: which kind of prediction to return, in the shared schedule.
            guidance: scale of classifier-free guidance, one number or ``(B,)``; the number 1 asks once.

        Returns:
            Of the shape of ``x_t``.

        Raises:
            ValueError: if guidance is asked for where nothing steers.
        """
        own = self.handle.spec.latent
        shared = self.context.schedule
        moved, time = rescale(x_t, t, source=shared, target=own.schedule)
        output = self._guided(moved, time, condition or {}, guidance)
        if own.schedule == shared or target in ("epsilon", "x0"):
            return convert(output, moved, time, schedule=own.schedule, source=own.prediction, target=target)
        # Data and noise are those of the other schedule too; what is mixed of them is not.
        x0, epsilon = (
            convert(output, moved, time, schedule=own.schedule, source=own.prediction, target=kind)
            for kind in ("x0", "epsilon")
        )
        if target == "flow":
            return epsilon - x0
        return expand(shared.alpha(t), x_t) * epsilon - expand(shared.sigma(t), x_t) * x0

    def predict_x0(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, guidance: float | Tensor = 1.0
    ) -> Tensor:
        """The data, see :meth:`predict`."""
        return self.predict(x_t, t, condition, target="x0", guidance=guidance)

    def predict_noise(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, guidance: float | Tensor = 1.0
    ) -> Tensor:
        """The noise, see :meth:`predict`."""
        return self.predict(x_t, t, condition, target="epsilon", guidance=guidance)

    def predict_velocity(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, guidance: float | Tensor = 1.0
    ) -> Tensor:
        """Noise less data, see :meth:`predict`."""
        return self.predict(x_t, t, condition, target="flow", guidance=guidance)

    def extend_x0(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, past: Past | None
    ) -> tuple[Tensor, Past]:
        """The data of the chunk of a video that comes next, and the past behind it.

        Args:
            x_t: noisy chunk ``(B, C, chunk, H, W)`` of the shared schedule.
            t: its times ``(B,)``.
            condition: by channel.
            past: of the chunks before it; None: it is the first.

        Raises:
            ValueError: if the network does not make videos chunk by chunk.
        """
        if self.averaged and not self.handle.average_is_in:
            with torch.no_grad(), self.handle.averaged():
                return self.extend_x0(x_t, t, condition, past=past)
        own = self.handle.spec.latent
        moved, time = rescale(x_t, t, source=self.context.schedule, target=own.schedule)
        output, present = self.adapter.extend(self.handle.module, moved, time, condition or {}, past)
        return convert(output, moved, time, schedule=own.schedule, source=own.prediction, target="x0"), present

    def features(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> list[Tensor]:
        """What a discriminator sees of the network at a noisy sample, see :meth:`Adapter.features`."""
        own = self.handle.spec.latent
        moved, time = rescale(x_t, t, source=self.context.schedule, target=own.schedule)
        return self.adapter.features(self.handle.module, moved, time, condition or {})

    @contextmanager
    def frozen(self) -> Generator[None]:
        """Let gradients pass through the network without reaching its weights."""
        parameters = self.handle.parameters()
        for parameter in parameters:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)

    def _guided(self, x_t: Tensor, t: Tensor, condition: Condition, guidance: float | Tensor) -> Tensor:
        network = self.handle.module
        if self.averaged and not self.handle.average_is_in:
            with torch.no_grad(), self.handle.averaged():
                return self._guided(x_t, t, condition, guidance)
        given = self.adapter.evaluate(network, x_t, t, condition)
        if not isinstance(guidance, Tensor) and guidance == 1.0:
            return given
        if not condition:
            raise ValueError(f"guidance={guidance} of role {self.name!r} has no effect: nothing conditions it")
        # All predictions are linear in each other at one time, so guidance of any kind is guidance of all.
        other = self.adapter.evaluate(network, x_t, t, unconditional(condition, context=self.context))
        scale = expand(guidance, given) if isinstance(guidance, Tensor) else guidance
        return other + scale * (given - other)
