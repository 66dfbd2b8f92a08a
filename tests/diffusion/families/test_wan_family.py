"""Wan: a saved pipeline of videos, loaded by the real code, trained, exported, sampled as diffusers samples."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from family_runs import noise_of, pair, sampled, train_a_little, trained, view
from plain_diffusers import PROMPTS, loaded, videos
from tiny_pipelines import TOKENS, save_wan
from torch import Tensor

from neurotrain.diffusion import IncompatibleRolesError, Role, even_times
from neurotrain.diffusion.families import Lora, PipelineContractError, PromptAdapter, PromptedFamily, WanFamily
from neurotrain.networks.denoisers import look_back
from neurotrain.noise import FlowSchedule, euler
from neurotrain.tasks.distillation import DiffusionForcing, DistillationTask


@pytest.fixture
def saved(saved: Callable[[str], Path]) -> Path:
    return saved("wan")


def family(path: Path, **given: Any) -> WanFamily:  # noqa: ANN401
    size: dict[str, Any] = {"frames": 5, "height": 16, "width": 16, "max_tokens": TOKENS, "prompts": PROMPTS}
    return WanFamily(**{"path": str(path), **size, **given})


def batch() -> dict[str, Any]:
    video = torch.rand(2, 3, 5, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return {"video": video, "caption": list(PROMPTS)}


def by_diffusers(folder: Path, noise: Tensor, *, steps: int, guidance: float, lora: Path | None = None) -> Tensor:
    """Videos ``(B, 3, T, H, W)`` of the saved pipeline, by diffusers alone."""
    return videos(loaded(folder, lora=lora), noise, steps=steps, guidance=guidance)


def prompted(adapter: object) -> PromptAdapter:
    assert isinstance(adapter, PromptAdapter)
    return adapter


def test_a_student_learns_and_its_pipeline_samples_as_we_do(saved: Path, tmp_path: Path) -> None:
    made = family(saved)
    assembly = pair(made)
    assert assembly.context.shape == (4, 2, 2, 2)
    assert dict(assembly.context.condition) == {"text": (TOKENS, 16)}
    losses = train_a_little(assembly, batch(), steps=4)
    assert losses[-1] < losses[0]
    made.export(assembly.roles["student"], tmp_path / "student")
    adapter, noise = prompted(assembly.adapter), noise_of(assembly)
    condition = adapter.conditions(PROMPTS, device="cpu")
    for steps, guidance in ((1, 1.0), (3, 1.0), (4, 2.5)):
        found = adapter.decode(sampled(assembly, noise, condition, steps=steps, guidance=guidance, sampler="euler"))
        expected = by_diffusers(tmp_path / "student", noise, steps=steps, guidance=guidance)
        assert found.shape == expected.shape == (2, 3, 5, 16, 16)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    untrained = adapter.decode(sampled(assembly, noise, condition, steps=1, name="teacher"))
    assert (untrained - by_diffusers(tmp_path / "student", noise, steps=1, guidance=1.0)).abs().max() > 1e-3
    again = family(tmp_path / "student").spec("student", Role()).latent  # what was exported is read again
    assert again.schedule == FlowSchedule(shift=3.0)


def test_the_pipeline_says_schedule_scale_and_length(saved: Path) -> None:
    latent = family(saved).spec("teacher", Role()).latent
    assert (latent.layout, latent.channels, latent.frames, latent.prediction) == ("BCTHW", 4, 2, "flow")
    assert latent.schedule == FlowSchedule(shift=3.0)
    assert latent.scale == (2.0, 1 / 1.5, 1.0, 0.5)
    assert latent.shift == (0.1, -0.2, 0.3, 0.0)


def test_videos_are_encoded_and_decoded_as_the_pipeline_does(saved: Path) -> None:
    assembly = pair(family(saved))
    vae: Any = assembly.context.vae
    video = batch()["video"]
    raw = vae.encode(video).latent_dist.mode()
    mean, std = (
        torch.tensor(getattr(vae.config, name)).view(1, 4, 1, 1, 1) for name in ("latents_mean", "latents_std")
    )
    latent = assembly.adapter.encode(video)
    torch.testing.assert_close(latent, (raw - mean) / std)
    torch.testing.assert_close(assembly.adapter.decode(latent), (vae.decode(latent * std + mean).sample / 2 + 0.5))
    cached = assembly.adapter.prepare_batch({"latent": raw, "caption": list(PROMPTS)})
    torch.testing.assert_close(cached.x0, latent)
    with pytest.raises(ValueError, match="neither 'video' nor 'latent'"):
        assembly.adapter.prepare_batch({"image": video, "caption": list(PROMPTS)})


def test_low_rank_is_exported_merged_and_apart(saved: Path, tmp_path: Path) -> None:
    made = family(saved, lora={"student": Lora(rank=2, alpha=6.0, targets=("to_q", "to_v"))})
    assembly = pair(made)
    train_a_little(assembly, batch(), steps=3)
    adapter, noise = prompted(assembly.adapter), noise_of(assembly)
    condition = adapter.conditions(PROMPTS, device="cpu")
    found = adapter.decode(sampled(assembly, noise, condition, steps=1, sampler="euler"))
    plain = adapter.decode(sampled(assembly, noise, condition, steps=1, sampler="euler", name="teacher"))
    assert (found - plain).abs().max() > 1e-3
    made.export(assembly.roles["student"], tmp_path / "merged")
    made.export(assembly.roles["student"], tmp_path / "apart", merge=False)
    torch.testing.assert_close(
        found, by_diffusers(tmp_path / "merged", noise, steps=1, guidance=1.0), rtol=0, atol=1e-4
    )
    made.export(assembly.roles["teacher"], tmp_path / "base")
    apart = by_diffusers(tmp_path / "base", noise, steps=1, guidance=1.0, lora=tmp_path / "apart")
    torch.testing.assert_close(found, apart, rtol=0, atol=1e-4)


def test_a_causal_student_of_low_rank_is_exported_merged(saved: Path, tmp_path: Path) -> None:
    lora = {"student": Lora(rank=2, alpha=6.0, targets=("to_q", "to_v"))}
    made = family(saved, lora=lora, causal={"student": 1})
    assembly = pair(made)
    train_a_little(assembly, batch(), steps=3)
    adapter, noise = prompted(assembly.adapter), noise_of(assembly)
    condition = adapter.conditions(PROMPTS, device="cpu")
    made.export(assembly.roles["student"], tmp_path / "student")
    pipeline = loaded(tmp_path / "student")
    look_back(pipeline.transformer, chunk=1)
    found = adapter.decode(sampled(assembly, noise, condition, steps=2, sampler="euler"))
    torch.testing.assert_close(found, videos(pipeline, noise, steps=2), rtol=0, atol=1e-4)


def test_a_rollout_of_the_causal_student_is_its_solver_s_chunk_by_chunk(saved: Path) -> None:
    roles = {"student": trained(), "teacher": Role()}
    task = DistillationTask(
        roles=roles, pipeline=family(saved, causal={"student": 1, "teacher": 2}), method=DiffusionForcing()
    )
    noise = torch.randn(2, *task.context.shape, generator=torch.Generator().manual_seed(7))
    condition = prompted(task.adapter).conditions(PROMPTS, device="cpu")
    student = task.views["student"]
    with torch.no_grad():
        found = task.method.generate(
            student, noise, steps=2, condition=condition, guidance=1.0, generator=torch.Generator()
        )
        # The first frame by itself, the second beside it when it is clean: by whole forward passes.
        times = even_times(2, first=0.0, last=1.0)
        first = euler(
            lambda x_t, t: student.predict_x0(x_t, t, condition), noise[:, :, :1], times, FlowSchedule(shift=3.0)
        )

        def second(x_t: Tensor, t: Tensor) -> Tensor:
            both = torch.stack((torch.zeros_like(t), t), 1).view(-1, 1, 2, 1, 1)
            return student.predict_x0(torch.cat((first, x_t), 2), both, condition)[:, :, 1:]

        other = euler(second, noise[:, :, 1:], times, FlowSchedule(shift=3.0))
    torch.testing.assert_close(found, torch.cat((first, other), 2), rtol=0, atol=1e-5)


def test_features_carry_gradient(saved: Path) -> None:
    assembly = pair(family(saved))
    x = noise_of(assembly).requires_grad_()
    condition = prompted(assembly.adapter).conditions(PROMPTS, device="cpu")
    found = view(assembly, "teacher").features(x, torch.tensor([0.3, 0.6]), condition)
    assert [part.shape for part in found] == [(2, 24, 2)]
    sum(part.square().mean() for part in found).backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


class TestRefusals:
    """Each before a weight is loaded."""

    @pytest.fixture(autouse=True)
    def _no_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("weights were loaded")

        monkeypatch.setattr(PromptedFamily, "network", refuse)
        monkeypatch.setattr(WanFamily, "load_pipeline", refuse)

    def edited(self, saved: Path, folder: Path, part: str, **values: object) -> Path:
        copy = shutil.copytree(saved, folder)
        path = copy / part
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return copy

    def test_another_autoencoder(self, saved: Path, tmp_path: Path) -> None:
        other = save_wan(tmp_path / "other", seed=1)
        with pytest.raises(IncompatibleRolesError, match=r"'student' and 'teacher' differ in vae: '\w{32}' and"):
            pair(family(saved, paths={"teacher": str(other)}))

    def test_other_channels(self, saved: Path, tmp_path: Path) -> None:
        other = self.edited(saved, tmp_path / "other", "transformer/config.json", in_channels=5)
        with pytest.raises(IncompatibleRolesError, match="'teacher' and the autoencoder differ in channels: 5 and 4"):
            pair(family(saved, paths={"teacher": str(other)}))

    def test_tokens_of_several_frames(self, saved: Path, tmp_path: Path) -> None:
        other = self.edited(saved, tmp_path / "other", "transformer/config.json", patch_size=[3, 2, 2])
        with pytest.raises(IncompatibleRolesError, match=r"'teacher' folds \(3, 2, 2\) .* \(2, 2, 2\)"):
            pair(family(saved, paths={"teacher": str(other)}))

    def test_another_text_width(self, saved: Path, tmp_path: Path) -> None:
        other = self.edited(saved, tmp_path / "other", "transformer/config.json", text_dim=20)
        with pytest.raises(IncompatibleRolesError, match=r"'teacher' .* 'text': \(8, 20\) and \(8, 16\)"):
            pair(family(saved, paths={"teacher": str(other)}))

    def test_a_picture_to_begin_with_and_a_second_transformer(self, saved: Path, tmp_path: Path) -> None:
        other = self.edited(saved, tmp_path / "image", "transformer/config.json", image_dim=8)
        with pytest.raises(ValueError, match="image_dim=8: the transformer is steered by a picture"):
            pair(family(other))
        both = ["diffusers", "WanTransformer3DModel"]
        other = self.edited(saved, tmp_path / "two", "model_index.json", transformer_2=both)
        with pytest.raises(PipelineContractError, match="part 'transformer_2', which this family knows nothing of"):
            family(other)

    def test_chunks_and_who_has_them(self, saved: Path) -> None:
        with pytest.raises(ValueError, match="chunk=3 of role 'student': expected a divisor of the 2 latent frames"):
            pair(family(saved, causal={"student": 3}))
        with pytest.raises(ValueError, match="causal: no role 'studnt'; nearest: 'student'"):
            pair(family(saved, causal={"studnt": 1}))
        copied = {"student": trained(initialize_from="teacher"), "teacher": Role()}
        with pytest.raises(ValueError, match="causal of role 'student' has no effect beside initialize_from='teacher'"):
            family(saved, causal={"student": 1}).assemble(copied)
        with pytest.raises(ValueError, match="'teacher', a WanTransformer, knows one time a sample"):
            DistillationTask(
                roles={"student": trained(), "teacher": Role()},
                pipeline=family(saved, causal={"student": 1}),
                method=DiffusionForcing(),
            )

    def test_sizes_and_schedulers(self, saved: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="frames=6: expected one more than a multiple of 4"):
            family(saved, frames=6)
        with pytest.raises(ValueError, match="height=24, width=16: expected multiples of 16"):
            family(saved, height=24)
        part = "scheduler/scheduler_config.json"
        other = self.edited(saved, tmp_path / "other", part, prediction_type="epsilon")
        with pytest.raises(ValueError, match="use_flow_sigmas=True with prediction_type='epsilon' is not known"):
            pair(family(other))
