"""Adapter to the vision-to-text models of Hugging Face: those of LLaVA's class, trained whole, in part or by LoRA.

Shape legend: ``B`` images, ``P`` tokens of the prompt with those that stand for the image, ``L`` tokens of a caption.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from neurotrain.networks.blocks import check_choice
from neurotrain.networks.captioning.base import Captioner, told_tokens
from neurotrain.networks.captioning.huggingface_files import (
    ProcessorTokenizer,
    fingerprint,
    image_token_of,
    load_model,
    load_processor,
    local_folder,
)
from neurotrain.networks.captioning.lora import Lora, add_lora, learn_only

Precision = Literal["float32", "bfloat16", "float16"]
"""What the weights are kept in, but for those of LoRA, which are float32."""

_PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")
"""What a processor may say of each token of a prompt; all of a caption's are text, which is 0 in the last one."""

_DIGEST = "base"


@final
class HuggingFaceCaptioner(Captioner):
    """A model of ``AutoModelForImageTextToText`` with its processor: the prompt goes before, the caption is learned.

    Images are uint8, as they were decoded (no transform): the model's own processor scales and normalises them. Weights
    that do not learn are not in a run's checkpoints, which then hold LoRA's few; they are taken from ``path`` again,
    and a checkpoint of other ones is refused.

    Args:
        path: a folder as ``save_pretrained`` writes it, or ``owner/name`` on the hub; safetensors only, no code of
            theirs is run.
        revision: commit on the hub, 40 digits.
        prompt: before the caption; holds the model's image token once.
        length: most tokens of a caption, start and end included.
        lora: of which linear layers; None: there is none.
        trained: names of parts that learn beside LoRA (``multi_modal_projector``); None: all where there is no LoRA,
            and nothing else where there is one.
        precision: see :data:`Precision`.

    Raises:
        ValueError: if the folder or the name is none, a name is not pinned, the prompt lacks the image token, a part is
            not there, or the processor says of each token what cannot be continued.
        FileNotFoundError: if there are no weights in safetensors.
        ImportError: if transformers or peft is not installed.

    Reference:
        Liu et al., 2023 (arXiv:2304.08485); Hu et al., 2021 (arXiv:2106.09685).
    """

    def __init__(
        self,
        *,
        path: str,
        revision: str | None = None,
        prompt: str = "USER: <image>\nDescribe the image in one sentence. ASSISTANT:",
        length: int = 64,
        lora: Lora | None = None,
        trained: tuple[str, ...] | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        check_choice("precision", precision, ("float32", "bfloat16", "float16"))
        if length < 3:
            raise ValueError(f"length={length}: must be at least 3")
        self._folder = local_folder(path, revision=revision)
        self._processor = load_processor(self._folder)
        image_token = image_token_of(self._processor)
        if prompt.count(image_token) != 1:
            raise ValueError(f"prompt={prompt!r}: must hold {image_token!r}, which stands for the image, once")
        self.prompt, self.length = prompt, length
        self.tokenizer = ProcessorTokenizer(self._processor.tokenizer)
        self.model = load_model(self._folder, dtype=getattr(torch, precision))
        self._lora = lora
        if lora is not None:
            self.model = add_lora(self.model, lora, trained=trained or ())
        elif trained is not None:
            learn_only(self.model, trained)
        self.model.train()  # it comes in evaluation mode, where LoRA's dropout would be off
        self._digest: str | None = None
        self.register_state_dict_post_hook(_without_frozen)
        self.register_load_state_dict_pre_hook(_with_frozen)

    def forward(self, image_BCHW: Tensor, tokens_BL: Tensor) -> Tensor:
        """Logits of each next token, see :meth:`Captioner.forward`.

        Raises:
            ValueError: if the image is not uint8 of three channels.
        """
        inputs = self._prompted(image_BCHW)
        caption_BL, valid_BL = tokens_BL[:, 1:-1], told_tokens(tokens_BL, end=self.tokenizer.end)[:, 1:-1]
        before = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat((inputs["input_ids"], caption_BL), dim=1)
        inputs["attention_mask"] = torch.cat((inputs["attention_mask"], valid_BL.to(inputs["attention_mask"])), dim=1)
        if "mm_token_type_ids" in inputs:
            kinds = inputs["mm_token_type_ids"]
            inputs["mm_token_type_ids"] = torch.cat((kinds, kinds.new_zeros(caption_BL.shape)), dim=1)
        return self.model(**inputs, use_cache=False).logits[:, before - 1 :]

    @torch.no_grad()
    def generate(self, image_BCHW: Tensor, *, beams: int = 1, length_penalty: float = 1.0) -> list[str]:
        """Write captions by the library's own search, see :meth:`Captioner.generate`.

        Raises:
            ValueError: if the image is not uint8 of three channels.
        """
        from transformers import GenerationConfig

        inputs = self._prompted(image_BCHW)
        settings = GenerationConfig(
            max_new_tokens=self.length - 1,
            do_sample=False,
            num_beams=beams,
            length_penalty=length_penalty if beams > 1 else None,
            eos_token_id=self.tokenizer.end,
            pad_token_id=self.tokenizer.pad,
        )
        model: Any = self.model
        found = model.generate(**inputs, generation_config=settings)
        return [self.tokenizer.decode(row) for row in found[:, inputs["input_ids"].shape[1] :].tolist()]

    def export(self, folder: Path, *, merged: bool = True) -> None:
        """Write what was learned as the library reads it, in safetensors.

        Args:
            folder: to write into.
            merged: the whole model with its processor, LoRA added to the weights that it belongs to (for which the
                model is copied in memory); otherwise LoRA alone, for ``peft``.

        Raises:
            ValueError: if LoRA alone is wanted and there is none.
        """
        if self._lora is None and not merged:
            raise ValueError("merged=false: there is no LoRA that could be written alone")
        model: Any = self.model
        if self._lora is not None and merged:
            model = copy.deepcopy(model).merge_and_unload()
        model.save_pretrained(str(folder))
        if merged:
            self._processor.save_pretrained(str(folder))

    def get_extra_state(self) -> dict[str, Any]:
        """Which weights those that are left out were: a digest of their files."""
        if self._digest is None:
            self._digest = fingerprint(self._folder)
        return {_DIGEST: self._digest}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Check that a checkpoint belongs to these weights.

        Raises:
            ValueError: if it does not.
        """
        if dict(state) != self.get_extra_state():
            raise ValueError(f"the checkpoint was trained on other weights than those in {self._folder}")

    def _prompted(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Images and prompt as the model takes them."""
        if image_BCHW.ndim != 4 or image_BCHW.shape[1] != 3 or image_BCHW.dtype != torch.uint8:
            raise ValueError(
                f"image {image_BCHW.dtype} {tuple(image_BCHW.shape)}: expected uint8 (batch, 3, height, width), as "
                "decoded; set train_transform and eval_transform of the data to null"
            )
        found = self._processor(
            images=list(image_BCHW.cpu()), text=[self.prompt] * len(image_BCHW), return_tensors="pt", padding=True
        )
        tokens = found["input_ids"].shape
        for name, value in found.items():
            if name not in _PER_TOKEN and value.shape == tokens:
                raise ValueError(
                    f"{type(self._processor).__name__} gives {name!r}, which is not continued over captions"
                )
        device, dtype = image_BCHW.device, next(self.model.parameters()).dtype
        return {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in found.items()
        }


def _without_frozen(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    """Leave out of a state what does not learn."""
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            state.pop(prefix + name, None)


def _with_frozen(
    module: nn.Module,
    state: dict[str, Any],
    prefix: str,
    metadata: dict[str, Any],
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Give a state what was left out: what the module has."""
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            state.setdefault(prefix + name, parameter.data)
