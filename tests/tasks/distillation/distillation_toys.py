"""The smallest pipelines: points, a teacher in closed form, and networks of a few hundred weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

from neurotrain.data import PointDataModule
from neurotrain.diffusion import Role
from neurotrain.diffusion.families import AnalyticFamily
from neurotrain.networks.denoisers import PointMLP
from neurotrain.networks.discriminators import FeatureHeads
from neurotrain.networks.gaussian_mixture import GaussianMixture
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
