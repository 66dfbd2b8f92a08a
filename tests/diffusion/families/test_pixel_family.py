"""Pictures: networks of ours, and ``UNet2DModel`` out of saved pipelines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from family_runs import noise_of, pair, sampled, train_a_little, trained, view
from plain_diffusers import loaded, unconditional

from neurotrain.diffusion import IncompatibleRolesError, Role
from neurotrain.diffusion.families import Lora, PipelineContractError, PixelFamily, load_weights
from neurotrain.networks.denoisers import PixelUNet, PlainUNet
from neurotrain.noise import CosineSchedule, FlowSchedule


def network(**given: Any) -> PixelUNet:  # noqa: ANN401
    return PixelUNet(**({"widths": (8, 8), "blocks": 1, "embedding": 16, "num_classes": 3} | given))


def family(**given: Any) -> PixelFamily:  # noqa: ANN401
    return PixelFamily(**({"schedule": FlowSchedule(), "shape": (1, 8, 8), "class_shares": (1.0, 2.0, 1.0)} | given))


def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.rand(4, 1, 8, 8, generator=generator) * 2 - 1, "label": torch.tensor([0, 1, 2, 1])}


@pytest.fixture
def pipeline(saved: Callable[[str], Path]) -> Path:
    return saved("pixels")


def test_our_networks_learn_and_are_exported(tmp_path: Path) -> None:
    made = family()
    assembly = made.assemble({"student": trained(network=network()), "teacher": Role(network=network())})
    losses = train_a_little(assembly, batch(), steps=8)
    assert losses[-1] < 0.8 * losses[0]
    made.export(assembly.roles["student"], tmp_path / "student")
    fresh = network()
    load_weights(fresh, tmp_path / "student" / "model.safetensors", "teacher")
    noise, label = noise_of(assembly), {"label": torch.tensor([0, 2])}
    expected = view(assembly).predict_x0(noise, torch.ones(2), label)
    again = made.assemble({"student": trained(network=network()), "teacher": Role(network=fresh)})
    assert torch.equal(view(again, "teacher").predict_x0(noise, torch.ones(2), label), expected)


def test_a_student_of_ours_has_a_teacher_of_diffusers(pipeline: Path) -> None:
    made = PixelFamily(schedule=FlowSchedule(), shape=(1, 8, 8), path=str(pipeline), timestep_range=(0.01, 0.98))
    assembly = made.assemble({"student": trained(network=network(num_classes=0)), "teacher": Role()})
    teacher = assembly.roles["teacher"]
    assert isinstance(teacher.module, PlainUNet)
    assert teacher.spec.latent.schedule == CosineSchedule()
    assert teacher.spec.latent.prediction == "v"
    x_t, t = noise_of(assembly), torch.tensor([0.3, 0.8])
    found = view(assembly, "teacher").predict_x0(x_t, t)
    # By hand: the same signal-to-noise ratio in the teacher's own schedule.
    s = CosineSchedule().inverse_log_snr(FlowSchedule().log_snr(t.double()))
    alpha, sigma = (
        weight(s).float()[:, None, None, None] for weight in (CosineSchedule().alpha, CosineSchedule().sigma)
    )
    x_s = x_t * (alpha / FlowSchedule().alpha(t)[:, None, None, None])
    model: Any = teacher.module.model
    velocity = model(x_s, (s * 1000 - 1).float()).sample
    torch.testing.assert_close(found, alpha * x_s - sigma * velocity, rtol=1e-4, atol=1e-4)


def test_an_exported_pipeline_samples_as_we_do(pipeline: Path, tmp_path: Path) -> None:
    made = PixelFamily(schedule=FlowSchedule(), shape=(1, 8, 8), path=str(pipeline))
    assembly = pair(made)
    train_a_little(assembly, {"image": batch()["image"]})
    made.export(assembly.roles["student"], tmp_path / "student")
    for steps in (1, 4):
        expected = unconditional(loaded(tmp_path / "student"), steps=steps, seed=5)
        noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(5))
        found = assembly.adapter.decode(sampled(assembly, noise, {}, steps=steps))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_low_rank_is_trained_alone_and_merged(pipeline: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DModel

    lora = {"student": Lora(rank=2, targets=("to_q", "to_k", "to_v"))}
    made = PixelFamily(schedule=FlowSchedule(), shape=(1, 8, 8), path=str(pipeline), lora=lora)
    assembly = pair(made)
    handle = assembly.roles["student"]
    assert all("lora_" in name for name, p in handle.module.named_parameters() if p.requires_grad)
    noise = noise_of(assembly)
    before = view(assembly).predict_x0(noise, torch.ones(2))
    torch.testing.assert_close(before, view(assembly, "teacher").predict_x0(noise, torch.ones(2)))
    train_a_little(assembly, {"image": batch()["image"]}, steps=3)
    after = view(assembly).predict_x0(noise, torch.ones(2)).detach()
    assert (after - before).abs().max() > 1e-5
    made.export(handle, tmp_path / "student")
    merged: Any = UNet2DModel.from_pretrained(tmp_path / "student" / "unet", use_safetensors=True)
    found = PlainUNet(model=merged, schedule=CosineSchedule(), prediction="v", condition={})
    torch.testing.assert_close(found(noise, torch.ones(2)), handle.module(noise, torch.ones(2)), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no layer is called 'to_z'"):
        pair(
            PixelFamily(
                schedule=FlowSchedule(), shape=(1, 8, 8), path=str(pipeline), lora={"student": Lora(targets=("to_z",))}
            )
        )
    with pytest.raises(ValueError, match="'teacher' has no effect"):
        pair(PixelFamily(schedule=FlowSchedule(), shape=(1, 8, 8), path=str(pipeline), lora={"teacher": Lora()}))


def test_classes_are_drawn_by_their_shares() -> None:
    assembly = family(class_shares=(1.0, 0.0, 3.0)).assemble({"student": trained(network=network())})
    drawn = assembly.adapter.draw_condition(4000, generator=torch.Generator().manual_seed(0))["label"]
    assert (drawn != 1).all()
    assert abs((drawn == 2).float().mean() - 0.75) < 0.03


def test_pictures_go_to_latents_and_back() -> None:
    assembly = family().assemble({"student": trained(network=network())})
    picture = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(assembly.adapter.decode(assembly.adapter.encode(picture)), picture)
    with pytest.raises(ValueError, match=r"images of shape \(1, 4, 4\)"):
        assembly.adapter.prepare_batch({"image": torch.zeros(1, 1, 4, 4)})


def test_roles_that_do_not_fit_are_named(pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleRolesError, match="'teacher' and the pipeline differ in channels: 3 and 1"):
        family().assemble({"student": trained(network=network()), "teacher": Role(network=network(channels=3))})
    with pytest.raises(IncompatibleRolesError, match="'student' knows no classes, the pipeline has 3"):
        family().assemble({"student": trained(network=network(num_classes=0))})
    with pytest.raises(IncompatibleRolesError, match=r"'student' and 'teacher' differ in schedule"):
        PixelFamily(schedule=FlowSchedule(), shape=(1, 8, 8), path=str(pipeline)).assemble(
            {"student": trained(network=network(num_classes=0)), "teacher": Role()}
        )
    with pytest.raises(ValueError, match="'student' has no network, and the pipeline no path"):
        family().assemble({"student": trained()})
    with pytest.raises(PipelineContractError, match=r"no model_index\.json"):
        family(path=str(tmp_path)).assemble({"student": trained()})


def test_other_schedulers_and_pickled_weights_are_refused(pipeline: Path, tmp_path: Path) -> None:
    import json
    import shutil

    twin = shutil.copytree(pipeline, tmp_path / "twin")
    config = twin / "scheduler" / "scheduler_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"rescale_betas_zero_snr": True}))
    made = PixelFamily(schedule=FlowSchedule(), shape=(1, 8, 8), path=str(twin))
    with pytest.raises(ValueError, match="rescale_betas_zero_snr=True is not known"):
        pair(made)
    config.write_text(json.dumps(settings | {"_class_name": "ScoreSdeVeScheduler"}))
    with pytest.raises(ValueError, match="'ScoreSdeVeScheduler' is not known"):
        pair(made)
    weights = next((twin / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(PipelineContractError, match="pickled weights only"):
        pair(made)
