"""Every method that applies on every family: trained, killed, resumed to the same bits, exported, sampled alike."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from family_table import APPLY, CELLS, COLUMNS, GUIDANCE, REASONS, REFUSED, ROWS, assembled
from lightning import Callback, LightningModule, Trainer
from plain_diffusers import PROMPTS, loaded, pictures, unconditional, videos
from tiny_pipelines import quiet
from torch import Tensor
from torch.utils.data import DataLoader

from neurotrain.callbacks import RoleExport
from neurotrain.diffusion import ValidationRequest, solve
from neurotrain.diffusion.families import (
    AnalyticFamily,
    FluxFamily,
    LatentUNetFamily,
    PipelineFolder,
    PixelFamily,
    PromptAdapter,
    PromptedFamily,
    StableDiffusion3Family,
    WanFamily,
    load_weights,
)
from neurotrain.networks.denoisers import CausalWanTransformer, look_back
from neurotrain.tasks.distillation import DistillationTask

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]
KILLED = 17
COVERING = (
    ("analytic", "mean_flow"),
    ("pixel", "ode"),
    ("clips", "self_forcing"),
    ("pixel_diffusers", "fine_tune"),
    ("sd", "consistency, guided"),
    ("xl", "consistency"),
    ("sd3", "adversarial"),
    ("flux", "progressive"),
    ("wan", "dmd2, head"),
    ("wan_causal", "diffusion_forcing"),
)
"""Every family and every method once; the others are run with ``--all-kills``."""


@pytest.fixture(autouse=True)
def _frozen_parts_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autoencoders and text encoders, which nobody trains, are one for all runs of a pipeline."""
    for kind in (LatentUNetFamily, StableDiffusion3Family, FluxFamily, WanFamily):

        def once(family: PromptedFamily, folder: PipelineFolder, load: Callable[..., Any] = kind.load_pipeline) -> Any:  # noqa: ANN401
            key = type(family).__name__, folder.path
            if key not in _LOADED:
                _LOADED[key] = load(family, folder)
            return _LOADED[key]

        monkeypatch.setattr(kind, "load_pipeline", once)


_LOADED: dict[tuple[str, str], Any] = {}


class _Validate(Callback):
    """Samples at the end of every epoch, which must change nothing."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DistillationTask)
        told = "guidance" in pl_module.method.tells()
        found = pl_module.sample(ValidationRequest(count=2, steps=2, guidance=GUIDANCE if told else 1.0))
        assert len(found) == 2
        assert found.isfinite().all()


class _SaveAndDie(Callback):
    """Saves after the first iteration, and ends the process inside the second, between gradients and step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DistillationTask)
        if pl_module.iteration == 1:
            os._exit(KILLED)


def fit(task: DistillationTask, row: str, folder: Path, callback: Callback, *, resume: Path | None = None) -> None:
    """Two epochs of one batch."""
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        limit_val_batches=1 if isinstance(callback, _Validate) else 0,
        max_epochs=2,
        callbacks=[callback, *([RoleExport()] if resume is not None else [])],
    )
    batches = [DataLoader([ROWS[row].batch()], batch_size=None) for _ in range(2)]  # type: ignore[arg-type]
    trainer.fit(task, *batches, ckpt_path=None if resume is None else str(resume), weights_only=True)


def _die(row: str, column: str, path: Path, folder: Path, task: DistillationTask | None) -> None:
    torch.set_num_threads(1)
    quiet()
    fit(task or assembled(row, column, path), row, folder, _SaveAndDie(folder / "one.ckpt"))


def _killed(row: str, column: str, path: Path, folder: Path, task: DistillationTask) -> Path:
    """The checkpoint of a run of an untrained task, in a process of its own that ended without a warning."""
    # Where there is an accelerator, the engine of gradients has threads that do not survive a fork.
    forked = not torch.accelerator.is_available()
    context = multiprocessing.get_context("fork" if forked else "forkserver")
    process = context.Process(target=_die, args=(row, column, path, folder, task if forked else None))
    process.start()
    process.join(timeout=120)
    code = process.exitcode
    process.kill()
    process.join()
    process.close()
    assert code == KILLED
    return folder / "one.ckpt"


def _everything(task: DistillationTask) -> dict[str, Any]:
    """All that goes on in a run, but for the weights."""
    return {
        "roles": {name: handle.state_dict() for name, handle in task.roles.trainable.items()},
        "method": task.method.state_dict(),
        "optimizers": {
            name: {} if handle.optimizer is None else handle.optimizer.state_dict()
            for name, handle in task.roles.trainable.items()
        },
        "generator": task.generator.get_state(),
    }


