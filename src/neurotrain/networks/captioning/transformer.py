"""A small captioner of one's own: an image encoder of timm, and a transformer that writes while it looks at the image.

Shape legend: ``B`` images, ``P`` places of the image's features, ``L`` tokens, ``D`` width, ``V`` tokens there are,
``N`` rows of a generation.
"""

from __future__ import annotations

from typing import Any, Self, final

import torch
from torch import Tensor, nn

from neurotrain.networks.blocks import (
    Activation,
    LayerMemory,
    LearnedPositions,
    SequenceNorm,
    TransformerLayer,
    grid_positions,
    sequence_norm,
)
from neurotrain.networks.captioning.base import Captioner
from neurotrain.networks.captioning.decoding import Marks, beam_search, greedy_search
from neurotrain.networks.classification import Timm
from neurotrain.networks.text import Tokenizer


@final
class TransformerCaptioner(Captioner):
    """Features of an image, and a decoder with causal attention to the words so far and cross-attention to the image.

    The map of features before the pooling of any network of timm (or the tokens of a vision transformer) is projected
    to the decoder's width; a map gets the sinusoids of its places. Embedding and last layer share their weights. The
    vocabulary is part of the state: whoever loads the weights has it.

    Args:
        image: with ``num_classes=0``, for its head is not used.
        tokenizer: of the captions; its size gives the rows of the embedding.
        width: D of the decoder, a multiple of 4.
        layers: of the decoder.
        heads: of each attention; a divisor of the width.
        kv_heads: of keys and values, a divisor of ``heads``; None: as many.
        length: most tokens of a caption, start and end included.
        norm: before each part of a layer.
        activation: of each layer's last part.
        dropout: of what each part of a layer adds, in ``[0, 1)``.
        train_image: whether the image encoder learns; otherwise it stays as it is, in evaluation mode.

    Raises:
        ValueError: if the numbers do not fit together, or the encoder has a head.

    Reference:
        Xu et al., 2015 (arXiv:1502.03044) for attention to a map of features; Vaswani et al., 2017 (arXiv:1706.03762)
        for the decoder.

    Example:
        >>> from neurotrain.networks.text import WordTokenizer
        >>> image = Timm(name="test_resnet", num_classes=0)
        >>> network = TransformerCaptioner(
        ...     image=image, tokenizer=WordTokenizer(size=300), width=8, layers=1, heads=2, length=6
        ... )
        >>> network(torch.zeros(2, 3, 64, 64), network.tokenize(["a", "b c"])).shape
        torch.Size([2, 5, 300])
    """

    def __init__(
        self,
        *,
        image: Timm,
        tokenizer: Tokenizer,
        width: int = 256,
        layers: int = 3,
        heads: int = 4,
        kv_heads: int | None = None,
        length: int = 40,
        norm: SequenceNorm = "layer",
        activation: Activation = "gelu",
        dropout: float = 0.1,
        train_image: bool = True,
    ) -> None:
        super().__init__()
        _check(image, width=width, layers=layers, length=length, dropout=dropout)
        self.tokenizer, self.length, self.width = tokenizer, length, width
        self.image = image.requires_grad_(train_image)
        self._train_image = train_image
        self._channels = int(_timm(image).num_features)
        self.project = nn.Linear(self._channels, width)
        self.project_norm = sequence_norm(norm, width)
        self.tokens = nn.Embedding(tokenizer.size, width)
        self.positions = LearnedPositions(length=length, width=width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(
                width=width,
                heads=heads,
                kv_heads=kv_heads,
                context_width=width,
                norm=norm,
                activation=activation,
                dropout=dropout,
            )
            for _ in range(layers)
        )
        self.norm = sequence_norm(norm, width)
        nn.init.normal_(self.tokens.weight, std=width**-0.5)

    def forward(self, image_BCHW: Tensor, tokens_BL: Tensor) -> Tensor:
        """Logits of each next token, see :meth:`Captioner.forward`.

        Raises:
            ValueError: if the image has another number of axes or channels, or there are more than ``length`` tokens.
        """
        # The last token has none after it. What is padded comes last, so a causal attention never sees it.
        x_BLD = self.embed(tokens_BL[:, :-1], start=0)
        seen_BPD = self.look(image_BCHW)
        for layer in self.layers:
            x_BLD = layer(x_BLD, seen_BPD, causal=True)
        return self.logits(x_BLD)

    @torch.no_grad()
    def generate(self, image_BCHW: Tensor, *, beams: int = 1, length_penalty: float = 1.0) -> list[str]:
        """Write captions, see :meth:`Captioner.generate`.

        Raises:
            ValueError: if ``beams`` is below 1 or ``length_penalty`` negative.
        """
        marks = Marks(start=self.tokenizer.start, end=self.tokenizer.end, pad=self.tokenizer.pad)
        count, device, length = len(image_BCHW), image_BCHW.device, self.length - 1
        model = _Writing(self, self.look(image_BCHW).repeat_interleave(max(beams, 1), dim=0))
        if beams == 1:
            found = greedy_search(model, count=count, length=length, marks=marks, device=device)
        else:
            found = beam_search(
                model,
                count=count,
                beams=beams,
                length=length,
                marks=marks,
                device=device,
                length_penalty=length_penalty,
            )
        return [self.tokenizer.decode(row) for row in found.tokens.tolist()]

    def look(self, image_BCHW: Tensor) -> Tensor:
        """Features of images ``(B, P, D)``, which the decoder attends to.

        Raises:
            ValueError: if the image has another number of axes or channels.
        """
        wanted = self.image.in_channels
        if image_BCHW.ndim != 4 or image_BCHW.shape[1] != wanted:
            raise ValueError(f"image of shape {tuple(image_BCHW.shape)}: expected (batch, {wanted}, height, width)")
        found = _timm(self.image).forward_features(image_BCHW)
        if found.ndim == 4 and found.shape[1] == self._channels:
            found = found.permute(0, 2, 3, 1)
        assert found.shape[-1] == self._channels, "timm's features are as wide as it says"
        places = self.project_norm(self.project(found))
        if places.ndim == 3:  # the tokens of a vision transformer, which knows where they are
            return places
        grid_HWD = grid_positions(places.shape[1], places.shape[2], self.width)
        return (places + grid_HWD.to(places)).flatten(1, 2)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; an encoder that does not learn stays in evaluation."""
        super().train(mode)
        if not self._train_image:
            self.image.eval()
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """The vocabulary."""
        return self.tokenizer.state()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over the vocabulary of a checkpoint.

        Raises:
            ValueError: if it is of another tokenizer.
        """
        self.tokenizer.load_state(state)

    def embed(self, tokens_BL: Tensor, *, start: int) -> Tensor:
        """Tokens with their places ``(B, L, D)``; ``start`` is the place of the first."""
        scale = self.width**0.5  # of a table whose rows have length 1, as the last layer needs them
        return self.dropout(self.positions(self.tokens(tokens_BL) * scale, start=start))

    def logits(self, x_BLD: Tensor) -> Tensor:
        """Logits ``(B, L, V)`` of what the last layer gives."""
        return self.norm(x_BLD) @ self.tokens.weight.T


