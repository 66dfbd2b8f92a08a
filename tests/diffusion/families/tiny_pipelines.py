"""Randomly initialised pipelines of a few hundred kilobytes, saved as diffusers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ("<s>", "</s>", "<unk>", "a", "red", "fox", "picture", "of", "0", "1")
TOKENS = 8
_SCALED: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}


def quiet() -> None:
    """No progress bars of either library."""
    from diffusers.utils import logging as ours
    from transformers.utils import logging as theirs

    ours.disable_progress_bar()
    theirs.disable_progress_bar()


def save_pixels(folder: Path, *, classes: int | None = None, prediction: str = "epsilon", channels: int = 1) -> Path:
    """``DDPMPipeline`` of pictures of 8 by 8."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    quiet()
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        num_class_embeds=classes,
    )
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=prediction)
    DDPMPipeline(unet=unet, scheduler=scheduler).save_pretrained(folder, safe_serialization=True)
    return folder


def save_stable_diffusion(
    folder: Path, *, seed: int = 0, schedule: dict[str, Any] | None = None, scaling_factor: float = 0.5
) -> Path:
    """``StableDiffusionPipeline`` of pictures of 16 by 16: latents of 4 by 8 by 8."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    quiet()
    clip = text_encoder(seed=seed, width=8)
    pipeline: Any = StableDiffusionPipeline(
        unet=conditional_unet(seed=seed, width=8),
        vae=autoencoder(seed=seed, scaling_factor=scaling_factor),
        text_encoder=clip,
        tokenizer=tokenizer(),
        scheduler=DDIMScheduler(**(_SCALED if schedule is None else schedule), clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def save_xl(folder: Path) -> Path:
    """``StableDiffusionXLPipeline`` with encoders of 8 and 12 numbers a token."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    quiet()
    more = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 6 * 4 + 6,
    }
    pipeline: Any = StableDiffusionXLPipeline(
        unet=conditional_unet(seed=0, width=20, more=more),
        vae=autoencoder(seed=0, scaling_factor=0.13025),
        text_encoder=text_encoder(seed=0, width=8),
        text_encoder_2=text_encoder(seed=1, width=12, projection=6),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        scheduler=EulerDiscreteScheduler(**_SCALED),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def save_sd3(folder: Path, *, third: bool = True) -> Path:
    """``StableDiffusion3Pipeline`` with two CLIP encoders and, where wanted, a T5 encoder."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    quiet()
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=24,
        caption_projection_dim=16,
        pooled_projection_dim=6 + 6,
        pos_embed_max_size=8,
    )
    pipeline: Any = StableDiffusion3Pipeline(
        transformer=transformer,
        vae=autoencoder(seed=0, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=text_encoder(seed=0, width=8, projection=6),
        text_encoder_2=text_encoder(seed=1, width=12, projection=6),
        text_encoder_3=t5(width=24) if third else None,
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        tokenizer_3=tokenizer() if third else None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def save_flux(folder: Path, *, guided: bool = False) -> Path:
    """``FluxPipeline``: CLIP's vector and T5's tokens."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    quiet()
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=8,
        guidance_embeds=guided,
        axes_dims_rope=(4, 6, 6),
    )
    pipeline: Any = FluxPipeline(
        transformer=transformer,
        vae=autoencoder(seed=0, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=text_encoder(seed=0, width=8),
        text_encoder_2=t5(width=24),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def save_wan(folder: Path, *, seed: int = 0, frames_a_token: int = 1) -> Path:
    """``WanPipeline`` of videos of 5 frames of 16 by 16: latents of 4 by 2 by 2 by 2; its scheduler as released."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    quiet()
    torch.manual_seed(seed)
    transformer = WanTransformer3DModel(
        patch_size=(frames_a_token, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 1.5, 1.0, 2.0],
    )
    text = UMT5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=1)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipeline: Any = WanPipeline(
        transformer=transformer,
        vae=vae,
        text_encoder=UMT5EncoderModel(text),
        tokenizer=tokenizer(),
        scheduler=scheduler,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def conditional_unet(*, seed: int, width: int, more: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
    """``UNet2DConditionModel`` on latents of 4 channels."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=2,
        **(more or {}),
    )


def autoencoder(*, seed: int, scaling_factor: float, shift_factor: float | None = None) -> Any:  # noqa: ANN401
    """``AutoencoderKL`` that halves once: latents of 4 channels."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        sample_size=16,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
    )


def text_encoder(*, seed: int, width: int, projection: int | None = None) -> Any:  # noqa: ANN401
    """A CLIP text model of two layers, with a projection where wanted."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        projection_dim=width if projection is None else projection,
    )
    return CLIPTextModel(config) if projection is None else CLIPTextModelWithProjection(config)


def t5(*, width: int) -> Any:  # noqa: ANN401
    """A T5 encoder of one layer."""
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(3)
    config = T5Config(vocab_size=len(WORDS), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=1)
    return T5EncoderModel(config)


def tokenizer() -> Any:  # noqa: ANN401
    """Ten words, eight tokens a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    words.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        pad_token="</s>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=TOKENS,
    )
