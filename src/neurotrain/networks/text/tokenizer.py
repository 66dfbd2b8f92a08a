"""What a tokenizer is: texts to numbers and back, with four special tokens, and a state of plain data.

Shape legend: ``B`` texts, ``L`` tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


class Tokenizer(ABC):
    """Maps texts to tokens, each a number in ``[0, size)``.

    Attributes:
        size: numbers that a token may have; rows of an embedding.
        pad: token that fills a batch up.
        start: token before a text.
        end: token after a text; occurs nowhere else but, perhaps, as ``pad`` behind it.
        unknown: token of what has no other.
    """

    size: int
    pad: int
    start: int
    end: int
    unknown: int

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without ``start`` and ``end``."""

    @abstractmethod
    def decode(self, tokens: Iterable[int]) -> str:
        """Text of tokens: those up to the first ``end``; ``start`` and ``pad`` say nothing."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What it has learned, and what must be equal where that is loaded: plain data for a checkpoint."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over a state.

        Raises:
            ValueError: if it is of another tokenizer.
        """

    def learn(self, texts: Iterable[str]) -> bool:
        """Choose a vocabulary for texts, where there is none yet.

        Args:
            texts: of a training set.

        Returns:
            Whether there was anything to learn; False where the vocabulary is fixed, and nothing was read.
        """
        del texts
        return False

    def batch(self, texts: Sequence[str], *, length: int, fixed: bool = False) -> Tensor:
        """Tokens of several texts as one tensor; a text that is too long loses its end, never its ``end``.

        Args:
            texts: at least one.
            length: most tokens of a text, ``start`` and ``end`` included.
            fixed: whether to fill up to ``length`` and not to the longest text.

        Returns:
            int64 ``(B, L)`` with ``L`` at most ``length``: ``start``, the text, ``end``, ``pad``...

        Raises:
            ValueError: if there is no text, or ``length`` leaves no room for one token.
        """
        if not texts or length < 3:
            raise ValueError(f"{len(texts)} texts, length={length}: need at least one text, and a length of at least 3")
        rows = [[self.start, *self.encode(text)[: length - 2], self.end] for text in texts]
        width = length if fixed else max(map(len, rows))
        return torch.tensor([row + [self.pad] * (width - len(row)) for row in rows])

    def _told(self, tokens: Iterable[int]) -> list[int]:
        """Tokens before the first ``end`` that stand for text."""
        kept: list[int] = []
        for token in tokens:
            if token == self.end:
                break
            if token not in (self.start, self.pad):
                kept.append(int(token))
        return kept


@runtime_checkable
class HasTokenizer(Protocol):
    """A task whose texts go through a tokenizer that may still have to learn its vocabulary."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer; None where there is nothing to learn."""
        ...
