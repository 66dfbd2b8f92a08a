"""Methods on every family: two iterations, pictures in between, saved, resumed to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from tiny_pipelines import TOKENS, quiet, save_flux, save_sd3, save_stable_diffusion, save_wan, save_xl
from torch.utils.data import DataLoader

from neurotrain.diffusion import Role, ValidationRequest
from neurotrain.diffusion.families import (
    Family,
    FluxFamily,
    LatentUNetFamily,
    PixelFamily,
    StableDiffusion3Family,
    WanFamily,
)
from neurotrain.networks.denoisers import PixelUNet
from neurotrain.networks.discriminators import FeatureHeads
from neurotrain.noise import FlowSchedule
from neurotrain.tasks.distillation import (
    Adversarial,
    Consistency,
    DistillationTask,
    Dmd2,
    Method,
    Progressive,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]
ADAM = partial(torch.optim.Adam, lr=1e-3)
PROMPTS = ["a red fox", "a picture of 0"]
TEXT: dict[str, Any] = {"height": 16, "width": 16, "prompts": tuple(PROMPTS), "timestep_range": (0.001, 0.999)}
PIXELS: dict[str, Any] = {"schedule": FlowSchedule(), "shape": (1, 8, 8), "timestep_range": (0.001, 1.0)}
FAMILIES: dict[str, tuple[Callable[[Path], Path] | None, Callable[[str], Family], int]] = {
    "own": (None, lambda _: PixelFamily(**PIXELS, class_shares=(1.0, 1.0)), 8),
    "guided": (save_stable_diffusion, lambda path: LatentUNetFamily(path=path, guided=("student",), **TEXT), 8),
    "xl": (save_xl, lambda path: LatentUNetFamily(path=path, **TEXT), 8),
    "sd3": (save_sd3, lambda path: StableDiffusion3Family(path=path, max_tokens=TOKENS, **TEXT), 16),
    "flux": (save_flux, lambda path: FluxFamily(path=path, max_tokens=TOKENS, **TEXT), 32),
    "wan": (save_wan, lambda path: WanFamily(path=path, max_tokens=TOKENS, frames=5, **TEXT), 24),
}
METHODS: dict[str, tuple[Callable[[], Method], tuple[str, ...]]] = {
    "progressive": (lambda: Progressive(start_steps=4), ("student", "teacher")),
    "consistency": (lambda: Consistency(start_intervals=4, end_intervals=8), ("student", "teacher")),
    "guided": (lambda: Consistency(start_intervals=4, end_intervals=8, guidance=(2.0, 6.0)), ("student", "teacher")),
    "dmd2": (lambda: Dmd2(update_ratio=2), ("student", "teacher", "critic", "discriminator")),
    "adversarial": (lambda: Adversarial(), ("student", "teacher", "discriminator")),
}
# What asks most of each family: a second network and features, guidance by scale, two calls of the teacher in a row.
PAIRS = [
    ("own", "dmd2"),
    ("guided", "guided"),
    ("xl", "consistency"),
    ("sd3", "adversarial"),
    ("flux", "progressive"),
    ("wan", "dmd2"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder, done = tmp_path_factory.mktemp("pipelines"), dict[Any, Path]()

    def path(family: str) -> Path:
        save = FAMILIES[family][0]
        if save is None:
            return folder
        if save not in done:
            done[save] = save(folder / family)
        quiet()
        return done[save]

    return path


def make(family: str, method: str, path: Path) -> DistillationTask:
    torch.manual_seed(0)
    _, build, width = FAMILIES[family]
    new, names = METHODS[method]
    roles = {name: _role(name, own=family == "own", width=width) for name in names}
    return DistillationTask(roles=roles, pipeline=build(str(path)), method=new())


def _role(name: str, *, own: bool, width: int) -> Role:
    if name == "discriminator":
        channels = (8, 8) if own else (width,) * (2 if width == 16 else 1)
        return Role(network=FeatureHeads(channels=channels, width=8, depth=1), optimizer=ADAM)
    network = PixelUNet(widths=(8, 8), blocks=1, embedding=16, num_classes=2) if own else None
    trained: dict[str, Any] = {} if name == "teacher" else {"optimizer": ADAM}
    return Role(network=network, ema_decay=0.9 if name == "student" else None, **trained)


def batch(family: str) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    if family == "own":
        return {"image": torch.rand(2, 1, 8, 8, generator=generator) * 2 - 1, "label": torch.tensor([0, 1])}
    if family == "wan":
        return {"video": torch.rand(2, 3, 5, 16, 16, generator=generator) * 2 - 1, "caption": PROMPTS}
    return {"image": torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1, "caption": PROMPTS}


class _SampleAndSave(Callback):
    """Between the two iterations."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DistillationTask)
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)
            found = pl_module.sample(ValidationRequest(count=2, steps=2))
            assert found.isfinite().all()
            assert 0 <= found.min() <= found.max() <= 1


def fit(task: DistillationTask, family: str, folder: Path, *, resume: Path | None, save: Path) -> None:
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        limit_val_batches=0,
        max_epochs=2,
        callbacks=[_SampleAndSave(save)],
    )
    loader = DataLoader([batch(family)], batch_size=None)  # type: ignore[arg-type]
    trainer.fit(task, loader, ckpt_path=None if resume is None else str(resume), weights_only=True)


@pytest.mark.parametrize(("family", "method"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_two_iterations_and_the_same_bits_after_resuming(
    family: str, method: str, saved: Callable[[str], Path], tmp_path: Path
) -> None:
    path = saved(family)
    whole = make(family, method, path)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    fit(whole, family, tmp_path, resume=None, save=tmp_path / "one.ckpt")
    assert whole.iteration == 2
    for role in whole.roles.trainable:
        moved = [not torch.equal(before[key], value) for key, value in whole.state_dict().items() if f".{role}." in key]
        assert any(moved), role
    resumed = make(family, method, path)
    fit(resumed, family, tmp_path, resume=tmp_path / "one.ckpt", save=tmp_path / "other.ckpt")
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert torch.equal(whole.generator.get_state(), resumed.generator.get_state())
