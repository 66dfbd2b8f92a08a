"""Common n-grams of texts and their references, counted on numbers.

An n-gram of a segment is one integer: the segment, then for each token the place where the segment has it first.
Sorted, equal n-grams stand together; each is numbered among its equals, so that what a text and a reference share is
what their sets of (n-gram, number) share, and what several references offer together is the union of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from neurotrain.metrics.functional.text_tokenizers import Tokens, Vocabulary

Ints: TypeAlias = npt.NDArray[np.int64]

# tokens that are counted at once: their n-grams fit into the processor's cache
_CHUNK = 1 << 16
# segments whose first places of tokens are looked up in one table
_ROWS = 64
_BITS = 62


@dataclass(frozen=True)
class Segments:
    """Texts to judge, each with one or more references.

    Attributes:
        preds: their tokens.
        references: tokens of all references, segment after segment.
        numbers: int64, references of each segment.
        vocabulary_size: distinct tokens.
    """

    preds: Tokens
    references: Tokens
    numbers: Ints
    vocabulary_size: int


def check_texts(preds: Sequence[str], target: Sequence[Sequence[str]] | Sequence[str]) -> list[list[str]]:
    """References as one list for each text.

    Args:
        preds: texts.
        target: for each text its references, or its only one.

    Raises:
        ValueError: if the lengths differ, a text is no text, or a text has no reference.
    """
    if isinstance(preds, str) or isinstance(target, str):
        raise ValueError("preds and target must be sequences of texts, not one text")
    if len(preds) != len(target):
        raise ValueError(
            f"preds holds {len(preds)} texts, target the references of {len(target)}: one entry a text is needed"
        )
    lists = [[entry] if isinstance(entry, str) else list(entry) for entry in target]
    for place, (text, references) in enumerate(zip(preds, lists, strict=True)):
        if not references:
            raise ValueError(f"target[{place}] holds no reference; an empty text is one")
        for given in (text, *references):
            if not isinstance(given, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
                raise ValueError(f"entry {place} holds a {type(given).__name__}; texts are needed")
    return lists


def encode_segments(preds: Sequence[str], target: list[list[str]], vocabulary: Vocabulary) -> Segments:
    """Tokenize texts and references.

    Args:
        preds: texts.
        target: references of each.
        vocabulary: grows by their tokens.
    """
    texts = vocabulary.encode(preds)
    references = vocabulary.encode([text for entry in target for text in entry])
    numbers = np.fromiter(map(len, target), np.int64, len(target))
    return Segments(texts, references, numbers, len(vocabulary))


def closest_lengths(segments: Segments) -> Ints:
    """Of each segment's references the length that is closest to the text's, of two the shorter."""
    if not len(segments.numbers):
        return np.zeros(0, np.int64)
    wanted = np.repeat(segments.preds.lengths, segments.numbers)
    lengths = segments.references.lengths
    longest = int(lengths.max(initial=0)) + 1
    # one number orders by distance, then by length
    best = np.minimum.reduceat(np.abs(wanted - lengths) * longest + lengths, _starts(segments.numbers))
    return best % longest


def common_ngrams(segments: Segments, *, max_order: int) -> Ints:
    """N-grams of each text that its references have, each as often as the reference that has it most often.

    Args:
        segments: texts and references.
        max_order: N.

    Returns:
        int64 ``(S, N)``.
    """
    counts = np.zeros((len(segments.numbers), max_order), dtype=np.int64)
    for begin, part in _parts(segments):
        counts[begin : begin + len(part.numbers)] = _count(part, max_order)
    return counts


def _parts(segments: Segments) -> Iterator[tuple[int, Segments]]:
    """Stretches of segments with about so many tokens as are counted at once."""
    first = _starts(segments.numbers)
    stops_p = np.cumsum(segments.preds.lengths)
    stops_r = np.concatenate([[0], np.cumsum(segments.references.lengths)])
    total = stops_p + stops_r[first + segments.numbers]
    begin, number = 0, len(segments.numbers)
    while begin < number:
        before = total[begin - 1] if begin else 0
        end = max(int(np.searchsorted(total, before + _CHUNK, side="right")), begin + 1)
        low, high = first[begin], first[end] if end < number else len(segments.references.lengths)
        start = stops_p[begin - 1] if begin else 0
        yield (
            begin,
            Segments(
                Tokens(segments.preds.ids[start : stops_p[end - 1]], segments.preds.lengths[begin:end]),
                Tokens(segments.references.ids[stops_r[low] : stops_r[high]], segments.references.lengths[low:high]),
                segments.numbers[begin:end],
                segments.vocabulary_size,
            ),
        )
        begin = end


def _count(segments: Segments, max_order: int) -> Ints:
    number = len(segments.numbers)
    owner_p = np.repeat(np.arange(number), segments.preds.lengths)
    of_reference = np.repeat(np.arange(number), segments.numbers)
    owner_r = np.repeat(of_reference, segments.references.lengths)
    within = np.arange(len(of_reference)) - np.repeat(_starts(segments.numbers), segments.numbers)
    which = np.repeat(within, segments.references.lengths)
    places = _first_places(segments, owner_p, owner_r)
    split = len(owner_p)
    token_bits = _width(int(places.max(initial=0)))
    tail_bits = _width(int(segments.numbers.max())) + _width(len(places))
    left = np.concatenate([_remaining(segments.preds.lengths), _remaining(segments.references.lengths)])
    owner = np.concatenate([owner_p, owner_r])
    keys, alive = owner.copy(), np.arange(len(owner))
    counts = np.zeros((number, max_order), dtype=np.int64)
    for order in range(1, max_order + 1):
        if (int(keys.max(initial=0)) + 1) << (token_bits + tail_bits) > 1 << _BITS:
            keys = np.unique(keys, return_inverse=True)[1]
        long_enough = left[alive] >= order
        alive, keys = alive[long_enough], keys[long_enough]
        keys = (keys << token_bits) | places[alive + order - 1]
        middle = int(np.searchsorted(alive, split))
        shared = _shared(keys[:middle], owner[alive[:middle]], keys[middle:], which[alive[middle:] - split])
        if not len(shared):
            break
        counts[:, order - 1] = np.bincount(shared, minlength=number)
    return counts


def _shared(preds: Ints, owner: Ints, references: Ints, which: Ints) -> Ints:
    """Segment of each n-gram of the texts that references offer.

    Args:
        preds: n-grams of the texts, those of a segment less than those of the next.
        owner: segment of each, ascending.
        references: n-grams of the references.
        which: number of the reference within its segment.
    """
    sorted_p = np.sort(preds)
    several = bool(which.any())
    reference_bits = _width(int(which.max(initial=0))) if several else 0
    sorted_r = np.sort((references << reference_bits) | which if several else references)
    number_p, number_r = _number_equals(sorted_p), _number_equals(sorted_r)
    bits = _width(int(max(number_p.max(initial=0), number_r.max(initial=0))))
    wanted, offered = (sorted_p << bits) | number_p, ((sorted_r >> reference_bits) << bits) | number_r
    if several:
        offered = np.unique(offered)
    merged = np.concatenate([wanted, offered])
    merged.sort(kind="stable")  # of two ascending stretches: one merge
    both = merged[:-1][merged[1:] == merged[:-1]]
    # segments do not mix in the order of n-grams: sorting left each owner where it was
    return owner[np.searchsorted(wanted, both)]


def _number_equals(values: Ints) -> Ints:
    """Number of each among its equals, from 0, of ascending values."""
    place = np.arange(len(values))
    first = np.zeros(len(values), dtype=np.int64)
    np.multiply(place[1:], values[1:] != values[:-1], out=first[1:])
    return place - np.maximum.accumulate(first)


def _first_places(segments: Segments, owner_p: Ints, owner_r: Ints) -> Ints:
    """For each token the place where its segment, the text before the references, has it first."""
    per_segment = np.bincount(owner_r, minlength=len(segments.numbers))
    place_p = np.arange(len(owner_p)) - _starts(segments.preds.lengths)[owner_p]
    place_r = np.arange(len(owner_r)) - (_starts(per_segment) - segments.preds.lengths)[owner_r]
    rows = min(max((1 << 22) // max(segments.vocabulary_size, 1), 1), _ROWS)
    table = np.empty(rows * segments.vocabulary_size, dtype=np.int64)
    cell_p = (owner_p % rows) * segments.vocabulary_size + segments.preds.ids
    cell_r = (owner_r % rows) * segments.vocabulary_size + segments.references.ids
    bounds = np.arange(0, len(segments.numbers) + rows, rows)
    found_p, found_r = np.empty_like(place_p), np.empty_like(place_r)
    ends_p, ends_r = np.searchsorted(owner_p, bounds).tolist(), np.searchsorted(owner_r, bounds).tolist()
    for block in range(len(bounds) - 1):
        own_p, own_r = slice(ends_p[block], ends_p[block + 1]), slice(ends_r[block], ends_r[block + 1])
        # of several writes to a cell the last one stays: the first place
        table[cell_r[own_r][::-1]] = place_r[own_r][::-1]
        table[cell_p[own_p][::-1]] = place_p[own_p][::-1]
        found_p[own_p], found_r[own_r] = table[cell_p[own_p]], table[cell_r[own_r]]
    return np.concatenate([found_p, found_r])


def _starts(lengths: Ints) -> Ints:
    return np.cumsum(lengths) - lengths


def _remaining(lengths: Ints) -> Ints:
    """Tokens from each one to the end of its text."""
    return np.repeat(np.cumsum(lengths), lengths) - np.arange(lengths.sum())


def _width(value: int) -> int:
    return value.bit_length()
