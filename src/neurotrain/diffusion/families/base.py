"""Where a pipeline is put together: what is loaded, what is shared, what is each role's own, and whether it fits."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from neurotrain.diffusion.adapter import Adapter
from neurotrain.diffusion.context import SharedContext
from neurotrain.diffusion.roles import Role, RoleHandle, RoleManager, missing_role
from neurotrain.diffusion.specs import Abilities, LatentSpec, RoleSpec, check_roles, check_schedule, differences
from neurotrain.diffusion.validation import Validator
from neurotrain.networks.denoisers import CausalDenoiser, Denoiser
from neurotrain.networks.denoisers.base import LABEL
from neurotrain.storage.tensors import read_safetensors, read_state

log = logging.getLogger(__name__)

Approve = Callable[[Mapping[str, RoleSpec]], None]
"""Raises ``ValueError`` where roles that fit together do not fit their method."""


@dataclass(frozen=True, kw_only=True)
class PipelineContract:
    """What a family's pipelines consist of.

    Attributes:
        required: parts that must be there.
        optional: parts that may be.
        replaced: parts that the family brings itself, whatever the pipeline has (a scheduler).
        left_out: parts that are never loaded (a safety checker).
    """

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """What a family hands to a method.

    Attributes:
        context: what all roles share.
        adapter: operations on it.
        roles: all handles.
        validator: samples and scores.
    """

    context: SharedContext
    adapter: Adapter
    roles: RoleManager
    validator: Validator


class Family(ABC):
    """The one place of assembly of one kind of models.

    A subclass says what its roles are before any weight is loaded (:meth:`spec`), makes their networks, and builds
    what they share; :meth:`assemble` compares all pairs of roles in between.
    """

    contract: PipelineContract = PipelineContract()

    @abstractmethod
    def spec(self, name: str, role: Role) -> RoleSpec:
        """What a role says of itself; reads configurations at most, no weights."""

    @abstractmethod
    def network(self, name: str, role: Role) -> nn.Module:
        """The network of a role that neither brings its own nor starts as a copy of another's.

        Raises:
            ValueError: if the family has none for it.
        """

    @abstractmethod
    def context(self, leader: LatentSpec) -> SharedContext:
        """What all roles share, in the schedule and range of times of the leading role."""

    @abstractmethod
    def provided(self) -> dict[str, tuple[int, ...]]:
        """Shape of each conditioning channel that the pipeline makes, without the batch axis."""

    @abstractmethod
    def adapter(self, context: SharedContext) -> Adapter:
        """Operations of the family."""

    def validator(self, adapter: Adapter) -> Validator:
        """Samples, and scores what the family has scores for."""
        return Validator(adapter=adapter)

    def assemble(
        self, roles: Mapping[str, Role], *, leader: str = "student", approve: Approve | None = None
    ) -> Assembly:
        """Check that roles fit, then build them and what they share.

        Args:
            roles: by name.
            leader: role in whose schedule and range of times all work.
            approve: looks at what the roles say of themselves, before any weight is loaded.

        Returns:
            Everything that a method needs.

        Raises:
            IncompatibleRolesError: if two roles do not fit; nothing has been loaded then.
            ValueError: if a role refers to one that is not there, or has no network.
        """
        denoisers = {name: role for name, role in roles.items() if self.is_denoiser(name)}
        if leader not in denoisers:
            raise ValueError(missing_role(leader, denoisers))
        specs = {name: self.spec(name, _source(name, roles)) for name in denoisers}
        check_roles(specs, provided=self.provided())
        check_schedule(specs, leader=leader)
        if approve is not None:
            approve(specs)
        _tell_conversions(specs, leader)
        context = self.context(specs[leader].latent)
        adapter = self.adapter(context)
        networks = self._networks(roles)
        handles = [
            RoleHandle(
                name=name,
                module=networks[name].requires_grad_(role.trainable).train(role.trainable),
                spec=specs.get(name, specs[leader]),
                settings=role,
            )
            for name, role in roles.items()
        ]
        return Assembly(context=context, adapter=adapter, roles=RoleManager(handles), validator=self.validator(adapter))

    def is_denoiser(self, name: str) -> bool:
        """Whether a role of that name is a denoiser, rather than a head upon one."""
        return name != "discriminator"

    def _networks(self, roles: Mapping[str, Role]) -> dict[str, nn.Module]:
        networks: dict[str, nn.Module] = {}
        copies = {name: role for name, role in roles.items() if role.initialize_from is not None}
        for name, role in roles.items():
            if name not in copies or role.network is not None:
                networks[name] = role.network if role.network is not None else self.network(name, role)
                if role.weights is not None:
                    load_weights(networks[name], role.weights, name)
        for name, role in copies.items():
            origin = networks[_root(name, roles)]
            if name in networks:
                _copy_weights(origin, networks[name], name, str(role.initialize_from))
            else:
                networks[name] = copy.deepcopy(origin)
        return networks


def _root(name: str, roles: Mapping[str, Role]) -> str:
    """The role whose weights a role starts from, through others if need be."""
    seen = [name]
    while (above := roles[seen[-1]].initialize_from) is not None:
        if above not in roles:
            raise ValueError(f"initialize_from of role {seen[-1]!r}: {missing_role(above, roles)}")
        if above in seen:
            raise ValueError(f"initialize_from goes round in circles: {' -> '.join([*seen, above])}")
        seen.append(above)
    return seen[-1]


def _source(name: str, roles: Mapping[str, Role]) -> Role:
    """The role whose network says what this one is."""
    role = roles[name]
    return roles[_root(name, roles)] if role.network is None and role.initialize_from is not None else role


def _tell_conversions(specs: Mapping[str, RoleSpec], leader: str) -> None:
    for name, spec in specs.items():
        converted = [
            what for what in differences(specs[leader].latent, spec.latent) if what in ("schedule", "prediction")
        ]
        if converted:
            pairs = [f"{what} {getattr(spec.latent, what)!r}" for what in converted]
            log.info("role %s has %s: converted to that of %s", name, " and ".join(pairs), leader)


def _copy_weights(origin: nn.Module, network: nn.Module, name: str, other: str) -> None:
    try:
        network.load_state_dict(origin.state_dict())
    except RuntimeError as error:
        raise ValueError(f"role {name!r} cannot start from the weights of {other!r}: {error}") from error


def abilities_of(network: Denoiser) -> Abilities:
    """What a network of ours can be asked, see :class:`neurotrain.diffusion.Abilities`."""
    return Abilities(
        network=type(network).__name__,
        scalars=tuple(name for name, shape in network.condition.items() if shape == () and name != LABEL),
        chunk=network.chunk if isinstance(network, CausalDenoiser) else None,
        frame_times=network.frame_times,
    )


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Fill a network from safetensors, or from a checkpoint of a run of this project.

    Args:
        network: to fill.
        path: of the file; a checkpoint must hold a role of the same name, whose weights as trained are taken.
        name: of the role.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if names or shapes are not the network's.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights={str(path)!r} of role {name!r}: no such file")
    if Path(path).suffix == ".safetensors":
        state = read_safetensors(Path(path))
    else:
        prefix = f"networks.{name}."
        found = read_state(Path(path))
        state = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"weights={str(path)!r} are not those of role {name!r}: {error}") from error
