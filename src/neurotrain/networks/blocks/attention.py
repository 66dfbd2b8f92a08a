"""Multi-head attention through torch's fused kernels: of a sequence to itself or to another, with shared heads.

Shape legend: ``B`` batch, ``Q`` places that ask, ``K`` places that are looked at, ``D`` width, ``H`` heads, ``G`` heads
of keys and values, ``d`` width of a head.
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.networks.blocks.positions import Rotary


class KeysValues(NamedTuple):
    """What is looked at.

    Attributes:
        keys: ``(B, G, K, d)``.
        values: ``(B, G, K, d)``.
    """

    keys: Tensor
    values: Tensor


@final
class KeyValueCache:
    """Keys and values of the places so far, in memory that is taken once; for generation, where nothing is learnt.

    Args:
        capacity: places that there is room for.

    Raises:
        ValueError: if it is below 1.

    Example:
        >>> cache = KeyValueCache(capacity=3)
        >>> new = KeysValues(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4))
        >>> _ = cache.extend(new)
        >>> cache.extend(new).keys.shape, cache.length
        (torch.Size([1, 2, 2, 4]), 2)
    """

    def __init__(self, *, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity={capacity}: must be at least 1")
        self._capacity = capacity
        self._memory: KeysValues | None = None
        self.length = 0

    def extend(self, new: KeysValues) -> KeysValues:
        """Add places.

        Args:
            new: of these places.

        Returns:
            A view of all places so far.

        Raises:
            ValueError: if there is no room for them.
        """
        end = self.length + new.keys.shape[2]
        if end > self._capacity:
            raise ValueError(f"{end} places do not fit into a cache of capacity={self._capacity}")
        if self._memory is None:
            shape = (*new.keys.shape[:2], self._capacity, new.keys.shape[3])
            self._memory = KeysValues(new.keys.new_empty(shape), new.values.new_empty(shape))
        for memory, added in zip(self._memory, new, strict=True):
            memory[:, :, self.length : end] = added
        self.length = end
        return KeysValues(*(memory[:, :, :end] for memory in self._memory))

    def reorder(self, rows: Tensor) -> None:
        """Let row ``i`` be what row ``rows[i]`` was, as a beam search needs it.

        Args:
            rows: integers, one for each row that there shall be.
        """
        if self._memory is not None:
            self._memory = KeysValues(*(memory.index_select(0, rows) for memory in self._memory))


@final
class Attention(nn.Module):
    r"""``softmax(q k^T / sqrt(d) + mask) v`` in several heads, between a projection of each and one of the result.

    Of a sequence to itself (``forward(x)``), to another one (``forward(x, context)``), or to keys and values that are
    already there (``attend``). With fewer heads for keys and values than for queries, groups of queries share them.

    Example:
        >>> layer = Attention(width=8, heads=4, kv_heads=2)
        >>> layer(torch.zeros(2, 5, 8), causal=True).shape
        torch.Size([2, 5, 8])

    Reference:
        Vaswani et al., 2017 (arXiv:1706.03762), section 3.2; Ainslie et al., 2023 (arXiv:2305.13245) for shared heads.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        context_width: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        rotary: Rotary | None = None,
    ) -> None:
        """Build the layer.

        Args:
            width: D of the input and the output.
            heads: H, a divisor of the width.
            kv_heads: G, a divisor of ``heads``; None: as many.
            context_width: width of what is looked at; None: D.
            bias: whether the four projections have one.
            dropout: probability in ``[0, 1)`` that a weight of the softmax is dropped in training.
            rotary: turns queries and keys by their places; None: they are as projected.

        Raises:
            ValueError: if the numbers do not fit together.
        """
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if min(width, heads, kv_heads) < 1 or width % heads or heads % kv_heads:
            raise ValueError(
                f"width={width}, heads={heads}, kv_heads={kv_heads}: heads must divide width, kv_heads heads"
            )
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout} must be in [0, 1)")
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, width // heads
        if rotary is not None and rotary.width != self.head_width:
            raise ValueError(f"rotary.width={rotary.width}: a head is {self.head_width} wide")
        self.dropout = dropout
        self.rotary = rotary
        context_width = width if context_width is None else context_width
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(context_width, kv_heads * self.head_width, bias=bias)
        self.value = nn.Linear(context_width, kv_heads * self.head_width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(
        self,
        x_BQD: Tensor,
        context_BKD: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Attend to the sequence itself, or to ``context_BKD``.

        Args:
            x_BQD: what asks.
            context_BKD: what is looked at; None: ``x_BQD``, and what ``cache`` holds before it.
            mask: see :meth:`attend`.
            causal: see :meth:`attend`.
            cache: of earlier places of the same sequence; extended by these.

        Returns:
            ``(B, Q, D)``.
        """
        assert cache is None or context_BKD is None, "a cache belongs to the sequence itself"
        start = 0 if cache is None else cache.length
        found = self.keys_values(x_BQD if context_BKD is None else context_BKD, start=start)
        if cache is not None:
            found = cache.extend(found)
        return self.attend(x_BQD, found, mask=mask, causal=causal, start=start)

    def keys_values(self, context_BKD: Tensor, *, start: int = 0) -> KeysValues:
        """Project what is looked at, once for several calls of :meth:`attend`.

        Args:
            context_BKD: ``(B, K, context_width)``.
            start: place of the first of them, for ``rotary``.
        """
        keys, values = (self._split(layer(context_BKD), self.kv_heads) for layer in (self.key, self.value))
        if self.rotary is not None:
            keys = self.rotary(keys, start=start)
        return KeysValues(keys, values)

    def attend(
        self, x_BQD: Tensor, found: KeysValues, *, mask: Tensor | None = None, causal: bool = False, start: int = 0
    ) -> Tensor:
        """Look at keys and values.

        Args:
            x_BQD: what asks.
            found: what is looked at.
            mask: what broadcasts to ``(B, H, Q, K)``: bool, True where looking is allowed (somewhere in each row), or
                floats that are added to the logits.
            causal: whether the last of ``x_BQD`` stands at the last place of ``found`` and none may look ahead.
            start: place of the first of ``x_BQD``, for ``rotary``.

        Returns:
            ``(B, Q, D)``.
        """
        queries = self._split(self.query(x_BQD), self.heads)
        if self.rotary is not None:
            queries = self.rotary(queries, start=start)
        asking, there = queries.shape[2], found.keys.shape[2]
        plain = mask is None and asking == there
        if causal and not plain and asking > 1:
            mask = _with_past(mask, asking, there, queries.device)
        mixed = F.scaled_dot_product_attention(
            queries,
            *found,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal and plain and asking > 1,
            enable_gqa=self.kv_heads != self.heads,
        )
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x_BKD: Tensor, heads: int) -> Tensor:
        return x_BKD.unflatten(2, (heads, self.head_width)).transpose(1, 2)


def _with_past(mask: Tensor | None, asking: int, there: int, device: torch.device) -> Tensor:
    """The mask, and no look ahead of the own place, the last of which is the last that is there."""
    past_QK = torch.ones(asking, there, dtype=torch.bool, device=device).tril(there - asking)
    if mask is None:
        return past_QK
    return mask & past_QK if mask.dtype == torch.bool else mask.masked_fill(~past_QK, float("-inf"))
