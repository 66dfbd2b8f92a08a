"""What diffusion methods are made of: roles, what they share, operations on them, and whether they fit together."""

from neurotrain.diffusion.adapter import Adapter, PreparedBatch, RoleView
from neurotrain.diffusion.context import Condition, SharedContext, Unconditional, unconditional
from neurotrain.diffusion.energy import energy_distance, null_quantile
from neurotrain.diffusion.roles import Role, RoleHandle, RoleManager
from neurotrain.diffusion.specs import (
    Abilities,
    IncompatibleRolesError,
    LatentSpec,
    RoleSpec,
    RuntimeSpec,
    check_roles,
    check_schedule,
    differences,
)
from neurotrain.diffusion.validation import Generate, ValidationRequest, Validator, even_times, solve, undisturbed

__all__ = [
    "Abilities",
    "Adapter",
    "Condition",
    "Generate",
    "IncompatibleRolesError",
    "LatentSpec",
    "PreparedBatch",
    "Role",
    "RoleHandle",
    "RoleManager",
    "RoleSpec",
    "RoleView",
    "RuntimeSpec",
    "SharedContext",
    "Unconditional",
    "ValidationRequest",
    "Validator",
    "check_roles",
    "check_schedule",
    "differences",
    "energy_distance",
    "even_times",
    "null_quantile",
    "solve",
    "unconditional",
    "undisturbed",
]
