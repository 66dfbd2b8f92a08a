"""Stable Diffusion 3 and Flux: a transformer on a flow in an autoencoder's latents, with several text encoders."""

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
from neurotrain.networks.denoisers import DiffusersDenoiser, FluxTransformer, SD3Transformer
from neurotrain.noise import NoiseSchedule

_FLUX_GUIDANCE = 3.5
"""That ``FluxPipeline`` tells of itself."""
_LEFT_OUT = ("image_encoder", "feature_extractor")
_NEGATIVES: dict[str, Unconditional] = {"text": "negative", "pooled": "negative", "guidance": "keep"}


class _FlowTransformerFamily(PromptedFamily):
    """What both share: parts and constructor."""

    part = "transformer"
    negatives: ClassVar[Mapping[str, Unconditional]] = _NEGATIVES

    def __init__(
        self,
        *,
        path: str,
        revision: str | None = None,
        paths: dict[str, str] | None = None,
        height: int = 1024,
        width: int = 1024,
        max_tokens: int = 256,
        prompts: tuple[str, ...] = ("a photograph",),
        negative_prompt: str = "",
        unconditional: dict[str, Unconditional] | None = None,
        schedule: NoiseSchedule | None = None,
        timestep_range: tuple[float, float] = (0.0, 1.0),
        dtype: Literal["float32", "bfloat16"] = "float32",
        lora: dict[str, Lora] | None = None,
    ) -> None:
        if max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens} must be at least 1")
        self._max_tokens = max_tokens
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
        if self._shape[1] % 2 or self._shape[2] % 2:
            raise ValueError(
                f"height={height}, width={width}: latents of {self._shape[1:]} do not fold into squares of two"
            )

    def load(self, folder: PipelineFolder, *, role: str) -> nn.Module:
        """The transformer."""
        kind = getattr(diffusers_library(type(self).__name__), self.classes["transformer"][0])
        return kind.from_pretrained(
            str(folder.root / "transformer"), use_safetensors=True, local_files_only=True, dtype=self.torch_dtype
        )

    def wrap(self, model: nn.Module, *, spec: LatentSpec) -> DiffusersDenoiser:
        """As methods call it."""
        held: Any = model
        needed = self.conditions(held.config, role="")
        return self.denoiser(model=model, schedule=spec.schedule, prediction=spec.prediction, condition=needed)


