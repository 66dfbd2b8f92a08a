"""Families whose roles may be adapted by low rank and exported."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from neurotrain.diffusion.families.base import Approve, Assembly, Family
from neurotrain.diffusion.families.export import Exporting
from neurotrain.diffusion.families.lora import Lora, add_lora, merged, save_lora
from neurotrain.diffusion.roles import Role, RoleHandle, missing_role
from neurotrain.networks.denoisers import DiffusersDenoiser


class AdaptedFamily(Family, Exporting):
    """Adds low-rank adaptations to the roles that a family has put together.

    Args:
        lora: by role; None: there are none.
    """

    def __init__(self, *, lora: Mapping[str, Lora] | None = None) -> None:
        self._lora = dict(lora or {})

    def assemble(
        self, roles: Mapping[str, Role], *, leader: str = "student", approve: Approve | None = None
    ) -> Assembly:
        """See :meth:`Family.assemble`; then adapt.

        Raises:
            ValueError: if a role that is to be adapted is not there, or is frozen.
        """
        for name in self._lora:
            if name not in roles:
                raise ValueError(f"lora: {missing_role(name, roles)}")
            if not roles[name].trainable:
                raise ValueError(f"lora of role {name!r} has no effect: a role without an optimizer is frozen")
        assembly = super().assemble(roles, leader=leader, approve=approve)
        for name, lora in self._lora.items():
            add_lora(_model(assembly.roles[name].module), lora, role=name)
        return assembly

    def check_merge(self, handle: RoleHandle, *, merge: bool) -> None:
        """Refuse to write an addition apart that diffusers could not load."""
        if handle.name in self._lora:
            raise ValueError(f"role {handle.name!r}: a low-rank addition to a network of ours is not exported")
        if not merge:
            raise ValueError(f"merge=False has no effect: role {handle.name!r} has no low-rank addition")

    def merged_model(self, handle: RoleHandle) -> nn.Module:
        """A role's model of diffusers; a copy with the addition merged where there is one."""
        model = _model(handle.module)
        if handle.name not in self._lora:
            return model
        twin = copy.deepcopy(model)
        merged(twin)
        return twin

    def save_lora(self, handle: RoleHandle, folder: Path, *, part: str) -> None:
        """Write the addition alone.

        Args:
            handle: of the role.
            folder: to write in.
            part: of the pipeline that the role's model is.

        Raises:
            ValueError: if the role has none.
        """
        if handle.name not in self._lora:
            raise ValueError(f"merge=False has no effect: role {handle.name!r} has no low-rank addition")
        save_lora(_model(handle.module), folder, lora=self._lora[handle.name], part=part)


def _model(network: nn.Module) -> nn.Module:
    return network.model if isinstance(network, DiffusersDenoiser) else network
