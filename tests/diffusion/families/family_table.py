"""Every family and every method: how the smallest of each is made, and which of them do not go together, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from plain_diffusers import PROMPTS
from tiny_pipelines import TOKENS
from torch import nn

from neurotrain.diffusion import Role
from neurotrain.diffusion.families import (
    AnalyticFamily,
    Family,
    FluxFamily,
    LatentUNetFamily,
    PixelFamily,
    StableDiffusion3Family,
    WanFamily,
)
from neurotrain.networks.denoisers import CausalVideo, PixelUNet, PointMLP
from neurotrain.networks.discriminators import FeatureHeads
from neurotrain.networks.gaussian_mixture import GaussianMixture
from neurotrain.noise import FlowSchedule
from neurotrain.tasks.distillation import (
    Adversarial,
    Consistency,
    DiffusionForcing,
    DistillationTask,
    Dmd2,
    FineTune,
    MeanFlow,
    Method,
    OdeDistillation,
    Progressive,
    SelfForcing,
    TrajectoryRegression,
)

ADAM = partial(torch.optim.Adam, lr=1e-3)
GUIDANCE = 3.0
"""That students are sampled with which have learned it by its scale."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A family.

    Attributes:
        title: in the documentation.
        family: from the pipeline's folder and the method's name.
        batch: of two samples.
        saved: name of the pipeline; empty: the networks are ours.
        network: of a role, by its name and the further numbers that it is told; None: the pipeline's.
        features: channels that a discriminator sees.
        on_teacher: the same of the teacher, where it is another network; empty: the same.
    """

    title: str
    family: Callable[[Path, str], Family]
    batch: Callable[[], dict[str, Any]]
    features: tuple[int, ...]
    saved: str = ""
    network: Callable[[str, tuple[str, ...]], nn.Module | None] = lambda role, told: None
    on_teacher: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Column:
    """A method, and its roles beside the student."""

    new: Callable[[], Method]
    roles: tuple[str, ...] = field(default=())


def _points() -> dict[str, Any]:
    points, label = GaussianMixture().sample(2, generator=torch.Generator().manual_seed(1))
    return {"point": points, "label": label}


def _random(key: str, *shape: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {key: torch.rand(2, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1, **more}


def _point_network(role: str, told: tuple[str, ...]) -> nn.Module | None:
    return None if role == "teacher" else PointMLP(width=16, depth=1, num_classes=5, scalars=told)


def _picture_network(role: str, told: tuple[str, ...]) -> nn.Module:
    return PixelUNet(widths=(8, 8), blocks=1, embedding=16, num_classes=2, scalars=told)


def _clip_network(role: str, told: tuple[str, ...]) -> nn.Module:
    chunk = 2 if role == "student" else 4  # a teacher and a critic see the whole clip
    return CausalVideo(frames=4, size=4, patch=2, chunk=chunk, width=16, depth=1, heads=2, scalars=told)


def _text(kind: Callable[..., Family], **given: Any) -> Callable[[Path, str], Family]:  # noqa: ANN401
    size: dict[str, Any] = {"height": 16, "width": 16, "prompts": PROMPTS}

    def build(path: Path, method: str) -> Family:
        more: dict[str, Any] = {}
        if method == "consistency, guided" and kind is LatentUNetFamily:
            more["guided"] = ("student",)
        if method == "mean_flow" and kind is not LatentUNetFamily:
            more["schedule"] = FlowSchedule()  # the only one that it is defined for
        return kind(path=str(path), **size, **given, **more)

    return build


_PICTURES = partial(_random, "image", 3, 16, 16, caption=list(PROMPTS))
_VIDEOS = partial(_random, "video", 3, 5, 16, 16, caption=list(PROMPTS))
ROWS: dict[str, Row] = {
    "analytic": Row(
        title="`AnalyticFamily`",
        family=lambda path, method: AnalyticFamily(
            mixture=GaussianMixture(), schedule=FlowSchedule(), conditional=True, reference=50
        ),
        network=_point_network,
        features=(16,),
        on_teacher=(7,),
        batch=_points,
    ),
    "pixel": Row(
        title="`PixelFamily`, our U-Net",
        family=lambda path, method: PixelFamily(schedule=FlowSchedule(), shape=(1, 8, 8), class_shares=(1.0, 1.0)),
        network=_picture_network,
        features=(8, 8),
        batch=partial(_random, "image", 1, 8, 8, label=torch.tensor([0, 1])),
    ),
    "clips": Row(
        title="`PixelFamily`, clips",
        family=lambda path, method: PixelFamily(schedule=FlowSchedule(), shape=(1, 4, 4, 4)),
        network=_clip_network,
        features=(16,),
        batch=partial(_random, "video", 1, 4, 4, 4),
    ),
    "pixel_diffusers": Row(
        title="`PixelFamily`, `UNet2DModel`",
        saved="pixels",
        family=lambda path, method: PixelFamily(schedule=FlowSchedule(), shape=(1, 8, 8), path=str(path)),
        features=(8,),
        batch=partial(_random, "image", 1, 8, 8),
    ),
    "sd": Row(
        title="`LatentUNetFamily`, 1.5",
        saved="sd",
        family=_text(LatentUNetFamily),
        features=(8,),
        batch=_PICTURES,
    ),
    "xl": Row(
        title="`LatentUNetFamily`, XL", saved="xl", family=_text(LatentUNetFamily), features=(8,), batch=_PICTURES
    ),
    "sd3": Row(
        title="`StableDiffusion3Family`",
        saved="sd3",
        family=_text(StableDiffusion3Family, max_tokens=TOKENS),
        features=(16, 16),
        batch=_PICTURES,
    ),
    "flux": Row(
        title="`FluxFamily`",
        saved="flux_dev",
        family=_text(FluxFamily, max_tokens=TOKENS),
        features=(32,),
        batch=_PICTURES,
    ),
    "wan": Row(
        title="`WanFamily`",
        saved="wan",
        family=_text(WanFamily, max_tokens=TOKENS, frames=5),
        features=(24,),
        batch=_VIDEOS,
    ),
    "wan_causal": Row(
        title="`WanFamily`, `causal`",
        saved="wan",
        family=_text(WanFamily, max_tokens=TOKENS, frames=5, causal={"student": 1}),
        features=(24,),
        batch=_VIDEOS,
    ),
}
_INTERVALS: dict[str, Any] = {"start_intervals": 4, "end_intervals": 8}
_REGRESSION = partial(TrajectoryRegression, count=4, shard=2, teacher_steps=2)
COLUMNS: dict[str, Column] = {
    "fine_tune": Column(new=FineTune),
    "ode": Column(new=lambda: OdeDistillation(count=4, shard=2, teacher_steps=2), roles=("teacher",)),
    "progressive": Column(new=lambda: Progressive(start_steps=4), roles=("teacher",)),
    "consistency": Column(new=lambda: Consistency(**_INTERVALS, target="ema"), roles=("teacher",)),
    "consistency, guided": Column(new=lambda: Consistency(**_INTERVALS, guidance=(2.0, 6.0)), roles=("teacher",)),
    # In the first iteration the critic of a pipeline is the teacher, and the student stands still: it needs another.
    "dmd2": Column(new=lambda: Dmd2(steps=2, update_ratio=1), roles=("teacher", "critic")),
    "dmd2, head": Column(
        new=lambda: Dmd2(update_ratio=1, regression=_REGRESSION()), roles=("teacher", "critic", "discriminator")
    ),
    "adversarial": Column(
        new=lambda: Adversarial(regression=_REGRESSION(weight=0.5)), roles=("teacher", "discriminator")
    ),
    "mean_flow": Column(new=MeanFlow),
    "diffusion_forcing": Column(new=DiffusionForcing),
    "self_forcing": Column(new=lambda: SelfForcing(steps=2, update_ratio=1), roles=("teacher", "critic")),
}
REASONS: dict[str, str] = {
    "a": r"goes on chunk by chunk: the network of role 'student' must be a CausalDenoiser, it is a \w+",
    "b": r"Consistency tells its student the 'guidance': the network of role 'student', a \w+, has no place for it",
    "c": r"Consistency learns guidance by its scale, but nothing conditions role 'student'",
    "d": r"mean flow is defined for FlowSchedule\(shift=1.0\), not \w+Schedule",
    "e": r"MeanFlow tells its student the 'span': the network of role 'student', a \w+, has no place for it",
}
"""Why a method does not apply: its letter in the documentation, and what is said."""
_NO_PLACE = ("pixel_diffusers", "sd3", "wan", "wan_causal")
REFUSED: dict[tuple[str, str], str] = {
    **{(row, column): "a" for row in ROWS for column in ("diffusion_forcing", "self_forcing")},
    **{(row, "consistency, guided"): "b" for row in _NO_PLACE},
    ("clips", "consistency, guided"): "c",
    **{(row, "mean_flow"): "d" for row in ("pixel_diffusers", "sd", "xl")},
    **{(row, "mean_flow"): "e" for row in ("sd3", "flux", "wan", "wan_causal")},
}
for _row in ("clips", "wan_causal"):
    for _column in ("diffusion_forcing", "self_forcing"):
        del REFUSED[_row, _column]
CELLS = [(row, column) for row in ROWS for column in COLUMNS]
APPLY = [cell for cell in CELLS if cell not in REFUSED]


def assembled(row: str, column: str, path: Path) -> DistillationTask:
    """The task of a cell; the same weights every time."""
    torch.manual_seed(0)
    made = ROWS[row]
    method = COLUMNS[column].new()
    roles = {name: _role(made, column, name, method) for name in ("student", *COLUMNS[column].roles)}
    return DistillationTask(roles=roles, pipeline=made.family(path, column), method=method)


def _role(row: Row, column: str, name: str, method: Method) -> Role:
    if name == "discriminator":
        channels = (row.on_teacher or row.features) if column == "adversarial" else row.features
        return Role(network=FeatureHeads(channels=channels, width=8, depth=1), optimizer=ADAM)
    trained: dict[str, Any] = {} if name == "teacher" else {"optimizer": ADAM}
    network = row.network(name, method.tells() if name == "student" else ())
    return Role(network=network, ema_decay=0.5 if name == "student" else None, **trained)
