"""Distillation as its experiments are shipped: two iterations, a checkpoint, figures; mistyped settings are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import neurotrain
from neurotrain.app.strict import ConfigurationError

METHODS = ("adversarial", "consistency", "dmd2", "fine_tune", "mean_flow", "ode", "progressive")


def _small(run: Path) -> list[str]:
    return [
        f"paths.run_dir={run}",
        "debug=fast",
        "data.batch_size=8",
        "model.pipeline.reference=50",
        "model.roles.student.network.width=8",
        "callbacks.samples.count=20",
        "callbacks.samples.test_count=30",
        "callbacks.samples.teacher_steps=2",
        "callbacks.samples.figures=false",
    ]


@pytest.mark.parametrize("method", METHODS)
def test_two_iterations_of_every_experiment(method: str, tmp_path: Path) -> None:
    place = {"ode": "", "dmd2": "regression.", "adversarial": "regression."}.get(method)
    trajectories = [] if place is None else [f"model.method.{place}{size}" for size in ("count=16", "teacher_steps=2")]
    run = neurotrain.train(neurotrain.compose(f"gaussian_mixture_{method}", [*_small(tmp_path / "run"), *trajectories]))
    assert run.trainer.global_step == 2
    steps = {name for name in run.metrics if name.startswith("test/energy_distance_")}
    has_teacher = method not in ("fine_tune", "mean_flow")
    assert "test/energy_distance_true_p95" in steps
    assert ("test/energy_distance_teacher_2" in steps) == has_teacher
    assert len(steps) >= 2 + has_teacher
    held = torch.load(run.directory / "checkpoints" / "last.ckpt", weights_only=True)
    assert held["distillation"]["iteration"] == held["global_step"] == 2
    assert not any("teacher" in name for name in held["state_dict"])


def test_mistyped_settings_are_named_with_what_comes_near(tmp_path: Path) -> None:
    mistyped = ["model.method.update_ration=3", "model.roles.student.ema_decai=0.9", "model.pipeline.schedule.shft=2.0"]
    with pytest.raises(ConfigurationError) as caught:
        neurotrain.compose("gaussian_mixture_dmd2", [*_small(tmp_path), *mistyped])
    text = str(caught.value)
    assert all(name in text for name in ("'update_ratio'", "'ema_decay'", "'shift'"))
