"""A small U-Net for pictures of some 28 to 64 pixels.

Shape legend: ``B`` batch, ``C`` channels, ``H W`` height and width, ``E`` embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.networks.denoisers.base import Denoiser, TimeEmbedding
from neurotrain.noise import Prediction

__all__ = ["PixelUNet"]


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(next(groups for groups in (8, 4, 2, 1) if channels % groups == 0), channels)


class _Block(nn.Module):
    """Two convolutions; the embedding scales and shifts between them; starts as its shortcut."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(in_channels), _norm(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x_BCHW: Tensor, embedding_BE: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x_BCHW)))
        scale, shift = self.modulation(embedding_BE)[:, :, None, None].chunk(2, 1)
        hidden = F.silu(torch.addcmul(shift, self.norm2(hidden), 1 + scale))
        return self.shortcut(x_BCHW) + self.conv2(self.dropout(hidden))


class _Attention(nn.Module):
    """Every pixel looks at every other one; starts as the identity.

    Spelled out: the fused kernels know no forward-mode derivative, and the maps are small.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _norm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.to_out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.to_out.weight)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        batch, channels, height, width = x_BCHW.shape
        parts = self.to_qkv(self.norm(x_BCHW)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = parts.unbind(1)
        scores = query.transpose(-1, -2) @ key * (channels // self.heads) ** -0.5
        seen = value @ scores.softmax(-1).transpose(-1, -2)
        return x_BCHW + self.to_out(seen.reshape(batch, channels, height, width))


class _Level(nn.Module):
    """Blocks of one resolution, with attention behind each where wanted."""

    def __init__(self, inputs: list[int], width: int, embedding: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(before, width, embedding, dropout) for before in inputs)
        self.attention = nn.ModuleList(_Attention(width, heads) for _ in inputs) if heads else None

    def run(self, index: int, x_BCHW: Tensor, embedding_BE: Tensor) -> Tensor:
        """Go through one block."""
        hidden = self.blocks[index](x_BCHW, embedding_BE)
        return hidden if self.attention is None else self.attention[index](hidden)


@final
class PixelUNet(Denoiser):
    """Residual blocks that the time scales and shifts, pooled and widened from level to level, and back.

    Args:
        channels: C of a picture.
        widths: channels of each level; each but the first has half the resolution of the one before.
        blocks: of each level on the way down; one more on the way up.
        patch: side of the squares of pixels that are folded into channels first: 2 makes everything four times cheaper.
        attention_heads: of the attention in the last level; 0: there is none.
        embedding: width of the embedding of time and class, even.
        num_classes: number of classes; 0: there are none.
        scalars: names of further numbers that steer it, see :class:`neurotrain.networks.denoisers.TimeEmbedding`;
            ``("guidance",)`` lets a student learn guidance by its scale.
        dropout: in each block, in [0, 1).
        prediction: what it returns.

    Raises:
        ValueError: if a number is out of range.

    Reference:
        Ho et al., 2020 (arXiv:2006.11239), appendix B; scale and shift: Dhariwal and Nichol, 2021 (arXiv:2105.05233).

    Example:
        >>> network = PixelUNet(widths=(8, 8), blocks=1, embedding=8, num_classes=10)
        >>> label = torch.tensor([3, 9])
        >>> network(torch.zeros(2, 1, 28, 28), torch.tensor([0.1, 0.9]), {"label": label}).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        *,
        channels: int = 1,
        widths: tuple[int, ...] = (32, 64, 64),
        blocks: int = 2,
        patch: int = 1,
        attention_heads: int = 4,
        embedding: int = 128,
        num_classes: int = 0,
        scalars: tuple[str, ...] = (),
        dropout: float = 0.0,
        prediction: Prediction = "flow",
    ) -> None:
        super().__init__()
        if not widths or min(*widths, channels, blocks, patch) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"channels={channels}, widths={tuple(widths)}, blocks={blocks} and patch={patch} must be at least 1, "
                f"dropout={dropout} in [0, 1)"
            )
        if attention_heads < 0 or (attention_heads and widths[-1] % attention_heads):
            raise ValueError(
                f"attention_heads={attention_heads} must divide the last of widths={tuple(widths)}, or be 0"
            )
        self.prediction, self.channels, self.patch = prediction, channels, patch
        self.embedding = TimeEmbedding(width=embedding, classes=num_classes, scalars=scalars)
        self.condition = self.embedding.condition
        self.stem = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, before = [widths[0]], widths[0]
        for level, width in enumerate(widths):
            heads = attention_heads if level == len(widths) - 1 else 0
            inputs = [before] + [width] * (blocks - 1)
            self.down.append(_Level(inputs, width, embedding, heads=heads, dropout=dropout))
            skips += [width] * blocks
            before = width
        self.middle = _Block(before, before, embedding, dropout)
        for level, width in reversed(list(enumerate(widths))):
            heads = attention_heads if level == len(widths) - 1 else 0
            inputs = list[int]()
            for _ in range(blocks + (level == 0)):
                inputs.append(before + skips.pop())
                before = width
            self.up.append(_Level(inputs, width, embedding, heads=heads, dropout=dropout))
        self.norm = _norm(before)
        self.head = nn.Conv2d(before, channels * patch**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    @property
    def multiple(self) -> int:
        """What height and width must be multiples of."""
        return self.patch * 2 ** (len(self.down) - 1)

    def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        """Predict; see :meth:`Denoiser.forward`.

        Raises:
            ValueError: if a shape is wrong; height and width must be multiples of ``multiple``.
        """
        embedding, skips = self._encode(x_t, t, condition)
        hidden = self.middle(skips[-1], embedding)
        for index, level in enumerate(self.up):
            assert isinstance(level, _Level)
            for block in range(len(level.blocks)):
                hidden = level.run(block, torch.cat((hidden, skips.pop()), 1), embedding)
            if index < len(self.up) - 1:
                hidden = F.interpolate(hidden, scale_factor=2.0, mode="nearest")
        return F.pixel_shuffle(self.head(F.silu(self.norm(hidden))), self.patch)

    def features(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """Output of the last block of each level on the way down."""
        _, skips = self._encode(x_t, t, condition)
        blocks = (len(skips) - 1) // len(self.down)
        return skips[blocks::blocks]

    def _encode(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """The embedding, and the output of the stem and of each block."""
        self.check(x_t, t, condition, axes=4)
        if x_t.shape[2] % self.multiple or x_t.shape[3] % self.multiple:
            raise ValueError(f"samples of shape {tuple(x_t.shape)}: sides must be multiples of {self.multiple}")
        embedding = F.silu(self.embedding(t, condition))
        hidden = self.stem(F.pixel_unshuffle(x_t, self.patch))
        found = [hidden]
        for index, level in enumerate(self.down):
            assert isinstance(level, _Level)
            if index:
                hidden = F.avg_pool2d(hidden, 2)
            for block in range(len(level.blocks)):
                hidden = level.run(block, hidden, embedding)
                found.append(hidden)
        return embedding, found
