"""The own small network of images and texts: any classifier beside a text transformer.

Shape legend: see :mod:`neurotrain.networks.clip.base`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

from torch import Tensor, nn

from neurotrain.networks.classification import Classifier
from neurotrain.networks.clip.base import ClipNetwork
from neurotrain.networks.clip.files import load_weights
from neurotrain.networks.clip.tuning import TowerTuning
from neurotrain.networks.text import TextTransformer, Tokenizer


class _TextTower(nn.Module):
    """An encoder and the projection of what it says of a whole text."""

    def __init__(self, encoder: TextTransformer, features: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = nn.Linear(encoder.width, features, bias=False)
        nn.init.normal_(self.projection.weight, std=encoder.width**-0.5)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        return self.projection(self.encoder(tokens_BL).pooled)


@final
class DualEncoder(ClipNetwork):
    """A classifier whose logits are the features of an image, and a transformer for its text.

    Args:
        image: its ``num_classes`` is E: a network of timm, whose head is the projection, or one of ours.
        text: of the texts; a linear projection follows.
        weights: of a run's checkpoint, or as :func:`~neurotrain.networks.clip.files.export` wrote them; None: as the
            towers come.
        temperature: see :class:`~neurotrain.networks.clip.base.ClipNetwork`.
        bias: likewise.
        image_tuning: what of the image tower learns; None: all of it.
        text_tuning: what of the text tower learns; None: all of it.

    Raises:
        ValueError: if a number is out of range, or the weights do not fit.
        FileNotFoundError: if there is no such file.

    Reference:
        Radford et al., 2021 (arXiv:2103.00020), section 2.4.

    Example:
        >>> import torch
        >>> from neurotrain.networks.classification import ResNetSmall
        >>> from neurotrain.networks.text import WordTokenizer
        >>> text = TextTransformer(tokenizer=WordTokenizer(size=300), width=8, layers=1, heads=1)
        >>> network = DualEncoder(image=ResNetSmall(widths=(4,), blocks=(1,), num_classes=6), text=text)
        >>> network(torch.zeros(1, 3, 8, 8), network.tokenize(["a cat"])).image.shape
        torch.Size([1, 6])
    """

    def __init__(
        self,
        *,
        image: Classifier,
        text: TextTransformer,
        weights: Path | None = None,
        temperature: float = 0.07,
        bias: float | None = None,
        image_tuning: TowerTuning | None = None,
        text_tuning: TowerTuning | None = None,
    ) -> None:
        super().__init__(temperature=temperature, bias=bias)
        self.features = image.num_classes
        self.image = image
        self.text = _TextTower(text, self.features)
        if weights is not None:
            load_weights(self, Path(weights))
        self.adapt(image=image_tuning, text=text_tuning)

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the text transformer."""
        return self.text.encoder.tokenizer

    def towers(self) -> Mapping[str, nn.Module]:
        """The classifier; the transformer with its projection (``encoder`` and ``projection``)."""
        return {"image": self.image, "text": self.text}

    def tokenize(self, texts: list[str]) -> Tensor:
        """Tokens int64 ``(B, L)`` on the CPU."""
        return self.text.encoder.tokenize(texts)
