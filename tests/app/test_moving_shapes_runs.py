"""Causal methods on moving shapes as their experiments are shipped: two iterations each, the second upon the first."""

from __future__ import annotations

from pathlib import Path

import torch

import neurotrain


def settings(root: Path, name: str, *trained: str) -> list[str]:
    network = ("width=16", "depth=1", "heads=2")
    return [
        f"paths.runs_dir={root}",
        f"paths.run_dir={root / 'moving_shapes' / name}",
        "data.batch_size=4",
        "data.batches=2",
        *(f"model.roles.{role}.network.{value}" for role in trained for value in network),
        "callbacks.samples.count=4",
        "callbacks.samples.test_count=4",
        "callbacks.samples.teacher_steps=2",
        "callbacks.samples.steps=[1]",
        "callbacks.pictures.steps=[1]",
        "callbacks.pictures.teacher_steps=2",
        "callbacks.pictures.columns=2",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
    ]


def test_self_forcing_goes_on_with_the_student_of_diffusion_forcing(tmp_path: Path) -> None:
    for name, trained in (("diffusion_forcing", ("student",)), ("self_forcing", ("student", "critic"))):
        run = neurotrain.train(
            neurotrain.compose(f"moving_shapes_{name}", settings(tmp_path, name, *trained)),
        )
        assert run.trainer.global_step == 2
        figures = {f"test/{name}_{of}" for name in ("acceleration", "pixel_error") for of in ("1", "teacher_2")}
        assert figures | {"test/energy_distance_1", "test/energy_distance_true_p95"} <= run.metrics.keys()
        assert (run.directory / "figures" / "samples_00000002.png").is_file()
        assert (run.directory / "export" / "student" / "model.safetensors").is_file()
        held = torch.load(run.directory / "checkpoints" / "last.ckpt", weights_only=True)
        assert held["distillation"]["iteration"] == 2
        assert not any("teacher" in name for name in held["state_dict"])
