"""A vision-to-text model of LLaVA's class, so small that a test trains it, saved as the library saves any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ("a", "the", "cat", "dog", "red", "blue", "square", "on", "grass", "describe", "it", ":")
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
PROMPT = "<image> describe it :"


def save_tiny_llava(folder: Path, *, seed: int = 0) -> Path:
    """Write configuration, random weights in safetensors, and the processor."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(image_size=16, patch_size=8, projection_dim=16, **sizes)
    text = LlamaConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        num_key_value_heads=1,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **sizes,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=SPECIAL.index("<image>"),
        image_seq_length=4,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    # As small as it is drawn, no adapter below it could make a word probable.
    torch.nn.init.normal_(model.lm_head.weight)
    model.save_pretrained(str(folder))
    _processor().save_pretrained(str(folder))
    return folder


def _processor() -> Any:  # noqa: ANN401
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    numbers = {word: place for place, word in enumerate((*SPECIAL, *WORDS))}
    words = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
