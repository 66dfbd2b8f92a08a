"""What the tests of all families do: assemble roles, train a step, sample."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neurotrain.diffusion import Role, RoleView, solve
from neurotrain.diffusion.families import Assembly, Family
from neurotrain.noise import Solver


def trained(**given: Any) -> Role:  # noqa: ANN401 - of a role
    """A role with an optimizer."""
    return Role(optimizer=partial(torch.optim.AdamW, lr=1e-3), **given)


def pair(family: Family) -> Assembly:
    """Student and teacher, both of the pipeline."""
    return family.assemble({"student": trained(), "teacher": Role()})


def view(assembly: Assembly, name: str = "student") -> RoleView:
    return assembly.adapter.bind(assembly.roles[name])


def train_a_little(assembly: Assembly, batch: dict[str, Any], *, name: str = "student", steps: int = 2) -> list[float]:
    """Some steps on one batch; returns the losses."""
    torch.manual_seed(0)
    role = view(assembly, name)
    prepared = assembly.adapter.prepare_batch(batch)
    optimizer = torch.optim.AdamW(role.handle.parameters(), lr=5e-3)
    noise = torch.randn_like(prepared.x0)
    t = torch.linspace(0.2, 0.9, len(noise))
    losses = []
    for _ in range(steps):
        x_t = assembly.adapter.add_noise(prepared.x0, noise, t)
        loss = (role.predict_velocity(x_t, t, prepared.condition) - (noise - prepared.x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def sampled(
    assembly: Assembly,
    noise: Tensor,
    condition: dict[str, Tensor],
    *,
    steps: int = 4,
    sampler: Solver = "ddim",
    guidance: float = 1.0,
    name: str = "student",
) -> Tensor:
    """Latents, by our own solver."""
    role = view(assembly, name)
    role.handle.module.eval()
    with torch.no_grad():
        return solve(role, noise, steps=steps, sampler=sampler, condition=condition, guidance=guidance)


def noise_of(assembly: Assembly, count: int = 2) -> Tensor:
    return torch.randn(count, *assembly.context.shape, generator=torch.Generator().manual_seed(7))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
