"""A small tokenizer of one's own: a token a word, bytes for words that it does not know."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, final

from neurotrain.documents import parse_json
from neurotrain.networks.text.tokenizer import Tokenizer

_SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")
_BYTES = 256
_PIECE = re.compile(r" ?\w+| ?[^\w\s]")
_KEYS = ("words", "lowercase", "byte_fallback", "size")


@final
class WordTokenizer(Tokenizer):
    """A token for each word and punctuation mark with the space before it; what is not in the vocabulary is spelt.

    Spelt means: a token for each byte of its UTF-8, so that every text comes back, but for its case (``lowercase``) and
    runs of white space, which become one space. Without ``byte_fallback`` it becomes ``<unknown>``.

    The vocabulary is a list of words, most frequent first. It comes from ``words``, from a file, out of a checkpoint
    (:meth:`load_state`) or from the texts of a training set (:meth:`learn`); ``size`` is stated beforehand, so that an
    embedding has its rows before a word is known. Numbers 0 to 3 are the special tokens.

    Args:
        size: of the vocabulary, special tokens and bytes included.
        words: the vocabulary; a word that follows a space has it in front (``" cat"``).
        vocabulary: a file of :meth:`save` to take it from, instead.
        lowercase: whether case is lost.
        byte_fallback: whether what is unknown is spelt.
        min_count: how often a word must occur to be learned.

    Raises:
        ValueError: if the numbers are out of range, the words do not fit ``size``, or occur twice.
        FileNotFoundError: if there is no such file.

    Example:
        >>> tokenizer = WordTokenizer(size=300)
        >>> tokenizer.learn(["A cat.", "A dog."])
        True
        >>> tokens = tokenizer.encode("A cat, a fox.")
        >>> len(tokens), tokenizer.decode(tokens)  # "," and " fox" are spelt
        (9, 'a cat, a fox.')
    """

    pad = 0
    start = 1
    end = 2
    unknown = 3

    def __init__(
        self,
        *,
        size: int = 8192,
        words: tuple[str, ...] = (),
        vocabulary: Path | None = None,
        lowercase: bool = True,
        byte_fallback: bool = True,
        min_count: int = 1,
    ) -> None:
        if min_count < 1:
            raise ValueError(f"min_count={min_count}: must be at least 1")
        self.size, self.lowercase, self.byte_fallback = size, lowercase, byte_fallback
        self._min_count = min_count
        self._first = len(_SPECIAL) + (_BYTES if byte_fallback else 0)
        if size <= self._first:
            raise ValueError(f"size={size}: special tokens and bytes alone are {self._first}")
        if vocabulary is not None and words:
            raise ValueError(f"words and vocabulary={str(vocabulary)!r}: give one of them")
        self._set(tuple(words))
        if vocabulary is not None:
            self.load_state(_read(Path(vocabulary)))

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary without special tokens and bytes."""
        return self._words

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without ``start`` and ``end``."""
        tokens: list[int] = []
        for piece in self._pieces(text):
            number = self._numbers.get(piece)
            if number is not None:
                tokens.append(number)
            elif self.byte_fallback:
                tokens.extend(len(_SPECIAL) + byte for byte in piece.encode())
            else:
                tokens.append(self.unknown)
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of tokens up to the first ``end``; bytes that are no UTF-8 become the replacement character.

        Raises:
            ValueError: if a token is no number of this vocabulary.
        """
        spelt = bytearray()
        for token in self._told(tokens):
            place = token - self._first
            if 0 <= place < len(self._words):
                spelt += self._words[place].encode()
            elif token == self.unknown:
                spelt += f" {_SPECIAL[token]}".encode()
            elif self.byte_fallback and len(_SPECIAL) <= token < self._first:
                spelt.append(token - len(_SPECIAL))
            elif not 0 <= token < self.size:
                raise ValueError(f"token {token} lies outside [0, {self.size})")
        return spelt.decode(errors="replace").removeprefix(" ")

    def learn(self, texts: Iterable[str]) -> bool:
        """Take the most frequent words of texts, equal ones in alphabetical order, as many as there is room for.

        Returns:
            False where there are words already, given or out of a checkpoint: nothing is read then.
        """
        if self._words:
            return False
        counts = Counter(piece for text in texts for piece in self._pieces(text))
        ranked = sorted((-count, piece) for piece, count in counts.items() if count >= self._min_count)
        self._set(tuple(piece for _, piece in ranked[: self.size - self._first]))
        return True

    def state(self) -> dict[str, Any]:
        """Words and settings."""
        values = (list(self._words), self.lowercase, self.byte_fallback, self.size)
        return dict(zip(_KEYS, values, strict=True))

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over the words of a state.

        Raises:
            ValueError: if it is none, or of other settings.
        """
        if set(state) != set(_KEYS):
            raise ValueError(f"a WordTokenizer's state holds {', '.join(_KEYS)}, not {', '.join(map(str, state))}")
        own = self.state()
        for key in _KEYS[1:]:
            if state[key] != own[key]:
                raise ValueError(f"the vocabulary was made with {key}={state[key]!r}, this tokenizer has {own[key]!r}")
        self._set(tuple(state["words"]))

    def save(self, path: Path) -> None:
        """Write the vocabulary as JSON, for ``vocabulary``."""
        path.write_text(json.dumps(self.state(), ensure_ascii=False, indent=0), encoding="utf-8")

    def _pieces(self, text: str) -> list[str]:
        # The space in front lets a word be the same at the start of a text and within it.
        plain = " " + " ".join(text.split())
        return _PIECE.findall(plain.lower() if self.lowercase else plain) if plain != " " else []

    def _set(self, words: tuple[str, ...]) -> None:
        numbers = {word: self._first + place for place, word in enumerate(words)}
        if len(numbers) != len(words) or len(words) > self.size - self._first:
            raise ValueError(
                f"{len(words)} words, {len(numbers)} of them different: size={self.size} has room for "
                f"{self.size - self._first}, each once"
            )
        self._words, self._numbers = words, numbers


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"vocabulary={str(path)!r}: no such file")
    found = parse_json(path.read_text(encoding="utf-8"), where=path)
    if not isinstance(found, dict):
        raise ValueError(f"vocabulary={str(path)!r}: holds no vocabulary that WordTokenizer.save wrote")
    return found
