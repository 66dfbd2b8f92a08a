"""What a network of images and texts is: two towers, and the scale at which their products are compared.

Shape legend: ``B`` images or texts, ``C`` channels, ``H`` height, ``W`` width, ``L`` tokens, ``E`` features.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.networks.clip.tuning import TowerTuning
from neurotrain.networks.text import Tokenizer

MAX_SCALE = 100.0
"""Largest factor of similarities: Radford et al., 2021 (arXiv:2103.00020), section 2.5."""


class ClipFeatures(NamedTuple):
    """What a network says of images and texts.

    Attributes:
        image: float32 unit vectors ``(B, E)``.
        text: float32 unit vectors ``(B, E)``.
        scale: scalar by which their products are multiplied.
        bias: scalar that is added to them; None where the network has none.
    """

    image: Tensor
    text: Tensor
    scale: Tensor
    bias: Tensor | None


class ClipNetwork(nn.Module, ABC):
    """Two towers into one space, and a learnt scale.

    A subclass builds its towers, then calls :meth:`adapt`.

    Args:
        temperature: where the scale begins: its inverse.
        bias: where the bias begins, for SigLIP's loss (-10 there, with a temperature of 0.1); None: there is none.

    Attributes:
        features: E.
        log_scale: logarithm of the scale, learnt; the scale is held at 100 at most.
        bias: learnt, or None.

    Raises:
        ValueError: if ``temperature`` is not in [0.01, inf).
    """

    features: int
    log_scale: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, *, temperature: float, bias: float | None) -> None:
        super().__init__()
        if not 1 / MAX_SCALE <= temperature < math.inf:
            raise ValueError(f"temperature={temperature}: must be at least {1 / MAX_SCALE} and finite")
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))
        self._tunings: dict[str, TowerTuning] = {}

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer | None:
        """Of the texts; None where :meth:`tokenize` is another library's."""

    @abstractmethod
    def towers(self) -> Mapping[str, nn.Module]:
        """The modules of ``image`` and ``text``, whose outputs are features."""

    @abstractmethod
    def tokenize(self, texts: list[str]) -> Tensor:
        """Tokens int64 ``(B, L)`` on the CPU."""

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """Unit vectors of images.

        Args:
            image_BCHW: float, normalised as the weights were trained with.

        Returns:
            float32 ``(B, E)``.
        """
        return _unit(self.towers()["image"](image_BCHW))

    def encode_text(self, tokens_BL: Tensor) -> Tensor:
        """Unit vectors of texts.

        Args:
            tokens_BL: of :meth:`tokenize`.

        Returns:
            float32 ``(B, E)``.
        """
        return _unit(self.towers()["text"](tokens_BL))

    def scale(self) -> Tensor:
        """The factor of similarities, at most 100: in training the parameter is held there, so that it can return."""
        if not self.training:
            return self.log_scale.exp().clamp(max=MAX_SCALE)
        with torch.no_grad():  # a clamp that is part of the graph would leave no gradient to come back by
            self.log_scale.clamp_(max=math.log(MAX_SCALE))
        return self.log_scale.exp()

    def forward(self, image_BCHW: Tensor, tokens_BL: Tensor | None, text_BE: Tensor | None = None) -> ClipFeatures:
        """Features of pairs.

        Args:
            image_BCHW: see :meth:`encode_image`.
            tokens_BL: see :meth:`encode_text`; None where features of the texts are given.
            text_BE: features of the texts as a frozen tower made them before, instead.

        Raises:
            ValueError: if both or neither are given, or features of another tower are.
        """
        if (tokens_BL is None) == (text_BE is None):
            raise ValueError("give tokens or features of the texts, not both")
        text = self.encode_text(tokens_BL) if tokens_BL is not None else self._stored(text_BE)
        return ClipFeatures(self.encode_image(image_BCHW), text, self.scale(), self.bias)

    def adapt(self, *, image: TowerTuning | None, text: TowerTuning | None) -> None:
        """Say what of each tower learns.

        Args:
            image: of the tower of images; None: all of it.
            text: of the tower of texts; None: all of it.
        """
        self._tunings = {name: tuning for name, tuning in (("image", image), ("text", text)) if tuning is not None}
        towers = self.towers()
        for name, tuning in self._tunings.items():
            tuning.apply(towers[name])
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; what is frozen stays in evaluation."""
        super().train(mode)
        if mode:
            towers = self.towers()
            for name, tuning in self._tunings.items():
                tuning.hold(towers[name])
        return self

    def _stored(self, text_BE: Tensor | None) -> Tensor:
        assert text_BE is not None, "the caller has looked"
        if any(parameter.requires_grad for parameter in self.towers()["text"].parameters()):
            raise ValueError(
                "the batch holds stored features of its texts, but the text tower learns: they would not be its own; "
                "freeze it (text_tuning), or train on the texts"
            )
        if text_BE.ndim != 2 or text_BE.shape[1] != self.features:
            raise ValueError(f"stored features {tuple(text_BE.shape)}: this network's are (B, {self.features})")
        return _unit(text_BE)


def _unit(features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(features.float(), dim=-1)