class StableDiffusion3Family(_FlowTransformerFamily):
    """``StableDiffusion3Pipeline``: two CLIP encoders, and a T5 encoder that may be left out.

    Args:
        path: pipeline: a folder, or ``owner/name`` on the hub.
        revision: commit on the hub, 40 digits.
        paths: pipelines that other roles take their transformer from, by role; folders.
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.
        max_tokens: of the T5 encoder's text.
        prompts: that samples are drawn with.
        negative_prompt: of the second call of guidance.
        unconditional: what channels become in that call; by itself they become the negative prompt's.
        schedule: replaces the pipeline's; None: what its scheduler says.
        timestep_range: smallest and largest time that methods use.
        dtype: of all weights.
        lora: low-rank additions, by role.

    Raises:
        ValueError: if a value is out of range, or a pipeline is not where it should be.
    """

    contract = PipelineContract(
        required=("transformer", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
        optional=("text_encoder_3", "tokenizer_3"),
        replaced=("scheduler",),
        left_out=_LEFT_OUT,
    )
    classes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "transformer": ("SD3Transformer2DModel",),
        "vae": ("AutoencoderKL",),
    }
    denoiser: ClassVar[type[DiffusersDenoiser]] = SD3Transformer

    @property
    def _tokens(self) -> int:
        return self.tokens("tokenizer") + self._max_tokens

    def provided(self) -> dict[str, tuple[int, ...]]:
        """CLIP's tokens, then T5's (zeros where it is left out), of T5's width; both CLIP vectors."""
        first, second = (self._folder.config(f"text_encoder{number}") for number in ("", "_2"))
        if "text_encoder_3" in self._folder.parts:
            width = int(self._folder.config("text_encoder_3")["d_model"])
        else:
            width = int(self._folder.config("transformer")["joint_attention_dim"])
        return {
            "text": (self._tokens, width),
            "pooled": (int(first["projection_dim"]) + int(second["projection_dim"]),),
        }

    def conditions(self, config: Mapping[str, Any], *, role: str) -> dict[str, tuple[int, ...]]:
        """See :meth:`neurotrain.networks.denoisers.SD3Transformer.conditions`."""
        return SD3Transformer.conditions(config, tokens=self._tokens)

    def encode_prompts(
        self,
        pipeline: Any,  # noqa: ANN401 - of diffusers
        prompts: list[str],
        *,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """By ``encode_prompt`` of the pipeline."""
        text, _, pooled, _ = pipeline.encode_prompt(
            prompts,
            None,
            None,
            device=device,
            do_classifier_free_guidance=False,
            max_sequence_length=self._max_tokens,
        )
        return {"text": text.float(), "pooled": pooled.float()}

    def load_pipeline(self, folder: PipelineFolder) -> Any:  # noqa: ANN401 - of diffusers
        """With a transformer without weights, whose configuration the pipeline asks for."""
        library = diffusers_library("StableDiffusion3Family")
        with torch.device("meta"):
            outline = library.SD3Transformer2DModel.from_config(dict(folder.config("transformer")))
        absent = dict.fromkeys((*_LEFT_OUT, *(name for name in self.contract.optional if name not in folder.parts)))
        pipeline = library.StableDiffusion3Pipeline.from_pretrained(
            str(folder.root),
            use_safetensors=True,
            local_files_only=True,
            dtype=self.torch_dtype,
            transformer=None,
            **absent,
        )
        pipeline.register_to_config(transformer=("diffusers", "SD3Transformer2DModel"))
        pipeline.transformer = outline
        return pipeline


class FluxFamily(_FlowTransformerFamily):
    """``FluxPipeline``: a T5 encoder's tokens and a CLIP encoder's vector; the flow is shifted by the picture's size.

    Where the transformer was distilled for guidance (channel ``guidance``), it is told ``guidance``, unless the method
    says a scale itself.

    Args:
        path: pipeline: a folder, or ``owner/name`` on the hub.
        revision: commit on the hub, 40 digits.
        paths: pipelines that other roles take their transformer from, by role; folders.
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.
        max_tokens: of the T5 encoder's text.
        prompts: that samples are drawn with.
        negative_prompt: of the second call of guidance.
        unconditional: what channels become in that call; by itself ``text`` and ``pooled`` become the negative
            prompt's.
        schedule: replaces the pipeline's; None: what its scheduler says.
        timestep_range: smallest and largest time that methods use.
        dtype: of all weights.
        lora: low-rank additions, by role.
        guidance: scale that transformers which were distilled for guidance are told; None: 3.5, as by ``FluxPipeline``.

    Raises:
        ValueError: if a value is out of range, or a pipeline is not where it should be.
    """

    contract = PipelineContract(
        required=("transformer", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
        replaced=("scheduler",),
        left_out=_LEFT_OUT,
    )
    classes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "transformer": ("FluxTransformer2DModel",),
        "vae": ("AutoencoderKL",),
    }
    denoiser: ClassVar[type[DiffusersDenoiser]] = FluxTransformer

    def __init__(
        self,
        *,
        path: str,
        revision: str | None = None,
        paths: dict[str, str] | None = None,
        height: int = 1024,
        width: int = 1024,
        max_tokens: int = 256,
        prompts: tuple[str, ...] = ("a photograph",),
        negative_prompt: str = "",
        unconditional: dict[str, Unconditional] | None = None,
        schedule: NoiseSchedule | None = None,
        timestep_range: tuple[float, float] = (0.0, 1.0),
        dtype: Literal["float32", "bfloat16"] = "float32",
        lora: dict[str, Lora] | None = None,
        guidance: float | None = None,
    ) -> None:
        super().__init__(
            path=path,
            revision=revision,
            paths=paths,
            height=height,
            width=width,
            max_tokens=max_tokens,
            prompts=prompts,
            negative_prompt=negative_prompt,
            unconditional=unconditional,
            schedule=schedule,
            timestep_range=timestep_range,
            dtype=dtype,
            lora=lora,
        )
        self.guidance = guidance

    @property
    def told_guidance(self) -> float | None:
        """See :meth:`PromptedFamily.told_guidance`."""
        return _FLUX_GUIDANCE if self.guidance is None else self.guidance

    def provided(self) -> dict[str, tuple[int, ...]]:
        """T5's tokens and CLIP's vector."""
        clip, t5 = self._folder.config("text_encoder"), self._folder.config("text_encoder_2")
        return {"text": (self._max_tokens, int(t5["d_model"])), "pooled": (int(clip["hidden_size"]),)}

    def conditions(self, config: Mapping[str, Any], *, role: str) -> dict[str, tuple[int, ...]]:
        """See :meth:`neurotrain.networks.denoisers.FluxTransformer.conditions`."""
        return FluxTransformer.conditions(config, tokens=self._max_tokens)

    def encode_prompts(
        self,
        pipeline: Any,  # noqa: ANN401 - of diffusers
        prompts: list[str],
        *,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """By ``encode_prompt`` of the pipeline."""
        text, pooled, _ = pipeline.encode_prompt(prompts, None, device=device, max_sequence_length=self._max_tokens)
        return {"text": text.float(), "pooled": pooled.float()}

    def load_pipeline(self, folder: PipelineFolder) -> Any:  # noqa: ANN401 - of diffusers
        """Without its transformer."""
        return diffusers_library("FluxFamily").FluxPipeline.from_pretrained(
            str(folder.root),
            use_safetensors=True,
            local_files_only=True,
            dtype=self.torch_dtype,
            transformer=None,
            **dict.fromkeys(_LEFT_OUT),
        )
