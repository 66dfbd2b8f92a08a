"""A layer of a text transformer as CLIP's, whose queries, keys and values are one projection.

Shape legend: ``B`` texts, ``L`` tokens, ``D`` width, ``h`` heads, ``d`` width of a head.
"""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn


@final
class PackedLayer(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a shortcut; queries, keys and values come together.

    Args:
        width: D.
        heads: of the attention; a divisor of the width.
        hidden: of the perceptron.
        dropout: after each part, in [0, 1).
        causal: whether a token sees only those before it.
    """

    def __init__(self, *, width: int, heads: int, hidden: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.heads, self._causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.rise, self.fall = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, valid_BL: Tensor) -> Tensor:
        """Apply the block; ``valid_BL`` is False on padding."""
        x_BLD = x_BLD + self.drop(self._attend(self.norm1(x_BLD), valid_BL))
        return x_BLD + self.drop(self.fall(F.gelu(self.rise(self.norm2(x_BLD)))))

    def _attend(self, x_BLD: Tensor, valid_BL: Tensor) -> Tensor:
        q, k, v = self.qkv(x_BLD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # Padding comes last: before it, a causal attention sees none of it and needs no mask.
        mask = None if self._causal else valid_BL[:, None, None, :]
        y_BhLd = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self._causal)
        return self.out(y_BhLd.transpose(1, 2).flatten(2))