@pytest.mark.parametrize(
    ("row", "column"),
    [pytest.param(*cell, marks=[] if cell in COVERING else pytest.mark.all_kills) for cell in APPLY],
    ids=["-".join(cell) for cell in APPLY],
)
def test_killed_resumed_and_exported(row: str, column: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    path = saved(ROWS[row].saved) if ROWS[row].saved else tmp_path
    whole = assembled(row, column, path)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    checkpoint = _killed(row, column, path, tmp_path, whole)
    fit(whole, row, tmp_path / "whole", _Validate())
    assert whole.iteration == 2
    for role in whole.roles.trainable:
        moved = [not torch.equal(before[key], value) for key, value in whole.state_dict().items() if f".{role}." in key]
        assert any(moved), role
    # What died had no validation, what is compared had two: neither weights nor generators may know.
    resumed = assembled(row, column, path)
    fit(resumed, row, tmp_path, _Validate(), resume=checkpoint)
    torch.testing.assert_close(dict(resumed.state_dict()), dict(whole.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(_everything(resumed), _everything(whole), rtol=0, atol=0)
    _check_export(resumed, row, column, tmp_path / "export" / "student")


def _check_export(task: DistillationTask, row: str, column: str, folder: Path) -> None:
    if not ROWS[row].saved:
        _check_own_weights(task, row, column, folder)
        return
    pipeline = loaded(folder)
    noise = torch.randn(2, *task.context.shape, generator=torch.Generator().manual_seed(7))
    told = GUIDANCE if "guidance" in task.method.tells() else None
    condition = {} if row == "pixel_diffusers" else _condition(task, told)
    found = _sampled(task, noise, condition)
    if row == "pixel_diffusers":
        expected = unconditional(pipeline, steps=2, seed=7)
    elif row == "wan":
        expected = videos(pipeline, noise, steps=2)
    elif row == "wan_causal":
        expected = _causal(task, pipeline, noise, condition)
    else:
        expected = pictures(pipeline, noise, steps=2, told=told)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def _condition(task: DistillationTask, told: float | None) -> dict[str, Tensor]:
    assert isinstance(task.adapter, PromptAdapter)
    condition = task.adapter.conditions(PROMPTS, device="cpu")
    return condition if told is None else {**condition, "guidance": torch.full((2,), told)}


def _sampled(task: DistillationTask, noise: Tensor, condition: dict[str, Tensor]) -> Tensor:
    """By our own solver, at half the way and at its end, with the averaged weights."""
    view = task.views["student"]
    view.handle.module.eval()
    with torch.no_grad(), view.handle.averaged():
        return task.adapter.decode(solve(view, noise, steps=2, sampler="ddim", condition=condition))


def _causal(task: DistillationTask, pipeline: Any, noise: Tensor, condition: dict[str, Tensor]) -> Tensor:  # noqa: ANN401
    """Videos of the exported pipeline, told to look back only; its first chunk needs not be told."""
    view = task.views["student"]
    assert isinstance(view.handle.module, CausalWanTransformer)
    chunk = view.handle.module.chunk
    with torch.no_grad(), view.handle.averaged():
        steps = solve(view, noise, steps=2, sampler="ddim", condition=condition)
        first = task.adapter.decode(steps[:, :, :chunk])
    plain = videos(pipeline, noise[:, :, :chunk], steps=2, frames=1)
    torch.testing.assert_close(first, plain, rtol=0, atol=1e-4)
    everything = videos(pipeline, noise, steps=2)
    look_back(pipeline.transformer, chunk=chunk)
    found = videos(pipeline, noise, steps=2)
    assert (found - everything).abs().max() > 1e-4
    return found


def _check_own_weights(task: DistillationTask, row: str, column: str, folder: Path) -> None:
    fresh = ROWS[row].network("student", task.method.tells())
    assert fresh is not None
    torch.manual_seed(5)
    load_weights(fresh, folder / "model.safetensors", "student")
    handle = task.roles["student"]
    noise = torch.randn(2, *task.context.shape, generator=torch.Generator().manual_seed(7))
    half = torch.full((2,), 0.5)
    with torch.no_grad(), handle.averaged():
        assert torch.equal(fresh.eval()(noise, half), handle.module.eval()(noise, half))


class TestRefusals:
    """A method that does not apply says so before a weight is loaded."""

    @pytest.fixture(autouse=True)
    def _no_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("weights were loaded")

        for family in (PromptedFamily, PixelFamily, WanFamily, AnalyticFamily):
            monkeypatch.setattr(family, "network", refuse)
            monkeypatch.setattr(family, "context", refuse)

    @pytest.mark.parametrize(("row", "column"), list(REFUSED), ids=["-".join(cell) for cell in REFUSED])
    def test_by_name(self, row: str, column: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
        path = saved(ROWS[row].saved) if ROWS[row].saved else tmp_path
        with pytest.raises(ValueError, match=REASONS[REFUSED[row, column]]):
            assembled(row, column, path)


def test_the_covering_cells_cover() -> None:
    assert {row for row, _ in COVERING} == set(ROWS)
    assert {type(COLUMNS[column].new()) for _, column in COVERING} == {type(made.new()) for made in COLUMNS.values()}
    assert set(COVERING) <= set(APPLY)


def test_the_documented_table_is_this_one() -> None:
    text = (Path(__file__).parents[3] / "docs" / "families.md").read_text(encoding="utf-8")
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    top = next(place for place, line in enumerate(lines) if line[1] == "`fine_tune`")
    titles = {f"`{name}`".replace(", ", "`, `"): name for name in COLUMNS}
    assert [titles[part] for part in lines[top][1:]] == list(COLUMNS)
    documented = {line[0]: line[1:] for line in lines[top + 2 :]}
    expected = {made.title: [REFUSED.get((row, column), "yes") for column in COLUMNS] for row, made in ROWS.items()}
    assert documented == expected
    assert set(re.findall(r"^- \*\*(\w)\*\*: ", text, flags=re.MULTILINE)) == set(REASONS) == set(REFUSED.values())


def test_every_cell_is_one_or_the_other() -> None:
    assert set(APPLY) | set(REFUSED) == set(CELLS)
