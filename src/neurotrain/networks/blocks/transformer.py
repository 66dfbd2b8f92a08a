"""A layer of a transformer: attention to itself, to something else where there is any, and each place for itself.

Shape legend: ``B`` batch, ``L`` places, ``K`` places of the context, ``D`` width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from neurotrain.networks.blocks.attention import Attention, KeysValues, KeyValueCache
from neurotrain.networks.blocks.gates import Activation, FeedForward
from neurotrain.networks.blocks.norms import SequenceNorm, sequence_norm
from neurotrain.networks.blocks.positions import Rotary


@dataclass(frozen=True)
class LayerMemory:
    """What a layer keeps between the steps of a generation.

    Attributes:
        past: of the sequence itself.
        context: of what it attends to beside itself; None where there is nothing.
    """

    past: KeyValueCache
    context: KeysValues | None = None


@final
class TransformerLayer(nn.Module):
    """``x + self(norm(x))``, then ``x + cross(norm(x), context)`` where there is a context, then ``x + ff(norm(x))``.

    Example:
        >>> import torch
        >>> layer = TransformerLayer(width=8, heads=2, context_width=6)
        >>> layer(torch.zeros(1, 3, 8), torch.zeros(1, 5, 6), causal=True).shape
        torch.Size([1, 3, 8])

    Reference:
        Vaswani et al., 2017 (arXiv:1706.03762); norms before each part as in Xiong et al., 2020 (arXiv:2002.04745).
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        hidden: int | None = None,
        context_width: int | None = None,
        norm: SequenceNorm = "layer",
        activation: Activation = "gelu",
        dropout: float = 0.0,
        rotary: Rotary | None = None,
    ) -> None:
        """Build the layer.

        Args:
            width: D.
            heads: of both attentions.
            kv_heads: see :class:`~neurotrain.networks.blocks.attention.Attention`.
            hidden: of the part that is each place's own; None: four times the width.
            context_width: of what is attended to beside the sequence; None: there is nothing.
            norm: before each part.
            activation: of the last part.
            dropout: of what each part adds, in ``[0, 1)``.
            rotary: of the attention to itself.
        """
        super().__init__()
        self.norm1 = sequence_norm(norm, width)
        self.self_attention = Attention(width=width, heads=heads, kv_heads=kv_heads, rotary=rotary)
        self.cross_attention: Attention | None = None
        self.norm_cross: nn.Module | None = None
        if context_width is not None:
            self.norm_cross = sequence_norm(norm, width)
            self.cross_attention = Attention(width=width, heads=heads, kv_heads=kv_heads, context_width=context_width)
        self.norm2 = sequence_norm(norm, width)
        self.feed_forward = FeedForward(
            width=width, hidden=4 * width if hidden is None else hidden, activation=activation
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x_BLD: Tensor,
        context_BKD: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        causal: bool = False,
        memory: LayerMemory | None = None,
    ) -> Tensor:
        """Apply the layer.

        Args:
            x_BLD: the sequence; with ``memory`` what is new of it.
            context_BKD: what it attends to; None where ``memory`` has it, or there is nothing.
            mask: of the attention to itself, see :meth:`~neurotrain.networks.blocks.attention.Attention.attend`.
            context_mask: of that to the context.
            causal: whether no place may look ahead.
            memory: of earlier steps; extended.

        Returns:
            ``(B, L, D)``.
        """
        past = None if memory is None else memory.past
        own = self.self_attention(self.norm1(x_BLD), mask=mask, causal=causal, cache=past)
        x_BLD = x_BLD + self.dropout(own)
        if self.cross_attention is not None and self.norm_cross is not None:
            found = None if memory is None else memory.context
            if found is None:
                assert context_BKD is not None, "a layer with a context needs one"
                found = self.cross_attention.keys_values(context_BKD)
            seen = self.cross_attention.attend(self.norm_cross(x_BLD), found, mask=context_mask)
            x_BLD = x_BLD + self.dropout(seen)
        return x_BLD + self.dropout(self.feed_forward(self.norm2(x_BLD)))

    def memory(self, context_BKD: Tensor | None = None, *, capacity: int) -> LayerMemory:
        """Memory for a generation of at most ``capacity`` places; the context is projected once."""
        found = None
        if self.cross_attention is not None:
            assert context_BKD is not None, "a layer with a context needs one"
            found = self.cross_attention.keys_values(context_BKD)
        return LayerMemory(KeyValueCache(capacity=capacity), found)
