"""Clips in the family of pixels: networks of videos beside an exact teacher, refusals, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from family_runs import noise_of, sampled, train_a_little, trained, view

from neurotrain.callbacks.picture_samples import save_grid
from neurotrain.diffusion import IncompatibleRolesError, LatentSpec, Role, RoleSpec, check_roles
from neurotrain.diffusion.families import PixelFamily, load_weights
from neurotrain.diffusion.scores import MovingShapesScore
from neurotrain.networks.denoisers import CausalVideo, PixelUNet
from neurotrain.networks.moving_shapes import ExactClips, MovingShapes
from neurotrain.noise import FlowSchedule

WORLD = MovingShapes(frames=4, size=4, shapes=("bar",))


def network(**given: Any) -> CausalVideo:  # noqa: ANN401
    return CausalVideo(**({"frames": 4, "size": 4, "patch": 2, "width": 16, "depth": 1, "heads": 2} | given))


def family(**given: Any) -> PixelFamily:  # noqa: ANN401
    return PixelFamily(**({"schedule": FlowSchedule(), "shape": (1, 4, 4, 4), "timestep_range": (0.001, 1.0)} | given))


def test_a_network_of_clips_learns_beside_an_exact_teacher_and_is_exported(tmp_path: Path) -> None:
    made = family(score=MovingShapesScore(clips=WORLD))
    teacher = Role(network=ExactClips(clips=WORLD, schedule=FlowSchedule()))
    assembly = made.assemble({"student": trained(network=network()), "teacher": teacher})
    latent = assembly.roles["student"].spec.latent
    assert (latent.layout, latent.frames) == ("BCTHW", 4)
    batch = {"video": WORLD.sample(4, generator=torch.Generator().manual_seed(0))}
    losses = train_a_little(assembly, batch, steps=8)
    assert losses[-1] < 0.8 * losses[0]
    made.export(assembly.roles["student"], tmp_path)
    fresh = network()
    load_weights(fresh, tmp_path / "model.safetensors", "student")
    noise = noise_of(assembly)
    assert torch.equal(fresh(noise, torch.ones(2)), assembly.roles["student"].module(noise, torch.ones(2)))
    clips = assembly.adapter.decode(
        sampled(assembly, torch.randn(200, *assembly.context.shape), {}, steps=30, name="teacher")
    )
    found = made.validator(assembly.adapter).score(clips)
    assert found["acceleration"] < 0.01
    assert found["pixel_error"] < 0.01
    assert found["energy_distance"] < 0.1
    with pytest.raises(ValueError, match="ExactClips is no CausalDenoiser: it does not go on chunk by chunk"):
        view(assembly, "teacher").extend_x0(noise[:, :, :2], torch.ones(2), past=None)


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(IncompatibleRolesError, match="role 'student' and the pipeline differ in frames: 6 and 4"):
        family().assemble({"student": trained(network=network(frames=6))})
    picture = PixelUNet(widths=(8, 8), blocks=1, embedding=16)
    with pytest.raises(IncompatibleRolesError, match="role 'student' and the pipeline differ in frames: None and 4"):
        family().assemble({"student": trained(network=picture)})
    with pytest.raises(IncompatibleRolesError, match="role 'student' and the pipeline differ in frames: 4 and None"):
        family(shape=(1, 4, 4)).assemble({"student": trained(network=network())})
    with pytest.raises(ValueError, match=r"shape=\(1, 4\): expected \(channels, height, width\), or frames"):
        family(shape=(1, 4))
    assembly = family().assemble({"student": trained(network=network())})
    with pytest.raises(ValueError, match="the batch has no 'video', only image"):
        assembly.adapter.prepare_batch({"image": torch.zeros(1, 1, 4, 4)})
    with pytest.raises(ValueError, match=r"videos of shape \(1, 3, 4, 4\): the pipeline's shape is \(1, 4, 4, 4\)"):
        assembly.adapter.prepare_batch({"video": torch.zeros(1, 1, 3, 4, 4)})


def test_roles_of_other_lengths_are_refused() -> None:
    def spec(frames: int) -> RoleSpec:
        latent = LatentSpec(channels=1, layout="BCTHW", frames=frames, schedule=FlowSchedule(), prediction="flow")
        return RoleSpec(latent=latent)

    with pytest.raises(IncompatibleRolesError, match="'student' and 'teacher' differ in frames: 8 and 16"):
        check_roles({"student": spec(8), "teacher": spec(16)}, provided={})


def test_true_clips_score_as_true_clips() -> None:
    score = MovingShapesScore(clips=WORLD)
    generator = torch.Generator().manual_seed(4)
    limit = score.reference()["energy_distance_true_p95"]
    true = score(WORLD.sample(1000, generator=generator) * 0.5 + 0.5)
    assert true["energy_distance"] < 2 * limit
    one_kind = score(WORLD.clips[:16].repeat(60, 1, 1, 1, 1) * 0.5 + 0.5)
    assert one_kind["acceleration"] < 1e-5
    assert one_kind["energy_distance"] > 5 * limit


def test_clips_are_drawn_as_strips_of_frames(tmp_path: Path) -> None:
    from matplotlib.image import imread

    clip = torch.zeros(3, 1, 4, 4, 4)
    save_grid({"one": clip[:1]}, tmp_path / "one.png")
    save_grid({"three": clip}, tmp_path / "three.png")
    one, three = (imread(tmp_path / f"{name}.png") for name in ("one", "three"))
    assert three.shape[1] == one.shape[1]
    assert three.shape[0] > 1.5 * one.shape[0]
