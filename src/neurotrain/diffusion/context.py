"""What all roles of one pipeline share, said once and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from neurotrain.noise import NoiseSchedule

Condition = Mapping[str, Tensor]
"""Conditioning by channel (``text``, ``label``), each ``(B, ...)``; empty where nothing steers."""

Unconditional = Literal["negative", "zero", "keep", "drop"]
"""What a channel becomes in the second call of a guided network: the negative prompt's, zeros, itself, absent."""


@dataclass(frozen=True, kw_only=True)
class SharedContext:
    """Explicit and frozen: adapters and methods read it, nobody writes.

    Attributes:
        shape: of one latent, without the batch axis.
        schedule: in which times and noise levels of every method are meant.
        timestep_range: smallest and largest time that methods use.
        vae: autoencoder; None: the network sees what is in the batch.
        text_encoders: by channel.
        condition: shape of each channel that there is, without the batch axis.
        negative: one sample of each channel that the negative prompt gives, without the batch axis.
        unconditional: what each channel becomes under guidance; ``drop`` where not named.
        fingerprint: of everything above that is not a number: names cached trajectories.
    """

    shape: tuple[int, ...]
    schedule: NoiseSchedule
    timestep_range: tuple[float, float] = (0.0, 1.0)
    vae: nn.Module | None = None
    text_encoders: Mapping[str, nn.Module] = field(default_factory=dict[str, nn.Module])
    condition: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    negative: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    unconditional: Mapping[str, Unconditional] = field(default_factory=dict[str, Unconditional])
    fingerprint: str = ""

    @property
    def first_time(self) -> float:
        """Smallest time: least noise."""
        return self.timestep_range[0]

    @property
    def last_time(self) -> float:
        """Largest time: where sampling begins."""
        return self.timestep_range[1]


def unconditional(condition: Condition, *, context: SharedContext) -> dict[str, Tensor]:
    """The condition of the second call of classifier-free guidance, channel by channel.

    Args:
        condition: of the first call.
        context: says what each channel becomes.

    Returns:
        A condition of the same batch.

    Raises:
        ValueError: if a channel asks for a negative prompt that the context lacks.

    Example:
        >>> import torch
        >>> from neurotrain.noise import FlowSchedule
        >>> context = SharedContext(shape=(2,), schedule=FlowSchedule(), unconditional={"text": "zero", "size": "keep"})
        >>> unconditional({"text": torch.ones(1), "size": torch.ones(1), "label": torch.ones(1)}, context=context)
        {'text': tensor([0.]), 'size': tensor([1.])}
    """
    made: dict[str, Tensor] = {}
    for name, value in condition.items():
        how = context.unconditional.get(name, "drop")
        if how == "negative":
            if name not in context.negative:
                raise ValueError(
                    f"channel {name!r} is to become the negative prompt's, but the context has none for it"
                )
            made[name] = context.negative[name].to(value).expand_as(value)
        elif how != "drop":
            made[name] = value if how == "keep" else value.new_zeros(value.shape)
    return made
