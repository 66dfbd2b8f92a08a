"""Stable Diffusion 1.5, 2 and XL: a U-Net in an autoencoder's latents, steered by one text encoder or two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from neurotrain.diffusion.context import Unconditional
from neurotrain.diffusion.families.base import PipelineContract
from neurotrain.diffusion.families.folders import PipelineFolder, diffusers_library
from neurotrain.diffusion.families.lora import Lora
from neurotrain.diffusion.families.prompted import PromptedFamily
from neurotrain.diffusion.specs import LatentSpec
from neurotrain.networks.denoisers import ConditionalUNet, DiffusersDenoiser
from neurotrain.noise import NoiseSchedule

_LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")


class LatentUNetFamily(PromptedFamily):
    """``StableDiffusionPipeline`` and ``StableDiffusionXLPipeline``.

    A role that is named in ``guided`` is told the scale of guidance (channel ``guidance``), as latent consistency
    students are: where its U-Net has no place for it, one is added, of no effect at first.

    Args:
        path: pipeline: a folder, or ``owner/name`` on the hub.
        revision: commit on the hub, 40 digits.
        paths: pipelines that other roles take their U-Net from, by role; folders.
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.
        prompts: that samples are drawn with.
        negative_prompt: of the second call of guidance.
        unconditional: what channels become in that call; by itself ``text`` and ``pooled`` become the negative
            prompt's, ``size`` and ``guidance`` stay.
        guided: roles that are told the scale of guidance.
        guidance: that scale, where the method says none; None: the method must say it.
        schedule: replaces the pipeline's; None: what its scheduler says.
        timestep_range: smallest and largest time that methods use.
        dtype: of all weights.
        lora: low-rank additions, by role.

    Raises:
        ValueError: if a value is out of range, or a pipeline is not where it should be.
    """

    contract = PipelineContract(
        required=("unet", "vae", "text_encoder", "tokenizer"),
        optional=("text_encoder_2", "tokenizer_2"),
        replaced=("scheduler",),
        left_out=_LEFT_OUT,
    )
    part = "unet"
    classes: ClassVar[Mapping[str, tuple[str, ...]]] = {"unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL",)}
    negatives: ClassVar[Mapping[str, Unconditional]] = {
        "text": "negative",
        "pooled": "negative",
        "size": "keep",
        "guidance": "keep",
    }
    denoiser: ClassVar[type[DiffusersDenoiser]] = ConditionalUNet

    def __init__(
        self,
        *,
        path: str,
        revision: str | None = None,
        paths: dict[str, str] | None = None,
        height: int = 512,
        width: int = 512,
        prompts: tuple[str, ...] = ("a photograph",),
        negative_prompt: str = "",
        unconditional: dict[str, Unconditional] | None = None,
        guided: tuple[str, ...] = (),
        guidance: float | None = None,
        schedule: NoiseSchedule | None = None,
        timestep_range: tuple[float, float] = (0.0, 1.0),
        dtype: Literal["float32", "bfloat16"] = "float32",
        lora: dict[str, Lora] | None = None,
    ) -> None:
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
        self._guided, self.guidance = tuple(guided), guidance

    def by_role(self) -> dict[str, tuple[str, ...]]:
        """Roles that are told the scale."""
        return {"guided": self._guided}

    @property
    def two_encoders(self) -> bool:
        """Whether the pipeline is an XL one."""
        return "text_encoder_2" in self._folder.parts

    def provided(self) -> dict[str, tuple[int, ...]]:
        """Tokens of one encoder, or of two side by side with the second's vector and the sizes."""
        width = int(self._folder.config("text_encoder")["hidden_size"])
        tokens = self.tokens("tokenizer")
        if not self.two_encoders:
            return {"text": (tokens, width)}
        second = self._folder.config("text_encoder_2")
        both = width + int(second["hidden_size"])
        return {"text": (tokens, both), "pooled": (int(second["projection_dim"]),), "size": (6,)}

    def conditions(self, config: Mapping[str, Any], *, role: str) -> dict[str, tuple[int, ...]]:
        """See :meth:`neurotrain.networks.denoisers.ConditionalUNet.conditions`."""
        wanted = {**config, "time_cond_proj_dim": 256} if role in self._guided else config
        return ConditionalUNet.conditions(wanted, tokens=self.tokens("tokenizer"))

    def encode_prompts(
        self,
        pipeline: Any,  # noqa: ANN401 - of diffusers
        prompts: list[str],
        *,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """By ``encode_prompt`` of the pipeline."""
        if not self.two_encoders:
            found, _ = pipeline.encode_prompt(
                prompts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
            return {"text": found.float()}
        text, _, pooled, _ = pipeline.encode_prompt(
            prompts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        size = torch.tensor([*self._size, 0, 0, *self._size], dtype=torch.float32, device=device)
        return {"text": text.float(), "pooled": pooled.float(), "size": size.expand(len(prompts), -1)}

    def load(self, folder: PipelineFolder, *, role: str) -> nn.Module:
        """``UNet2DConditionModel``; a place for the scale of guidance is added where the role wants one."""
        kind = diffusers_library("LatentUNetFamily").UNet2DConditionModel
        model = kind.from_pretrained(
            str(folder.root / "unet"), use_safetensors=True, local_files_only=True, dtype=self.torch_dtype
        )
        if role not in self._guided or model.config["time_cond_proj_dim"] is not None:
            return model
        wider = kind.from_config({**model.config, "time_cond_proj_dim": 256})
        nn.init.zeros_(wider.time_embedding.cond_proj.weight)
        wider.load_state_dict({**wider.state_dict(), **model.state_dict()})
        return wider if wider.dtype == self.torch_dtype else wider.to(self.torch_dtype)

    def wrap(self, model: nn.Module, *, spec: LatentSpec) -> DiffusersDenoiser:
        """As methods call it."""
        held: Any = model
        guided: dict[str, tuple[int, ...]] = {"guidance": ()} if held.config["time_cond_proj_dim"] is not None else {}
        return ConditionalUNet(
            model=model, schedule=spec.schedule, prediction=spec.prediction, condition={**spec.condition, **guided}
        )

    def load_pipeline(self, folder: PipelineFolder) -> Any:  # noqa: ANN401 - of diffusers
        """Without U-Net and safety checker."""
        library = diffusers_library("LatentUNetFamily")
        kind = library.StableDiffusionXLPipeline if self.two_encoders else library.StableDiffusionPipeline
        absent = {name: None for name in ("unet", *_LEFT_OUT) if name != "safety_checker" or not self.two_encoders}
        more = {} if self.two_encoders else {"requires_safety_checker": False}
        return kind.from_pretrained(
            str(folder.root),
            use_safetensors=True,
            local_files_only=True,
            dtype=self.torch_dtype,
            **absent,
            **more,
        )
