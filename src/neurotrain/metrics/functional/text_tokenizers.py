"""Text as numbers: sacrebleu's tokenizers, each word looked at once.

A tokenizer looks at a character and its neighbours only, and nothing it does reaches across white space. So the tokens
of a word are found once, remembered, and every later occurrence is one look into a dictionary.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from neurotrain.metrics.functional.labels import check_choice

Ints: TypeAlias = npt.NDArray[np.int64]

TextTokenizer = Literal["13a", "intl", "char", "none", "rouge"]
"""``13a``, ``intl``, ``char``, ``none``: sacrebleu's of that name; ``rouge``: runs of ``[a-z0-9]`` in lower case."""

# stands beside a word that nothing follows or precedes: white space, which no word holds
_EDGE = "\n"


@dataclass(frozen=True)
class Tokens:
    """Texts as numbers of tokens.

    Attributes:
        ids: int64, all tokens, text after text; equal tokens have equal numbers in all texts of one tokenization.
        lengths: int64, tokens of each text.
    """

    ids: Ints
    lengths: Ints


class Vocabulary:
    """Numbers of tokens, given in the order of their first occurrence."""

    def __init__(self, *, tokenizer: TextTokenizer = "13a", lowercase: bool = False) -> None:
        """Set how texts become tokens.

        Args:
            tokenizer: see :data:`TextTokenizer`.
            lowercase: whether texts are lowered first; ``rouge`` does so in any case.

        Raises:
            ValueError: if the tokenizer is unknown.
        """
        check_choice("tokenizer", tokenizer, ("13a", "intl", "char", "none", "rouge"))
        self._tokenizer: TextTokenizer = tokenizer
        self._lowercase = lowercase or tokenizer == "rouge"
        self._numbers: dict[str, int] = {}
        self._words = _Words(_SPLITTERS[tokenizer], self._numbers)

    def __len__(self) -> int:
        """Distinct tokens so far."""
        return len(self._numbers)

    @property
    def tokens(self) -> list[str]:
        """All tokens, in the order of their numbers."""
        return list(self._numbers)

    def encode(self, texts: Iterable[str]) -> Tokens:
        """Tokenize texts.

        Args:
            texts: any number of them.

        Returns:
            Their tokens; an empty text has none.
        """
        lines = list(texts)
        if self._lowercase:
            lines = [line.lower() for line in lines]
        if self._tokenizer == "13a":
            lines = [_unescape(line) for line in lines]
        words = [line.split() for line in lines]
        if self._tokenizer == "intl":
            _mark_edges(lines, words)
        counts = np.fromiter(map(len, words), np.int64, len(words))
        found = np.fromiter(map(self._words.__getitem__, chain.from_iterable(words)), np.int64, counts.sum())
        return self._words.expand(found, counts)


def tokenize(text: str, *, tokenizer: TextTokenizer = "13a", lowercase: bool = False) -> list[str]:
    """Tokens of one text.

    Args:
        text: any text.
        tokenizer: see :data:`TextTokenizer`.
        lowercase: whether the text is lowered first.

    Returns:
        What sacrebleu's tokenizer of that name separates with blanks.

    Raises:
        ValueError: if the tokenizer is unknown.

    Example:
        >>> tokenize('He said: "3.5%, no more."')
        ['He', 'said', ':', '"', '3.5', '%', ',', 'no', 'more', '.', '"']
    """
    vocabulary = Vocabulary(tokenizer=tokenizer, lowercase=lowercase)
    numbers, tokens = vocabulary.encode([text]).ids.tolist(), vocabulary.tokens
    return [tokens[number] for number in numbers]


class _Words(dict[str, int]):
    """Number of each word; the tokens of a new one are found when it is asked for."""

    def __init__(self, split: Callable[[str], Sequence[str]], numbers: dict[str, int]) -> None:
        super().__init__()
        self._split = split
        self._numbers = numbers
        self._tokens: list[int] = []
        self._lengths: list[int] = []

    def __missing__(self, word: str) -> int:
        tokens = self._split(word)
        self._tokens.extend(self._numbers.setdefault(token, len(self._numbers)) for token in tokens)
        self._lengths.append(len(tokens))
        self[word] = number = len(self._lengths) - 1
        return number

    def expand(self, words: Ints, counts: Ints) -> Tokens:
        """Tokens of texts of ``counts`` words each."""
        tokens, lengths = np.array(self._tokens, dtype=np.int64), np.array(self._lengths, dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        per_word = lengths[words]
        ends = np.concatenate([[0], np.cumsum(per_word)])
        place = np.arange(ends[-1]) + np.repeat(starts[words] - ends[:-1], per_word)
        stops = ends[np.cumsum(counts)]
        return Tokens(tokens[place], np.diff(stops, prepend=0))


def _unescape(line: str) -> str:
    """What 13a does to a whole line."""
    line = line.rstrip()
    if "<skipped>" in line:
        line = line.replace("<skipped>", "")
    if "\n" in line:
        line = line.replace("-\n", "").replace("\n", " ")
    if "&" in line:
        line = line.replace("&quot;", '"').replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
    return line


def _mark_edges(lines: list[str], words: list[list[str]]) -> None:
    """Mark words at the ends of their line, where a tokenizer finds no white space beside them."""
    for line, own in zip(lines, words, strict=True):
        if own:
            own[-1] += _EDGE
            if not line[0].isspace():
                own[0] = _EDGE + own[0]


_WESTERN = (
    # punctuation but . , - and ', then . and , away from digits, then - after one (mteval-v13a.pl)
    (re.compile(r"([{-~\[-` -&(-+:-@/])"), r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def _split_13a(word: str) -> Sequence[str]:
    if word.isalnum():
        return (word,)
    return _rewritten(f" {word} ", _WESTERN)


def _split_intl(word: str) -> Sequence[str]:
    before, after = ("" if word[0] == _EDGE else " "), ("" if word[-1] == _EDGE else " ")
    return _rewritten(f"{before}{word.strip(_EDGE)}{after}", _international())


def _rewritten(text: str, rules: Iterable[tuple[re.Pattern[str], str]]) -> Sequence[str]:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text.split()


@cache
def _international() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Punctuation away from digits, then symbols (mteval-v14.pl), by the categories of this Python's Unicode."""
    digit, punctuation, symbol = (_characters(category) for category in "NPS")
    return (
        (re.compile(f"([^{digit}])([{punctuation}])"), r"\1 \2 "),
        (re.compile(f"([{punctuation}])([^{digit}])"), r" \1 \2"),
        (re.compile(f"([{symbol}])"), r" \1 "),
    )


@cache
def _categories() -> str:
    """First letter of the category of every character."""
    return "".join(unicodedata.category(chr(code))[0] for code in range(sys.maxunicode + 1))


def _characters(category: str) -> str:
    """All characters of a category, as the inside of a pattern's brackets."""
    ranges = (match.span() for match in re.finditer(f"{category}+", _categories()))
    return "".join(f"\\U{first:08x}-\\U{stop - 1:08x}" for first, stop in ranges)


def _split_rouge(word: str) -> Sequence[str]:
    return re.findall(r"[a-z0-9]+", word)


def _split_none(word: str) -> Sequence[str]:
    return (word,)


_SPLITTERS: dict[TextTokenizer, Callable[[str], Sequence[str]]] = {
    "13a": _split_13a,
    "intl": _split_intl,
    "char": tuple,
    "none": _split_none,
    "rouge": _split_rouge,
}
