"""What a role says of itself before any of its weights is loaded, and whether two roles fit together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import combinations
from typing import Literal

import torch

from neurotrain.noise import NoiseSchedule, Prediction


class IncompatibleRolesError(ValueError):
    """Two roles, or a role and its pipeline, differ in what no conversion can mend."""


@dataclass(frozen=True, kw_only=True)
class LatentSpec:
    """The space that a role denoises in, and how it denoises.

    Attributes:
        channels: of a latent.
        layout: its axes: ``BC`` points, ``BCHW`` images, ``BCTHW`` videos.
        schedule: that the network was, or will be, trained with.
        prediction: what its output means.
        vae: fingerprint of the autoencoder; None: pixels or points.
        scale: latents are ``(encoded - shift) * scale``; one number, or one a channel.
        shift: see ``scale``.
        frames: length of a video in latents; None: what is denoised has no axis of time.
        timestep_range: smallest and largest time, within [0, 1], that the network knows.
        condition: shape of each conditioning channel that the network needs, without the batch axis.

    Raises:
        ValueError: if a number is out of range.
    """

    channels: int
    layout: str
    schedule: NoiseSchedule
    prediction: Prediction
    vae: str | None = None
    scale: float | tuple[float, ...] = 1.0
    shift: float | tuple[float, ...] = 0.0
    frames: int | None = None
    timestep_range: tuple[float, float] = (0.0, 1.0)
    condition: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        first, last = self.timestep_range
        if not 0.0 <= first < last <= 1.0:
            raise ValueError(f"timestep_range={self.timestep_range}: expected 0 <= smallest < largest <= 1")
        if self.channels < 1:
            raise ValueError(f"channels={self.channels}: expected 1 or more")

    def log_snr_range(self) -> tuple[float, float]:
        """Smallest and largest log signal-to-noise ratio that the network knows; infinite where it knows no bound."""
        high, low = self.schedule.log_snr(torch.tensor(self.timestep_range, dtype=torch.float64)).tolist()
        return low, high


@dataclass(frozen=True, kw_only=True)
class RuntimeSpec:
    """How a role is run.

    Attributes:
        dtype: of its weights: ``float32``, ``bfloat16``.
        parallel_plan: name of the plan that shards it; None: whole on every rank.
        attention: what its attention needs beside the latents (``frames``, ``kv_cache``).
        negative_layout: how a negative condition is given: ``none``, ``separate`` (a second call), ``concatenated``.
    """

    dtype: str = "float32"
    parallel_plan: str | None = None
    attention: tuple[str, ...] = ()
    negative_layout: Literal["none", "separate", "concatenated"] = "separate"


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What a role's network can be asked beside a prediction at one time a sample; methods look at it.

    Attributes:
        network: name of its class.
        scalars: further numbers that it has a place for (``guidance``, ``span``), one a sample.
        needs: those of them that it must be told and its pipeline does not say.
        chunk: frames that it makes at a time, looking back at those before; None: it does not go on chunk by chunk.
        frame_times: whether frames of a video may have times of their own.
    """

    network: str = ""
    scalars: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    chunk: int | None = None
    frame_times: bool = False


@dataclass(frozen=True, kw_only=True)
class RoleSpec:
    """All sides of a role.

    Attributes:
        latent: what it denoises.
        runtime: how it is run.
        abilities: what else its network can do.
    """

    latent: LatentSpec
    runtime: RuntimeSpec = field(default_factory=RuntimeSpec)
    abilities: Abilities = field(default_factory=Abilities)


_EQUAL_LATENTS = ("vae", "channels", "layout", "frames", "scale", "shift")
_EQUAL_RUNTIMES = ("parallel_plan", "attention", "negative_layout")


def check_roles(specs: Mapping[str, RoleSpec], *, provided: Mapping[str, tuple[int, ...]]) -> None:
    """Compare all pairs of roles, and each role with the conditioning that the pipeline provides.

    Prediction types always convert, and schedules do by matching their signal-to-noise ratios, where one covers the
    other; the dtype is each role's own. All else must be equal.

    Args:
        specs: of the roles, by name.
        provided: shape of each conditioning channel that the pipeline's encoders make.

    Raises:
        IncompatibleRolesError: names both roles, what differs and both values.
    """
    for (one, first), (other, second) in combinations(specs.items(), 2):
        for name in _EQUAL_LATENTS:
            _equal(name, one, getattr(first.latent, name), other, getattr(second.latent, name))
        for name in _EQUAL_RUNTIMES:
            _equal(name, one, getattr(first.runtime, name), other, getattr(second.runtime, name))
    for name, spec in specs.items():
        _check_condition(name, spec.latent, provided)


def check_schedule(specs: Mapping[str, RoleSpec], *, leader: str) -> None:
    """See that every role can be asked at every noise level of the one whose schedule all work in.

    Args:
        specs: of the roles, by name.
        leader: the role whose schedule and range of times are the pipeline's.

    Raises:
        IncompatibleRolesError: names both roles and both schedules.
    """
    lead = specs[leader].latent
    low, high = lead.log_snr_range()
    for name, spec in specs.items():
        own_low, own_high = spec.latent.log_snr_range()
        if spec.latent.schedule == lead.schedule:
            covered = _inside(lead.timestep_range, spec.latent.timestep_range)
        else:
            covered = own_low <= low + _SLACK and own_high >= high - _SLACK
        if not covered:
            raise IncompatibleRolesError(
                f"roles {leader!r} and {name!r} differ in schedule: {_noise_levels(lead)} and "
                f"{_noise_levels(spec.latent)}; the first does not convert, as its noise levels exceed the second's. "
                f"Narrow the timestep_range of {leader!r}, or give both one schedule"
            )


_SLACK = 1e-4
"""Of a log signal-to-noise ratio: what rounding may take from a bound."""


def _noise_levels(spec: LatentSpec) -> str:
    low, high = spec.log_snr_range()
    first, last = spec.timestep_range
    return f"{spec.schedule} on [{first:g}, {last:g}] (log SNR {low:.4g} to {high:.4g})"


def _inside(inner: tuple[float, float], outer: tuple[float, float]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _equal(what: str, one: str, first: object, other: str, second: object) -> None:
    if first != second:
        raise IncompatibleRolesError(f"roles {one!r} and {other!r} differ in {what}: {first!r} and {second!r}")


def _check_condition(role: str, spec: LatentSpec, provided: Mapping[str, tuple[int, ...]]) -> None:
    for channel, shape in spec.condition.items():
        given = provided.get(channel)
        if given is None:
            known = ", ".join(provided) or "none"
            raise IncompatibleRolesError(
                f"role {role!r} needs the conditioning {channel!r} of shape {shape}; the pipeline has no encoder for "
                f"it (it provides: {known})"
            )
        if given != shape:
            raise IncompatibleRolesError(
                f"role {role!r} and the pipeline differ in the shape of conditioning {channel!r}: {shape} and {given}"
            )


def differences(one: LatentSpec, other: LatentSpec) -> tuple[str, ...]:
    """Names of the fields in which two specs differ: what is converted between roles that fit.

    Example:
        >>> from neurotrain.noise import CosineSchedule
        >>> spec = LatentSpec(channels=2, layout="BC", schedule=CosineSchedule(), prediction="epsilon")
        >>> differences(spec, LatentSpec(channels=2, layout="BC", schedule=CosineSchedule(), prediction="v"))
        ('prediction',)
    """
    return tuple(item.name for item in fields(one) if getattr(one, item.name) != getattr(other, item.name))
