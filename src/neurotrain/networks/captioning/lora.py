"""Low-rank adapters in the linear layers of a model, by the library that has them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from neurotrain.storage.extras import require


@final
@dataclass(frozen=True, kw_only=True)
class Lora:
    """Which linear layers get an adapter, and of what size: ``W x + alpha / rank * B A x``.

    Attributes:
        rank: of the product of ``B`` and ``A``.
        alpha: of its weight.
        dropout: before ``A``, in ``[0, 1)``.
        targets: last names of the layers.
        within: part of the model that they lie in; None: all of it.

    Raises:
        ValueError: if a number is out of range, or there is no target.

    Reference:
        Hu et al., 2021 (arXiv:2106.09685), section 4.1.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    within: str | None = "language_model"

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1 or not self.targets:
            raise ValueError(
                f"rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}, targets={self.targets}: need at least "
                "1, above 0, [0, 1), and one target"
            )


def add_lora(model: nn.Module, lora: Lora, *, trained: Sequence[str]) -> nn.Module:
    """Freeze a model but for ``trained``, and give it adapters, which begin as zero.

    Args:
        model: of transformers.
        lora: where and how.
        trained: names of parts that learn as they are.

    Returns:
        ``peft``'s model around it.

    Raises:
        ValueError: if no layer is a target, or a part is not there.
        ImportError: if peft is not installed.
    """
    require("peft", extra="vision-language", purpose="Lora")
    from peft import LoraConfig, get_peft_model

    chosen = lora_layers(model, lora)
    for part in trained:
        _check_part(model, part)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType] - a float works as well
        lora_dropout=lora.dropout,
        target_modules=chosen,
        modules_to_save=list(trained) or None,
    )
    return get_peft_model(model, config)  # pyright: ignore[reportArgumentType] - a model of transformers


def lora_layers(model: nn.Module, lora: Lora) -> list[str]:
    """Names of the linear layers that get an adapter.

    Raises:
        ValueError: if there is none; names what there is.

    Example:
        >>> inner = nn.ModuleDict({"q_proj": nn.Linear(2, 2)})
        >>> model = nn.ModuleDict({"language_model": inner, "q_proj": nn.Linear(2, 2)})
        >>> lora_layers(model, Lora())
        ['language_model.q_proj']
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    inside = [name for name in linear if lora.within is None or lora.within in name.split(".")]
    found = [name for name in inside if name.rpartition(".")[2] in lora.targets]
    if not found:
        there = sorted({name.rpartition(".")[2] for name in (inside or linear)})
        raise ValueError(
            f"targets={lora.targets}, within={lora.within!r}: no linear layer is called so, only {', '.join(there)}"
        )
    return found


def learn_only(model: nn.Module, parts: Sequence[str]) -> None:
    """Freeze everything but some parts.

    Args:
        model: to freeze.
        parts: names, each of a module anywhere in it.

    Raises:
        ValueError: if a part is not there.
    """
    for part in parts:
        _check_part(model, part)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name.split(".") for part in parts))


def _check_part(model: nn.Module, part: str) -> None:
    known = {step for name, _ in model.named_modules() for step in name.split(".") if step and not step.isdigit()}
    if part not in known:
        near = difflib.get_close_matches(part, known, n=3, cutoff=0.3) or sorted(known)[:3]
        raise ValueError(f"trained={part!r}: the model has no such part; nearest: {', '.join(near)}")
