"""What a captioner is: logits of a caption's tokens for training, captions for everything else.

Shape legend: ``B`` images, ``L`` tokens of a caption with its start and its end, ``V`` tokens there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from neurotrain.networks.text import Tokenizer


class Captioner(nn.Module, ABC):
    """Maps images and the beginnings of captions to the tokens that come next.

    Attributes:
        tokenizer: of the captions.
        length: most tokens of a caption, start and end included.
    """

    tokenizer: Tokenizer
    length: int

    @abstractmethod
    def forward(self, image_BCHW: Tensor, tokens_BL: Tensor) -> Tensor:
        """Logits of the next token after each but the last, every one before it given (teacher forcing).

        Args:
            image_BCHW: as the network takes images.
            tokens_BL: of :meth:`tokenize`.

        Returns:
            ``(B, L - 1, V)``: entry ``i`` is about ``tokens_BL[:, i + 1]``.
        """

    @abstractmethod
    def generate(self, image_BCHW: Tensor, *, beams: int = 1, length_penalty: float = 1.0) -> list[str]:
        """Write a caption for each image; deterministic, and no gradient is kept.

        Args:
            image_BCHW: as the network takes images.
            beams: 1 takes the most probable token at each place, more search among as many beginnings.
            length_penalty: exponent of the length by which a caption's log probability is divided; above 0 favours
                long ones. Without beams there is nothing to choose from, and it is not read.
        """

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Tokens int64 ``(B, L)`` on the CPU; a caption that is too long loses its last words."""
        return self.tokenizer.batch(captions, length=self.length)


def told_tokens(tokens_BL: Tensor, *, end: int) -> Tensor:
    """Which tokens a caption consists of: those up to its first ``end``, that included; what follows is padding.

    Padding is told by its place, for in some vocabularies it is the same token as the end.

    Args:
        tokens_BL: integers.
        end: token after a caption.

    Returns:
        bool ``(B, L)``; all True where there is no ``end``.

    Example:
        >>> import torch
        >>> told_tokens(torch.tensor([[1, 7, 2, 2]]), end=2).tolist()
        [[True, True, True, False]]
    """
    before_BL = (tokens_BL == end).long().cumsum(1) - (tokens_BL == end).long()
    return before_BL == 0
