"""A transformer that encodes texts.

Shape legend: ``B`` texts, ``L`` tokens, ``D`` width, ``h`` heads, ``d`` width of a head.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, final, get_args

import torch
from torch import Tensor, nn

from neurotrain.networks.blocks import PackedLayer
from neurotrain.networks.text.tokenizer import Tokenizer

Pooling = Literal["end", "mean"]
"""``end``: the feature at the end token; ``mean``: over all tokens of the text, start and end included."""


class TextFeatures(NamedTuple):
    """What a text encoder returns.

    Attributes:
        sequence: ``(B, L, D)``; of no meaning on padding.
        valid: bool ``(B, L)``; False on padding.
        pooled: ``(B, D)``.
    """

    sequence: Tensor
    valid: Tensor
    pooled: Tensor


@final
class TextTransformer(nn.Module):
    """Token and learned position embeddings, pre-norm blocks, a last norm; a text's features do not see its padding.

    The vocabulary is part of its state: whoever loads the weights has it.

    Args:
        tokenizer: of the texts; its size gives the rows of the embedding.
        width: D.
        layers: number of blocks.
        heads: of each attention; divides ``width``.
        length: most tokens of a text, start and end included.
        mlp_ratio: hidden width of a block's perceptron, in widths.
        dropout: after each part of a block, in [0, 1).
        causal: whether a token sees only those before it, as in CLIP.
        pooling: how a text becomes one feature.

    Raises:
        ValueError: if a number is out of range, or ``heads`` does not divide ``width``.

    Reference:
        Radford et al., 2021 (arXiv:2103.00020), section 2.4; initialisation as in its code.

    Example:
        >>> from neurotrain.networks.text import WordTokenizer
        >>> encoder = TextTransformer(tokenizer=WordTokenizer(size=300), width=8, layers=1, heads=2)
        >>> encoder(encoder.tokenize(["a cat", "a"])).pooled.shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        width: int = 256,
        layers: int = 4,
        heads: int = 4,
        length: int = 64,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        causal: bool = True,
        pooling: Pooling = "end",
    ) -> None:
        super().__init__()
        if min(width, layers, heads) < 1 or width % heads or length < 3 or mlp_ratio <= 0 or not 0 <= dropout < 1:
            raise ValueError(
                f"width={width}, layers={layers}, heads={heads}, length={length}, mlp_ratio={mlp_ratio}, "
                f"dropout={dropout}: need positive numbers, heads that divide the width, a length of at least 3, "
                "dropout in [0, 1)"
            )
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling={pooling!r}: must be one of {', '.join(map(repr, get_args(Pooling)))}")
        self.tokenizer, self.width, self.length = tokenizer, width, length
        self._pooling: Pooling = pooling
        self.tokens = nn.Embedding(tokenizer.size, width)
        self.positions = nn.Parameter(torch.empty(length, width))
        hidden = round(width * mlp_ratio)
        self.blocks = nn.ModuleList(
            PackedLayer(width=width, heads=heads, hidden=hidden, dropout=dropout, causal=causal) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self._initialize(width, layers)

    def tokenize(self, texts: list[str]) -> Tensor:
        """Tokens int64 ``(B, L)`` on the CPU; a text that is too long loses its end."""
        return self.tokenizer.batch(texts, length=self.length)

    def forward(self, tokens_BL: Tensor) -> TextFeatures:
        """Encode texts.

        Args:
            tokens_BL: int64, of :meth:`tokenize`: each row has an end token, and what follows the first is padding.

        Returns:
            Features of each token and each text.

        Raises:
            ValueError: if there are more tokens than ``length``.
        """
        if tokens_BL.ndim != 2 or tokens_BL.shape[1] > self.length:
            raise ValueError(f"tokens of shape {tuple(tokens_BL.shape)}: expected (texts, at most {self.length})")
        ends_BL = tokens_BL == self.tokenizer.end
        end_B = ends_BL.int().argmax(1)
        place_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
        valid_BL = place_L <= end_B[:, None]
        x_BLD = self.tokens(tokens_BL) + self.positions[: tokens_BL.shape[1]]
        for block in self.blocks:
            x_BLD = block(x_BLD, valid_BL)
        x_BLD = self.norm(x_BLD)
        if self._pooling == "end":
            pooled_BD = x_BLD.gather(1, end_B[:, None, None].expand(-1, 1, self.width)).squeeze(1)
        else:
            weights_BL = valid_BL.to(x_BLD.dtype)
            pooled_BD = (x_BLD * weights_BL[..., None]).sum(1) / weights_BL.sum(1, keepdim=True)
        return TextFeatures(x_BLD, valid_BL, pooled_BD)

    def get_extra_state(self) -> dict[str, Any]:
        """The vocabulary, which a checkpoint carries beside the weights that belong to it."""
        return self.tokenizer.state()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over the vocabulary of a checkpoint.

        Raises:
            ValueError: if it is of another tokenizer.
        """
        self.tokenizer.load_state(state)

    def _initialize(self, width: int, layers: int) -> None:
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        for block in self.blocks:
            assert isinstance(block, PackedLayer)
            nn.init.normal_(block.qkv.weight, std=width**-0.5)
            nn.init.normal_(block.out.weight, std=(2 * layers * width) ** -0.5)
            nn.init.normal_(block.rise.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.fall.weight, std=(2 * layers * width) ** -0.5)
            for layer in (block.qkv, block.out, block.rise, block.fall):
                nn.init.zeros_(layer.bias)
