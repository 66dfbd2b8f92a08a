"""A transformer over the patches of an image, made of our own blocks.

Shape legend: ``B`` batch, ``C`` image channels, ``K`` classes, ``H`` height, ``W`` width, ``L`` tokens, ``N`` patches,
``D`` width of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final

from torch import Tensor, nn

from neurotrain.networks.blocks import (
    Activation,
    LearnedPositions,
    PatchEmbedding,
    PrefixTokens,
    SequenceNorm,
    TransformerLayer,
    check_choice,
    grid_positions,
    sequence_norm,
)
from neurotrain.networks.classification.base import Classifier, TokenLayout

Pooling = Literal["class_token", "mean"]
"""What the head reads: a token of its own, or the mean of the patches."""


@final
class VisionTransformer(Classifier):
    """Patches with their places, a class token, registers, layers of attention, a norm and a linear head.

    Args:
        num_classes: logits K.
        in_channels: channels C of the image.
        image_size: height and width for which places are learnt; None: they are sines of row and column, and any
            multiple of ``patch`` is an image.
        patch: edge of a patch in pixels.
        width: D, with sines a multiple of 4.
        layers: how many.
        heads: of the attention; a divisor of the width.
        kv_heads: of keys and values, a divisor of ``heads``; None: as many.
        hidden: width of each token's own part; None: four times D.
        norm: before each part and at the end.
        activation: of each token's own part.
        pool: see :data:`Pooling`.
        registers: learnt tokens that nothing reads.
        dropout: of what each part adds, in [0, 1).

    Raises:
        ValueError: if the numbers do not fit together.

    Reference:
        Dosovitskiy et al., 2021 (arXiv:2010.11929), section 3.1; Darcet et al., 2024 (arXiv:2309.16588) for the
        registers; Beyer et al., 2022 (arXiv:2205.01580) for sines and the mean.

    Example:
        >>> import torch
        >>> VisionTransformer(width=16, layers=2, heads=2)(torch.zeros(1, 3, 16, 24)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: tuple[int, int] | None = None,
        patch: int = 4,
        width: int = 192,
        layers: int = 6,
        heads: int = 3,
        kv_heads: int | None = None,
        hidden: int | None = None,
        norm: SequenceNorm = "layer",
        activation: Activation = "gelu",
        pool: Pooling = "class_token",
        registers: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("pool", pool, ("class_token", "mean"))
        _check(num_classes, layers, registers, dropout)
        _check_places(image_size, patch, width)
        self.num_classes, self.in_channels = num_classes, in_channels
        self._image_size = None if image_size is None else (image_size[0], image_size[1])
        self._prefix = registers + (pool == "class_token")
        self._pool: Pooling = pool
        self.patches = PatchEmbedding(in_channels=in_channels, width=width, patch=patch)
        self.positions: LearnedPositions | None = None
        if image_size is not None:
            length = (image_size[0] // patch) * (image_size[1] // patch)
            self.positions = LearnedPositions(length=length, width=width)
        self.prefix = PrefixTokens(count=self._prefix, width=width) if self._prefix else nn.Identity()
        self.layers = nn.ModuleList(
            TransformerLayer(
                width=width,
                heads=heads,
                kv_heads=kv_heads,
                hidden=hidden,
                norm=norm,
                activation=activation,
                dropout=dropout,
            )
            for _ in range(layers)
        )
        self.norm = sequence_norm(norm, width)
        self.head = nn.Linear(width, num_classes)
        self.apply(_initialise)

    def logits(self, x_BCHW: Tensor) -> Tensor:
        """``(B, K)`` of images whose number of channels is right.

        Raises:
            ValueError: if the size is not the one that places are learnt for.
        """
        size = (x_BCHW.shape[2], x_BCHW.shape[3])
        if self._image_size is not None and self._image_size != size:
            raise ValueError(f"image of size {size}: places are learnt for image_size={self._image_size}")
        x_BLD = self.prefix(self._placed(self.patches(x_BCHW), size))
        for layer in self.layers:
            x_BLD = layer(x_BLD)
        x_BLD = self.norm(x_BLD)
        return self.head(x_BLD[:, 0] if self._pool == "class_token" else x_BLD[:, self._prefix :].mean(1))

    def depths(self) -> Mapping[str, int]:
        """Patches, places and tokens 0, layers from 1, norm and head one more than the last."""
        top = len(self.layers) + 1
        found: dict[str, int] = {}
        for name, _ in self.named_parameters():
            part, _, rest = name.partition(".")
            if part == "layers":
                found[name] = int(rest.partition(".")[0]) + 1
            else:
                found[name] = top if part in ("norm", "head") else 0
        return found

    def evidence_layer(self) -> nn.Module:
        """There is none.

        Raises:
            ValueError: always; its attention shows where it looks.
        """
        raise ValueError("VisionTransformer has no map of features: its layers give sequences")

    def token_layout(self) -> TokenLayout:
        """Of every layer's attention."""
        read = slice(0, 1) if self._pool == "class_token" else slice(self._prefix, None)
        edge = self.patches.patch
        return TokenLayout(layers=len(self.layers), patch=(edge, edge), prefix=self._prefix, read=read)

    def _placed(self, x_BND: Tensor, size: tuple[int, int]) -> Tensor:
        if self.positions is not None:
            return self.positions(x_BND)
        rows, columns = (extent // self.patches.patch for extent in size)
        return x_BND + grid_positions(rows, columns, x_BND.shape[2]).flatten(0, 1).to(x_BND)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _check(num_classes: int, layers: int, registers: int, dropout: float) -> None:
    if min(num_classes, layers) < 1 or registers < 0 or not 0.0 <= dropout < 1.0:
        raise ValueError(
            f"num_classes={num_classes}, layers={layers}, registers={registers}, dropout={dropout}: need at least 1 "
            "class and layer, no fewer than 0 registers, and a dropout in [0, 1)"
        )


def _check_places(image_size: tuple[int, int] | None, patch: int, width: int) -> None:
    if image_size is None and width % 4:
        raise ValueError(f"width={width}: sines of row and column need a multiple of 4; or set image_size")
    if image_size is not None and any(extent < 1 or extent % patch for extent in image_size):
        raise ValueError(f"image_size={tuple(image_size)}: each axis must be a multiple of patch={patch}")
