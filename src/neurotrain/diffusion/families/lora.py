"""Low-rank adaptation of any role, by peft, and what a run leaves of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from neurotrain.storage.extras import require

__all__ = ["Lora", "add_lora", "merged", "save_lora"]

_NAME = "default"


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A low-rank addition to linear layers and convolutions: ``W + (alpha / rank) B A``; the rest is frozen.

    Args:
        rank: of the addition.
        alpha: its scale is ``alpha / rank``; None: ``rank``.
        dropout: of its input, in [0, 1).
        targets: ends of the names of the layers that are adapted.

    Raises:
        ValueError: if a value is out of range.

    Reference:
        Hu et al., 2021 (arXiv:2106.09685).
    """

    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    @property
    def numerator(self) -> float:
        """``alpha``, or the rank."""
        return self.rank if self.alpha is None else self.alpha

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.rank < 1 or not 0 <= self.dropout < 1 or not self.targets:
            raise ValueError(
                f"rank={self.rank} must be at least 1, dropout={self.dropout} in [0, 1), "
                f"targets={self.targets} not empty"
            )


def add_lora(model: nn.Module, lora: Lora, *, role: str) -> None:
    """Add it in place; at first it changes nothing, and nothing else is trained from here on.

    Args:
        model: network, or model of diffusers.
        lora: what to add.
        role: for messages.

    Raises:
        ValueError: if no layer has a name with one of the ends.
    """
    require("peft", extra="diffusion", purpose=f"lora of role {role!r}")
    from peft import LoraConfig, inject_adapter_in_model

    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for target in lora.targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            some = ", ".join(sorted({name.rpartition(".")[2] for name in layers})[:12])
            raise ValueError(f"lora of role {role!r}: no layer is called {target!r}; layers end in {some}")
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.numerator,  # pyright: ignore[reportArgumentType]
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        init_lora_weights=True,
    )
    model.requires_grad_(False)
    inject_adapter_in_model(config, model, adapter_name=_NAME)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def merged(model: nn.Module) -> None:
    """Add the low-rank weights to the ones that they adapt, in place, and take them out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, module.get_base_layer())


def save_lora(model: nn.Module, folder: Path, *, lora: Lora, part: str) -> Path:
    """Write the addition apart, as ``pipeline.load_lora_weights`` of diffusers reads it.

    Args:
        model: of diffusers, with the addition.
        folder: to write in; is made.
        lora: its settings, which go into the file's metadata: the scale is theirs.
        part: of the pipeline that the model is: ``unet`` or ``transformer``.

    Returns:
        The file.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pytorch_lora_weights.safetensors"
    settings = {"r": lora.rank, "lora_alpha": lora.numerator, "target_modules": sorted(lora.targets)}
    told = {f"{part}.{name}": value for name, value in settings.items()}
    state = get_peft_model_state_dict(model, adapter_name=_NAME)
    tensors = {f"{part}.{name}": value.detach().contiguous().cpu() for name, value in state.items()}
    save_file(tensors, path, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(told)})
    return path
