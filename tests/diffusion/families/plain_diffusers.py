"""Samples of saved pipelines by diffusers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_pipelines import TOKENS, quiet
from torch import Tensor

PROMPTS = ("a red fox", "a picture of 0")


def loaded(folder: Path, *, lora: Path | None = None) -> Any:  # noqa: ANN401 - of diffusers
    """The pipeline, as anybody loads it."""
    from diffusers import DiffusionPipeline

    quiet()
    pipeline: Any = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    if lora is not None:
        pipeline.load_lora_weights(lora)
    return pipeline


def pictures(
    pipeline: Any,  # noqa: ANN401 - of diffusers
    noise: Tensor,
    *,
    steps: int,
    guidance: float = 1.0,
    told: float | None = None,
) -> Tensor:
    """Pictures ``(B, 3, H, W)`` of 16 by 16 pixels.

    Args:
        pipeline: of Stable Diffusion or Flux.
        noise: latents.
        steps: calls of the denoiser.
        guidance: scale of the second call.
        told: scale that a denoiser is told which was distilled for it; no second call then.
    """
    kind = type(pipeline).__name__
    more: dict[str, Any] = {"negative_prompt": [""] * len(PROMPTS)} if guidance > 1 else {}
    if kind in ("StableDiffusion3Pipeline", "FluxPipeline"):
        more |= {"sigmas": np.linspace(1, 1 / steps, steps).tolist(), "max_sequence_length": TOKENS}
    if kind == "FluxPipeline":
        more |= {"true_cfg_scale": guidance}
        tokens: Any = type(pipeline)._pack_latents(noise, *noise.shape)  # what it is given, it takes as packed
        noise = tokens
    else:
        more |= {"guidance_scale": guidance}
    if told is not None:
        more |= {"guidance_scale": told}
    made = pipeline(
        prompt=list(PROMPTS), height=16, width=16, latents=noise, num_inference_steps=steps, output_type="np", **more
    )
    return torch.from_numpy(made.images).movedim(-1, 1)


def videos(
    pipeline: Any,  # noqa: ANN401 - of diffusers
    noise: Tensor,
    *,
    steps: int,
    guidance: float = 1.0,
    frames: int = 5,
) -> Tensor:
    """Videos ``(B, 3, T, H, W)`` of 16 by 16 pixels."""
    made = pipeline(
        prompt=list(PROMPTS),
        negative_prompt=[""] * len(PROMPTS),
        num_frames=frames,
        height=16,
        width=16,
        latents=noise,
        num_inference_steps=steps,
        guidance_scale=guidance,
        max_sequence_length=TOKENS,
        output_type="np",
    )
    return torch.from_numpy(made.frames).movedim(-1, 1)


def unconditional(
    pipeline: Any,  # noqa: ANN401 - of diffusers
    *,
    steps: int,
    seed: int,
) -> Tensor:
    """Two pictures of a ``DDIMPipeline``, which draws its noise itself."""
    generator = torch.Generator().manual_seed(seed)
    made = pipeline(batch_size=2, num_inference_steps=steps, generator=generator, output_type="np")
    return torch.from_numpy(made.images).movedim(-1, 1)