@final
class _Writing:
    """Captions under way; the image's keys and values are projected once, those of the words are kept."""

    def __init__(self, network: TransformerCaptioner, seen_NPD: Tensor) -> None:
        self._network = network
        self._place = 0
        self._memories = [_memory(layer, seen_NPD, capacity=network.length) for layer in network.layers]

    def next_logits(self, tokens_N: Tensor) -> Tensor:
        x_N1D = self._network.embed(tokens_N[:, None], start=self._place)
        for layer, memory in zip(self._network.layers, self._memories, strict=True):
            x_N1D = layer(x_N1D, causal=True, memory=memory)
        self._place += 1
        return self._network.logits(x_N1D)[:, 0]

    def reorder(self, rows_N: Tensor) -> None:
        for memory in self._memories:
            memory.past.reorder(rows_N)  # the image of a beam is that of its neighbours


def _memory(layer: nn.Module, seen_NPD: Tensor, *, capacity: int) -> LayerMemory:
    assert isinstance(layer, TransformerLayer)
    return layer.memory(seen_NPD, capacity=capacity)


def _timm(image: Timm) -> Any:  # noqa: ANN401 - timm's networks share no class
    return image.network


def _check(image: Timm, *, width: int, layers: int, length: int, dropout: float) -> None:
    if width < 4 or width % 4 or layers < 1 or length < 3 or not 0 <= dropout < 1:
        raise ValueError(
            f"width={width}, layers={layers}, length={length}, dropout={dropout}: need a multiple of 4, at least 1, "
            "at least 3, and [0, 1)"
        )
    if image.num_classes:
        raise ValueError(f"image.num_classes={image.num_classes}: a captioner uses no head, give 0")
