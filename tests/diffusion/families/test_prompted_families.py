"""Text-to-image pipelines of diffusers: loaded by the real code, trained, exported, sampled as diffusers samples."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_runs import noise_of, pair, sampled, train_a_little, trained, view
from plain_diffusers import PROMPTS, loaded, pictures
from tiny_pipelines import TOKENS, save_sd3, save_stable_diffusion, text_encoder
from torch import Tensor

from neurotrain.diffusion import IncompatibleRolesError, Role
from neurotrain.diffusion.families import (
    FluxFamily,
    LatentUNetFamily,
    Lora,
    PipelineContractError,
    PromptAdapter,
    PromptedFamily,
    StableDiffusion3Family,
)
from neurotrain.noise import FlowSchedule, ScaledLinearSchedule
from neurotrain.tasks.distillation import DistillationTask, FineTune

# Both libraries call what NumPy and torch are about to forget.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]
SIZE: dict[str, Any] = {"height": 16, "width": 16, "prompts": PROMPTS}


@dataclass(frozen=True)
class Kind:
    """One pipeline, and which family reads it."""

    family: Callable[..., PromptedFamily]
    channels: dict[str, tuple[int, ...]]
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def build(self, folder: Path, **given: Any) -> PromptedFamily:  # noqa: ANN401
        return self.family(**{"path": str(folder), **SIZE, **self.settings, **given})


KINDS = {
    "sd": Kind(LatentUNetFamily, {"text": (TOKENS, 8)}),
    "xl": Kind(LatentUNetFamily, {"text": (TOKENS, 20), "pooled": (6,), "size": (6,)}),
    "sd3": Kind(StableDiffusion3Family, {"text": (2 * TOKENS, 24), "pooled": (12,)}, {"max_tokens": TOKENS}),
    "flux": Kind(FluxFamily, {"text": (TOKENS, 24), "pooled": (8,)}, {"max_tokens": TOKENS}),
}
Saved = Callable[[str], Path]


def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1, "caption": list(PROMPTS)}


def by_diffusers(folder: Path, noise: Tensor, *, steps: int, guidance: float, lora: Path | None = None) -> Tensor:
    """Pictures ``(B, 3, H, W)`` of the saved pipeline, by diffusers alone."""
    return pictures(loaded(folder, lora=lora), noise, steps=steps, guidance=guidance)


@pytest.mark.parametrize("name", list(KINDS))
def test_students_learn_and_their_pipeline_samples_as_we_do(name: str, saved: Saved, tmp_path: Path) -> None:
    kind, source = KINDS[name], saved(name)
    made = kind.build(source)
    assembly = pair(made)
    assert dict(assembly.context.condition) == kind.channels
    assert assembly.context.shape == (4, 8, 8)
    losses = train_a_little(assembly, batch(), steps=4)
    assert losses[-1] < losses[0]
    made.export(assembly.roles["student"], tmp_path / "student")
    adapter = assembly.adapter
    assert isinstance(adapter, PromptAdapter)
    condition, noise = adapter.conditions(PROMPTS, device="cpu"), noise_of(assembly)
    # Numbers of steps that divide the schedules' 1000: with others diffusers' DDIM does not arrive at its next time.
    for steps, guidance in ((1, 1.0), (4, 1.5)):
        found = adapter.decode(sampled(assembly, noise, condition, steps=steps, guidance=guidance))
        expected = by_diffusers(tmp_path / "student", noise, steps=steps, guidance=guidance)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    untrained = by_diffusers(source, noise, steps=1, guidance=1.0)
    trained_once = by_diffusers(tmp_path / "student", noise, steps=1, guidance=1.0)
    assert (trained_once - untrained).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_low_rank_is_exported_merged_and_apart(name: str, saved: Saved, tmp_path: Path) -> None:
    kind, source = KINDS[name], saved(name)
    made = kind.build(source, lora={"student": Lora(rank=2, alpha=6.0, targets=("to_q", "to_v"))})
    assembly = pair(made)
    handle = assembly.roles["student"]
    assert all("lora_" in name for name, p in handle.module.named_parameters() if p.requires_grad)
    train_a_little(assembly, batch(), steps=3)
    adapter = assembly.adapter
    assert isinstance(adapter, PromptAdapter)
    condition, noise = adapter.conditions(PROMPTS, device="cpu"), noise_of(assembly)
    found = adapter.decode(sampled(assembly, noise, condition, steps=2))
    plain = adapter.decode(sampled(assembly, noise, condition, steps=2, name="teacher"))
    assert (found - plain).abs().max() > 1e-3
    made.export(handle, tmp_path / "merged")
    made.export(handle, tmp_path / "apart", merge=False)
    merged = by_diffusers(tmp_path / "merged", noise, steps=2, guidance=1.0)
    torch.testing.assert_close(found, merged, rtol=0, atol=1e-4)
    if name == "flux":  # the other pipeline has a scheduler of its own, with other times
        apart = by_diffusers(source, noise, steps=2, guidance=1.0, lora=tmp_path / "apart")
        torch.testing.assert_close(found, apart, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", list(KINDS))
def test_features_of_every_denoiser_carry_gradient(name: str, saved: Saved) -> None:
    assembly = pair(KINDS[name].build(saved(name)))
    adapter = assembly.adapter
    assert isinstance(adapter, PromptAdapter)
    x = noise_of(assembly).requires_grad_()
    found = view(assembly, "teacher").features(x, torch.tensor([0.3, 0.6]), adapter.conditions(PROMPTS, device="cpu"))
    assert all(len(part) == 2 and part.ndim >= 3 for part in found)
    sum(part.square().mean() for part in found).backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_latents_are_shifted_scaled_and_decoded(saved: Saved) -> None:
    assembly = pair(KINDS["sd3"].build(saved("sd3")))
    vae: Any = assembly.context.vae
    image = batch()["image"]
    latent = assembly.adapter.encode(image)
    torch.testing.assert_close(latent, (vae.encode(image).latent_dist.mode() - 0.0609) * 1.5305)
    picture = (vae.decode(latent / 1.5305 + 0.0609).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(assembly.adapter.decode(latent), picture)
    cached = assembly.adapter.prepare_batch({"latent": vae.encode(image).latent_dist.mode(), "caption": list(PROMPTS)})
    torch.testing.assert_close(cached.x0, latent)


def test_schedules_and_shifts_are_the_pipelines_own(saved: Saved) -> None:
    flux = KINDS["flux"].build(saved("flux")).spec("teacher", Role()).latent
    assert flux.prediction == "flow"
    assert isinstance(flux.schedule, FlowSchedule)
    # 16 tokens of a picture: between 256 and 4096 the logarithm of the shift goes from 0.5 to 1.15
    assert flux.schedule.shift == pytest.approx(np.exp(0.5 + (16 - 256) * 0.65 / 3840))
    assert (flux.scale, flux.shift) == (0.3611, 0.1159)
    sd = KINDS["sd"].build(saved("sd")).spec("teacher", Role()).latent
    assert sd.schedule == ScaledLinearSchedule()
    assert (sd.prediction, sd.scale) == ("epsilon", 0.5)


def test_a_third_encoder_may_be_left_out(tmp_path: Path) -> None:
    folder = save_sd3(tmp_path / "sd3", third=False)
    assembly = pair(StableDiffusion3Family(path=str(folder), max_tokens=TOKENS, **SIZE))
    assert dict(assembly.context.condition) == {"text": (2 * TOKENS, 24), "pooled": (12,)}
    assert assembly.context.negative["text"][TOKENS:].abs().max() == 0


def test_prompts_are_encoded_once(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    made = KINDS["sd"].build(saved("sd"))
    adapter = pair(made).adapter
    assert isinstance(adapter, PromptAdapter)
    asked: list[list[str]] = []
    encode = made.encode_prompts
    monkeypatch.setattr(
        made,
        "encode_prompts",
        lambda pipeline, prompts, *, device: asked.append(prompts) or encode(pipeline, prompts, device=device),
    )
    first = adapter.conditions(["a fox", "a red fox", "a fox"], device="cpu")
    again = adapter.conditions(["a red fox", "a fox"], device="cpu")
    assert asked == [["a fox", "a red fox"]]
    assert torch.equal(first["text"][:2].flip(0), again["text"])
    assert not torch.equal(first["text"][0], first["text"][1])


def test_a_scale_of_the_pipeline_is_told_where_the_method_says_none(saved: Saved) -> None:
    assembly = pair(KINDS["flux"].build(saved("flux_dev"), guidance=2.0))
    adapter = assembly.adapter
    assert isinstance(adapter, PromptAdapter)
    condition, noise = adapter.conditions(PROMPTS, device="cpu"), noise_of(assembly)
    told = {scale: {**condition, "guidance": torch.full((2,), scale)} for scale in (2.0, 3.5)}
    found = view(assembly).predict_x0(noise, torch.ones(2), condition)
    assert torch.equal(found, view(assembly).predict_x0(noise, torch.ones(2), told[2.0]))
    assert not torch.equal(found, view(assembly).predict_x0(noise, torch.ones(2), told[3.5]))
    features = [view(assembly, "teacher").features(noise, torch.ones(2), one)[0] for one in (condition, told[2.0])]
    assert torch.equal(*features)
    made = KINDS["flux"].build(saved("flux_dev"))
    assert made.told_guidance == 3.5


def test_what_is_cached_of_a_teacher_depends_on_prompts_and_encoders(saved: Saved, tmp_path: Path) -> None:
    ours = pair(KINDS["sd"].build(saved("sd"))).context.fingerprint
    assert pair(KINDS["sd"].build(saved("sd"))).context.fingerprint == ours
    assert pair(KINDS["sd"].build(saved("sd"), prompts=("a fox",))).context.fingerprint != ours
    other = shutil.copytree(saved("sd"), tmp_path / "other")
    shutil.rmtree(other / "text_encoder")
    text_encoder(seed=9, width=8).save_pretrained(other / "text_encoder", safe_serialization=True)
    assert pair(KINDS["sd"].build(other)).context.fingerprint != ours


def test_a_guided_student_starts_as_its_teacher_and_is_told_the_scale_as_diffusers_tells_it(
    saved: Saved, tmp_path: Path
) -> None:
    from diffusers import LatentConsistencyModelPipeline, UNet2DConditionModel

    from neurotrain.networks.denoisers.pretrained import guidance_waves

    made = KINDS["sd"].build(saved("sd"), guided=("student",))
    assembly = pair(made)
    adapter = assembly.adapter
    assert isinstance(adapter, PromptAdapter)
    condition, noise = adapter.conditions(PROMPTS, device="cpu"), noise_of(assembly)
    scale = torch.tensor([3.0, 7.5])
    student = view(assembly).predict_x0(noise, torch.ones(2), {**condition, "guidance": scale})
    teacher = view(assembly, "teacher").predict_x0(noise, torch.ones(2), condition)
    torch.testing.assert_close(student, teacher)
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, scale - 1, embedding_dim=256)  # type: ignore[arg-type]
    torch.testing.assert_close(guidance_waves(scale, width=256), theirs)
    made.export(assembly.roles["student"], tmp_path / "student")
    unet: Any = UNet2DConditionModel.from_pretrained(tmp_path / "student" / "unet", use_safetensors=True)
    assert unet.config["time_cond_proj_dim"] == 256


class TestRefusals:
    """Each before a weight is loaded."""

    @pytest.fixture(autouse=True)
    def _no_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("weights were loaded")

        monkeypatch.setattr(PromptedFamily, "network", refuse)
        monkeypatch.setattr(LatentUNetFamily, "load_pipeline", refuse)
        monkeypatch.setattr(StableDiffusion3Family, "load_pipeline", refuse)

    def test_another_autoencoder(self, saved: Saved, tmp_path: Path) -> None:
        other = save_stable_diffusion(tmp_path / "other", seed=1)
        with pytest.raises(
            IncompatibleRolesError, match=r"'student' and 'teacher' differ in vae: '\w{32}' and '\w{32}'"
        ):
            pair(KINDS["sd"].build(saved("sd"), paths={"teacher": str(other)}))

    def test_another_scale(self, saved: Saved, tmp_path: Path) -> None:
        other = shutil.copytree(saved("sd"), tmp_path / "other")
        _edit(other / "unet" / "config.json", in_channels=5)
        with pytest.raises(IncompatibleRolesError, match="'student' and 'teacher' differ in channels: 4 and 5"):
            pair(KINDS["sd"].build(saved("sd"), paths={"teacher": str(other)}))

    def test_a_schedule_that_does_not_convert(self, saved: Saved, tmp_path: Path) -> None:
        other = shutil.copytree(saved("sd"), tmp_path / "other")
        _edit(other / "scheduler" / "scheduler_config.json", beta_end=0.006)
        values = r"ScaledLinearSchedule\(.*beta_end=0.012.* and ScaledLinearSchedule\(.*beta_end=0.006"
        with pytest.raises(IncompatibleRolesError, match=f"'student' and 'teacher' differ in schedule: {values}"):
            pair(KINDS["sd"].build(saved("sd"), paths={"teacher": str(other)}))

    def test_a_missing_text_encoder(self, saved: Saved, tmp_path: Path) -> None:
        other = shutil.copytree(saved("xl"), tmp_path / "other")
        index = json.loads((other / "model_index.json").read_text())
        (other / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if not k.endswith("_2")}))
        with pytest.raises(
            IncompatibleRolesError, match=r"'student' and the pipeline .* 'text': \(8, 20\) and \(8, 8\)"
        ):
            pair(KINDS["xl"].build(other))
        lacking = shutil.copytree(saved("sd3"), tmp_path / "lacking")
        index = json.loads((lacking / "model_index.json").read_text())
        (lacking / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if k != "text_encoder_2"}))
        with pytest.raises(PipelineContractError, match="lacks 'text_encoder_2'; it has scheduler, text_encoder, "):
            KINDS["sd3"].build(lacking)
        with pytest.raises(
            PipelineContractError, match=r"role 'teacher': .* lacks 'text_encoder_2'; it has scheduler, "
        ):
            pair(KINDS["sd3"].build(saved("sd3"), paths={"teacher": str(lacking)}))

    def test_another_text_encoder(self, saved: Saved, tmp_path: Path) -> None:
        other = shutil.copytree(saved("sd"), tmp_path / "other")
        _edit(other / "text_encoder" / "config.json", num_hidden_layers=3)
        values = r"CLIPTextModel\(.*num_hidden_layers=3.* and CLIPTextModel\(.*num_hidden_layers=2"
        with pytest.raises(IncompatibleRolesError, match=f"role 'teacher' and the pipeline differ in .*: {values}"):
            pair(KINDS["sd"].build(saved("sd"), paths={"teacher": str(other)}))

    def test_a_scale_that_nobody_says_and_one_that_nobody_hears(self, saved: Saved) -> None:
        method = FineTune()
        with pytest.raises(ValueError, match="'student', a ConditionalUNet, must be told the 'guidance', and FineTune"):
            DistillationTask(
                roles={"student": trained()},
                pipeline=KINDS["sd"].build(saved("sd"), guided=("student",)),
                method=method,
            )
        with pytest.raises(ValueError, match=r"guidance=2.0 has no effect: no role's network asks for a scale"):
            pair(KINDS["sd"].build(saved("sd"), guidance=2.0))
        with pytest.raises(ValueError, match="guided: no role 'studnt'; nearest: 'student'"):
            pair(KINDS["sd"].build(saved("sd"), guided=("studnt",)))
        with pytest.raises(ValueError, match="guided of role 'student' has no effect beside initialize_from='teacher'"):
            KINDS["sd"].build(saved("sd"), guided=("student",)).assemble(
                {"student": trained(initialize_from="teacher"), "teacher": Role()}
            )

    def test_another_family(self, saved: Saved) -> None:
        with pytest.raises(PipelineContractError, match="lacks 'transformer'"):
            KINDS["flux"].build(saved("sd"))
        with pytest.raises(PipelineContractError, match="'transformer' is a FluxTransformer2DModel"):
            KINDS["sd3"].build(saved("flux"))

    def test_sizes_and_networks(self, saved: Saved) -> None:
        with pytest.raises(ValueError, match="height=15, width=16: expected multiples of 2"):
            KINDS["sd"].build(saved("sd"), height=15)
        with pytest.raises(ValueError, match="do not fold"):
            KINDS["flux"].build(saved("flux"), height=14)
        with pytest.raises(ValueError, match="takes all networks from pipelines"):
            KINDS["sd"].build(saved("sd")).assemble({"student": trained(network=torch.nn.Linear(1, 1))})
        with pytest.raises(ValueError, match="neither a folder that is there nor owner/name"):
            KINDS["sd"].build(Path("/nowhere"))
        with pytest.raises(ValueError, match="needs a commit"):
            KINDS["sd"].build(Path("owner/name"))


def _edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
