r"""Where a transformer looked: the attention of its last layer, and attention followed through all layers.

Fused kernels never hold the weights of the softmax. They are computed here once more, from the same queries and keys
that the network hands to ``scaled_dot_product_attention``; what the network computes is left as it is, to the bit.

Shape legend: ``B`` images, ``L`` tokens, of which the last ``N`` are patches, ``Q`` tokens that ask, ``h``, ``w`` size
of the grid of patches, ``H``, ``W`` size of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from neurotrain.networks.classification import Classifier, TokenLayout

AttentionMap = Literal["attention_rollout", "last_attention"]
"""``attention_rollout``: through all layers; ``last_attention``: of the last one alone."""


def attention_rollout(attention: Sequence[Tensor]) -> Tensor:
    r"""How much of each token of the image is in each token after the last layer.

    ``\tilde{A}_L \cdots \tilde{A}_1`` with ``\tilde{A} = (A + I) / 2``: half of a token comes past the attention, by
    the shortcut.

    Args:
        attention: of each layer, first to last: ``(B, L, L)``, rows sum to 1; the mean over heads.

    Returns:
        ``(B, L, L)``, rows sum to 1.

    Raises:
        ValueError: if there is no layer, or one is not square.

    Reference:
        Abnar and Zuidema, 2020 (arXiv:2005.00928), section 4 and appendix A.1.

    Example:
        >>> attention_rollout([torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])])
        tensor([[[0.5000, 0.5000],
                 [0.0000, 1.0000]]])
    """
    if not attention or any(layer.ndim != 3 or layer.shape[1] != layer.shape[2] for layer in attention):
        shapes = [tuple(layer.shape) for layer in attention]
        raise ValueError(f"attention of shapes {shapes}: need (B, L, L) of every layer, and at least one")
    rolled: Tensor | None = None
    for layer in attention:
        own = (layer + torch.eye(layer.shape[1], device=layer.device, dtype=layer.dtype)) / 2
        rolled = own if rolled is None else own @ rolled
    assert rolled is not None
    return rolled


def recorded_attention(run: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Run a network and see each call of ``scaled_dot_product_attention``, in order.

    Args:
        run: the network on its input.

    Returns:
        What it returned, the same numbers as without this; and for each call the softmax's weights, mean over heads:
        float32 ``(B, Q, L)``.

    Example:
        >>> x = torch.zeros(1, 2, 3, 4)
        >>> recorded_attention(lambda: F.scaled_dot_product_attention(x, x, x))[1][0].shape
        torch.Size([1, 3, 3])
    """
    with _Recorder() as recorder:
        found = run()
    return found, recorder.maps


def attention_evidence(
    network: Classifier, image_BCHW: Tensor, *, kind: AttentionMap, run: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Where in each image the network's head looked, by its attention; the same for every class.

    Args:
        network: in the mode that it is in, which should be evaluation.
        image_BCHW: float ``(B, C, H, W)``.
        kind: see :data:`AttentionMap`.
        run: how the network is called, where not directly.

    Returns:
        float32 ``(B, H, W)`` in [0, 1], divided by its greatest value, enlarged bilinearly.

    Raises:
        ValueError: if the network has no attention over patches, or computes it in another way.
    """
    layout = network.token_layout()
    with torch.no_grad():
        _, maps = recorded_attention(lambda: (run or network)(image_BCHW))
        seen_BN = _seen(maps, layout, kind=kind, name=type(network).__name__)
    height, width = image_BCHW.shape[-2:]
    grid = (math.ceil(height / layout.patch[0]), math.ceil(width / layout.patch[1]))
    if grid[0] * grid[1] != seen_BN.shape[1]:
        raise ValueError(
            f"{type(network).__name__} has {seen_BN.shape[1]} patches of an image of {height} x {width}, not the "
            f"{grid[0]} x {grid[1]} of its patch size {layout.patch}"
        )
    map_B1hw = seen_BN.view(-1, 1, *grid)
    map_B1hw = map_B1hw / map_B1hw.amax((2, 3), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    # Patches first to their own size, as the last ones may reach beyond the image.
    whole = (grid[0] * layout.patch[0], grid[1] * layout.patch[1])
    return F.interpolate(map_B1hw, size=whole, mode="bilinear", align_corners=False)[:, 0, :height, :width]


def _seen(maps: list[Tensor], layout: TokenLayout, *, kind: AttentionMap, name: str) -> Tensor:
    """How much the head takes of each patch: ``(B, N)``."""
    pools = layout.read is None
    if len(maps) != layout.layers + pools:
        raise ValueError(
            f"{len(maps)} calls of scaled_dot_product_attention were seen of {name}'s {layout.layers + pools}: "
            f"{kind} needs them all (timm leaves it to TIMM_FUSED_ATTN, which must not be 0)"
        )
    layers = maps[: layout.layers]
    read_BL = _reading(maps, layout)
    if kind == "attention_rollout":
        read_BL = (read_BL[:, None] @ attention_rollout(layers))[:, 0]
    elif not pools:
        read_BL = (read_BL[:, None] @ layers[-1])[:, 0]
    # A head that pools by an attention of its own is itself the last to look.
    return read_BL[:, layout.prefix :]


def _reading(maps: list[Tensor], layout: TokenLayout) -> Tensor:
    """Shares of the tokens in what the head reads: ``(B, L)``."""
    batch, tokens = maps[0].shape[0], maps[0].shape[2]
    read_BL = maps[0].new_zeros(batch, tokens)
    if layout.read is None:
        pooled_BL = maps[-1].mean(1)
        read_BL[:, tokens - pooled_BL.shape[1] :] = pooled_BL
        return read_BL
    read_BL[:, layout.read] = 1
    return read_BL / read_BL.sum(1, keepdim=True)


class _Recorder(TorchFunctionMode):
    """Sees torch's functions as they are called, and lets them be."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.maps.append(_weights(*args, **kwargs))
        return func(*args, **kwargs)


def _weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What ``scaled_dot_product_attention`` multiplies the values with, mean over heads: float32 ``(B, Q, L)``."""
    query, key = query.detach().float(), key.detach().float()
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    logits = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        ahead = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(ahead, float("-inf"))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        logits = logits + attn_mask
    return logits.softmax(-1).mean(-3)
