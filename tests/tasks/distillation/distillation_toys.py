"""The smallest pipelines: points, a teacher in closed form, and networks of a few hundred weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

from neurotrain.data import MovingShapesDataModule, PointDataModule
from neurotrain.diffusion import Role
from neurotrain.diffusion.families import AnalyticFamily, PixelFamily
from neurotrain.networks.denoisers import CausalVideo, PointMLP
from neurotrain.networks.discriminators import FeatureHeads
from neurotrain.networks.gaussian_mixture import GaussianMixture
from neurotrain.networks.moving_shapes import ExactClips, MovingShapes
from neurotrain.noise import FlowSchedule
from neurotrain.tasks import Cosine
from neurotrain.tasks.distillation import DistillationTask, Method

ADAM = partial(torch.optim.Adam, lr=3e-3)


def student(seed: int = 0, **changes: Any) -> Role:  # noqa: ANN401
    torch.manual_seed(seed)
    scalars = changes.pop("scalars", ())
    given: dict[str, Any] = {"optimizer": ADAM, "schedule": Cosine(), "ema_decay": 0.9}
    return Role(network=PointMLP(width=16, depth=1, scalars=scalars), **given | changes)


def heads() -> Role:
    torch.manual_seed(7)
    return Role(network=FeatureHeads(channels=(7,), width=8, depth=1), optimizer=ADAM)


def family(**changes: Any) -> AnalyticFamily:  # noqa: ANN401
    given: dict[str, Any] = {"mixture": GaussianMixture(), "schedule": FlowSchedule(), "reference": 200}
    return AnalyticFamily(**given | changes)


def task(method: Method, roles: dict[str, Role] | None = None, **changes: Any) -> DistillationTask:  # noqa: ANN401
    given = {"student": student(), "teacher": Role()} if roles is None else roles
    return DistillationTask(roles=given, pipeline=changes.pop("pipeline", family()), method=method, **changes)


def data(batches: int = 4, batch_size: int = 16) -> PointDataModule:
    return PointDataModule(mixture=GaussianMixture(), batch_size=batch_size, batches=batches)


WORLD = MovingShapes(frames=4, size=4, shapes=("bar",))
"""Clips of 4 frames of 4 by 4 pixels."""


def clips_role(seed: int = 0, *, chunk: int = 2, **changes: Any) -> Role:  # noqa: ANN401
    """A small causal network on :data:`WORLD`; ``chunk=4`` sees everything."""
    torch.manual_seed(seed)
    network = CausalVideo(frames=4, size=4, patch=2, chunk=chunk, width=16, depth=1, heads=2)
    return Role(network=network, **{"optimizer": ADAM, "schedule": Cosine(), "ema_decay": 0.9} | changes)


def exact_clips() -> Role:
    return Role(network=ExactClips(clips=WORLD, schedule=FlowSchedule()))


def clips_task(method: Method, roles: dict[str, Role]) -> DistillationTask:
    pipeline = PixelFamily(schedule=FlowSchedule(), shape=(1, 4, 4, 4), timestep_range=(0.001, 1.0))
    return DistillationTask(roles=roles, pipeline=pipeline, method=method)


def clips(batches: int = 4, batch_size: int = 6) -> MovingShapesDataModule:
    return MovingShapesDataModule(clips=WORLD, batch_size=batch_size, batches=batches)


def trainer(folder: Path, callbacks: list[Callback] | None = None, **changes: Any) -> Trainer:  # noqa: ANN401
    given: dict[str, Any] = {
        "accelerator": "cpu",
        "default_root_dir": folder,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "limit_val_batches": 0,
        "max_epochs": 2,
    }
    return Trainer(callbacks=callbacks, **given | changes)
