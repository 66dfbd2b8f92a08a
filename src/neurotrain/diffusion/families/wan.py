"""Wan: text to video, a transformer on a flow in the latents of an autoencoder that is causal in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from neurotrain.diffusion.context import Unconditional
from neurotrain.diffusion.families.base import PipelineContract
from neurotrain.diffusion.families.folders import PipelineContractError, PipelineFolder, diffusers_library
from neurotrain.diffusion.families.lora import Lora
from neurotrain.diffusion.families.prompted import PromptedFamily
from neurotrain.diffusion.roles import Role
from neurotrain.diffusion.specs import Abilities, IncompatibleRolesError, LatentSpec, RoleSpec
from neurotrain.networks.denoisers import CausalWanTransformer, DiffusersDenoiser, WanTransformer
from neurotrain.networks.denoisers.wan import check_chunk
from neurotrain.noise import FlowSchedule, NoiseSchedule, Prediction


class WanFamily(PromptedFamily):
    """``WanPipeline``: one transformer, an autoencoder of videos, and UMT5's tokens.

    Pipelines of two transformers (Wan 2.2 of 14 billion weights) and those that begin from a picture are refused.
    A role that is named in ``causal`` looks back only, by the weights of the same transformer, and goes on chunk by
    chunk.
    Exported pipelines sample at the times that ours are sampled at, which ``FlowMapEulerDiscreteScheduler`` makes.

    Args:
        path: pipeline: a folder, or ``owner/name`` on the hub.
        revision: commit on the hub, 40 digits.
        paths: pipelines that other roles take their transformer from, by role; folders.
        frames: of a video: one more than a multiple of what the autoencoder makes one latent frame of.
        height: of the video, in pixels.
        width: of the video, in pixels.
        max_tokens: of the text.
        prompts: that samples are drawn with.
        negative_prompt: of the second call of guidance.
        unconditional: what channels become in that call; by itself ``text`` becomes the negative prompt's.
        schedule: replaces the pipeline's; None: what its scheduler says.
        timestep_range: smallest and largest time that methods use.
        dtype: of all weights.
        lora: low-rank additions, by role.
        causal: roles whose frames see their own chunk and those before, and the latent frames of a chunk of each.

    Raises:
        ValueError: if a value is out of range, or a pipeline is not where it should be.

    Reference:
        Wan Team, 2025 (arXiv:2503.20314).
    """

    part = "transformer"
    layout = "BCTHW"
    sample_key = "video"
    negatives: ClassVar[Mapping[str, Unconditional]] = {"text": "negative"}
    contract = PipelineContract(
        required=("transformer", "vae", "text_encoder", "tokenizer"),
        replaced=("scheduler",),
        left_out=("image_encoder", "image_processor"),
    )
    classes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "transformer": ("WanTransformer3DModel",),
        "vae": ("AutoencoderKLWan",),
        "text_encoder": ("UMT5EncoderModel",),
    }
    denoiser: ClassVar[type[DiffusersDenoiser]] = WanTransformer

    def __init__(
        self,
        *,
        path: str,
        revision: str | None = None,
        paths: dict[str, str] | None = None,
        frames: int = 81,
        height: int = 480,
        width: int = 832,
        max_tokens: int = 512,
        prompts: tuple[str, ...] = ("a video",),
        negative_prompt: str = "",
        unconditional: dict[str, Unconditional] | None = None,
        schedule: NoiseSchedule | None = None,
        timestep_range: tuple[float, float] = (0.0, 1.0),
        dtype: Literal["float32", "bfloat16"] = "float32",
        lora: dict[str, Lora] | None = None,
        causal: dict[str, int] | None = None,
    ) -> None:
        if max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens} must be at least 1")
        self._frames, self._max_tokens, self._causal = frames, max_tokens, dict(causal or {})
        super().__init__(
            path=path,
            revision=revision,
            paths=paths,
            height=height,
            width=width,
            prompts=prompts,
            negative_prompt=negative_prompt,
            unconditional=unconditional,
            schedule=schedule,
            timestep_range=timestep_range,
            dtype=dtype,
            lora=lora,
        )

    def spec(self, name: str, role: Role) -> RoleSpec:
        """See :meth:`PromptedFamily.spec`.

        Raises:
            IncompatibleRolesError: if the transformer's latents are not the autoencoder's, or do not fold into its
                tokens.
        """
        found = super().spec(name, role)
        channels = int(self._folder.config("vae")["z_dim"])
        if found.latent.channels != channels:
            raise IncompatibleRolesError(
                f"role {name!r} and the autoencoder differ in channels: {found.latent.channels} and {channels}"
            )
        patch = tuple(self._folders.get(name, self._folder).config("transformer")["patch_size"])
        if any(length % side for length, side in zip(self._shape[1:], patch, strict=True)):
            raise IncompatibleRolesError(
                f"role {name!r} folds {patch} of frames, height and width into a token, which do not divide the "
                f"pipeline's latents of {self._shape[1:]}"
            )
        if name in self._causal:
            check_chunk(self._causal[name], role=name, frames=self._shape[1], folded=patch[0])
        return found

    def by_role(self) -> dict[str, tuple[str, ...]]:
        """Roles that look back only."""
        return {"causal": tuple(self._causal)}

    def abilities(self, name: str, *, scalars: tuple[str, ...]) -> Abilities:
        """See :meth:`PromptedFamily.abilities`; with the chunk of a role that looks back only."""
        found = super().abilities(name, scalars=scalars)
        if name not in self._causal:
            return found
        return replace(found, network=CausalWanTransformer.__name__, chunk=self._causal[name], frame_times=True)

    def latent_scale(self, config: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """One a channel: ``1 / latents_std`` and ``latents_mean``."""
        return tuple(1.0 / float(std) for std in config["latents_std"]), tuple(map(float, config["latents_mean"]))

    def provided(self) -> dict[str, tuple[int, ...]]:
        """UMT5's tokens."""
        return {"text": (self._max_tokens, int(self._folder.config("text_encoder")["d_model"]))}

    def conditions(self, config: Mapping[str, Any], *, role: str) -> dict[str, tuple[int, ...]]:
        """See :meth:`neurotrain.networks.denoisers.WanTransformer.conditions`."""
        return WanTransformer.conditions(config, tokens=self._max_tokens)

    def encode_prompts(
        self,
        pipeline: Any,  # noqa: ANN401 - of diffusers
        prompts: list[str],
        *,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """By ``encode_prompt`` of the pipeline; zeros behind a text's last token."""
        text, _ = pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self._max_tokens, device=device
        )
        return {"text": text.float()}

    def load(self, folder: PipelineFolder, *, role: str) -> nn.Module:
        """The transformer."""
        return diffusers_library("WanFamily").WanTransformer3DModel.from_pretrained(
            str(folder.root / "transformer"), use_safetensors=True, local_files_only=True, dtype=self.torch_dtype
        )

    def wrap(self, model: nn.Module, *, spec: LatentSpec) -> DiffusersDenoiser:
        """As methods call it."""
        held: Any = model
        needed = self.conditions(held.config, role="")
        return WanTransformer(model=model, schedule=spec.schedule, prediction=spec.prediction, condition=needed)

    def network(self, name: str, role: Role) -> nn.Module:
        """The transformer of the role's pipeline; looking back only where the role shall."""
        found = super().network(name, role)
        if name not in self._causal:
            return found
        assert isinstance(found, WanTransformer)
        return CausalWanTransformer(
            model=found.model,
            schedule=found.schedule,
            prediction=found.prediction,
            condition=found.condition,
            frames=self._shape[1],
            chunk=self._causal[name],
        )

    def load_pipeline(self, folder: PipelineFolder) -> Any:  # noqa: ANN401 - of diffusers
        """Without its transformer.

        Raises:
            PipelineContractError: if it goes from one transformer to another on the way.
        """
        pipeline = diffusers_library("WanFamily").WanPipeline.from_pretrained(
            str(folder.root),
            use_safetensors=True,
            local_files_only=True,
            dtype=self.torch_dtype,
            transformer=None,
            transformer_2=None,
        )
        if pipeline.config.boundary_ratio is not None:
            raise PipelineContractError(
                f"{folder.path}: boundary_ratio={pipeline.config.boundary_ratio} goes from one transformer to another "
                "on the way, this family has one"
            )
        return pipeline

    def exported_scheduler(self, schedule: NoiseSchedule, prediction: Prediction) -> tuple[str, dict[str, Any]]:
        """The one whose times begin at 1 and divide the way to 0 evenly; the pipeline lets nobody else say them.

        Raises:
            ValueError: if the role is no flow.
        """
        if not isinstance(schedule, FlowSchedule) or prediction != "flow":
            raise ValueError(f"WanPipeline samples flows, not a model that predicts {prediction!r} under {schedule}")
        return "FlowMapEulerDiscreteScheduler", {"shift": schedule.shift, "num_train_timesteps": schedule.steps}

    def export_parts(self, parts: dict[str, Any]) -> dict[str, Any]:
        """With how the transformer is told its times."""
        return {**parts, "expand_timesteps": self.pipeline.config.expand_timesteps}

    def _latent_shape(self) -> tuple[int, ...]:
        vae = self._folder.config("vae")
        spatial, temporal = int(vae["scale_factor_spatial"]), int(vae["scale_factor_temporal"])
        height, width = self._size
        if height < 1 or width < 1 or height % (2 * spatial) or width % (2 * spatial):
            raise ValueError(
                f"height={height}, width={width}: expected multiples of {2 * spatial}, two latents of the autoencoder"
            )
        if self._frames < 1 or self._frames % temporal != 1 % temporal:
            raise ValueError(f"frames={self._frames}: expected one more than a multiple of {temporal}")
        return int(vae["z_dim"]), (self._frames - 1) // temporal + 1, height // spatial, width // spatial
