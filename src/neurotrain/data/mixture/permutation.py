"""Seeded permutations with random access: any stretch of one costs what its length costs, wherever it lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.plan import mix_seed

Indices = NDArray[np.int64]
Words = NDArray[np.uint64]
Word = np.uint64 | Words

_SORTED = 4096
"""Up to here whole permutations are sorted: several times faster, and uniform as a small Feistel network cannot be."""
_ROUNDS = 6
_ROUNDS_OF_MANY = 4  # four suffice where rows and columns are many (Luby and Rackoff)
_ROUNDS_OF_FEW = 12  # small grids need more of them
_GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)
_FIRST = np.uint64(0xBF58_476D_1CE4_E5B9)
_SECOND = np.uint64(0x94D0_49BB_1331_11EB)
_AT_ONCE = 2**22  # words held by a stretch of many short permutations


def scattered(counters: NDArray[Any], seed: int) -> Words:
    """SplitMix64 of counters, element by element: 64 random bits each, the same on every machine and in any slicing.

    Args:
        counters: non-negative integers.
        seed: 64-bit unsigned number.

    Returns:
        uint64, of the same shape.
    """
    z: Words = counters.astype(np.uint64) * _GOLDEN
    z += np.uint64(seed)
    z ^= z >> np.uint64(30)
    z *= _FIRST
    z ^= z >> np.uint64(27)
    z *= _SECOND
    z ^= z >> np.uint64(31)
    return z


def permuted(places: Indices, *, length: int, seed: int) -> Indices:
    """Where one permutation of ``range(length)`` sends some places.

    A Feistel network permutes a grid of just over ``length`` cells; a value that falls outside the range walks on until
    it falls inside, which leaves a permutation of the range. Memory and time depend on the number of places alone.
    Short permutations are sorted.

    Args:
        places: int64, each in ``[0, length)``.
        length: of the permutation; below 2**62.
        seed: which permutation.

    Returns:
        int64, of the same shape.

    Reference:
        Black and Rogaway, 2002, "Ciphers with arbitrary finite domains", sections 3 (cycle walking) and 4 (Feistel).

    Example:
        >>> sorted(permuted(np.arange(5), length=5, seed=7).tolist())
        [0, 1, 2, 3, 4]
    """
    if length <= _SORTED:
        return _short(0, length, length, seed)[places]
    columns = math.isqrt(length - 1) + 1
    rows = -(-length // columns)
    keys = [np.uint64(mix_seed(seed, number)) for number in range(_ROUNDS if length < 2**16 else _ROUNDS_OF_MANY)]
    out = _feistel(places.astype(np.uint64), np.uint64(rows), np.uint64(columns), keys)
    outside = np.flatnonzero(out >= length)
    while outside.size:
        walked = _feistel(out[outside], np.uint64(rows), np.uint64(columns), keys)
        out[outside] = walked
        outside = outside[walked >= length]
    return out.astype(np.int64)


def permuted_each(places: Indices, *, lengths: Indices, seeds: Words) -> Indices:
    """Where permutations of its own send each place.

    Args:
        places: int64 ``(N,)``, each in ``[0, length)``.
        lengths: int64 ``(N,)``: of each permutation.
        seeds: uint64 ``(N,)``: which permutation; equal places of equal seeds go the same way.

    Returns:
        int64 ``(N,)``.
    """
    columns = np.maximum(np.ceil(np.sqrt(lengths)), 1).astype(np.uint64)
    rows = (lengths.astype(np.uint64) + columns - np.uint64(1)) // columns
    keys = [scattered(seeds, mix_seed(number)) for number in range(_ROUNDS_OF_FEW)]
    out = places.astype(np.uint64)
    outside = np.arange(len(places))
    while outside.size:
        walked = _feistel(out[outside], rows[outside], columns[outside], [key[outside] for key in keys])
        out[outside] = walked
        outside = outside[walked >= lengths[outside]]
    return out.astype(np.int64)


def passes(first: int, last: int, *, length: int, seed: int) -> Indices:
    """A stretch of an endless sequence of permutations of ``range(length)``, each drawn anew.

    Args:
        first: start of the stretch.
        last: its end.
        length: of each permutation.
        seed: of the sequence.

    Returns:
        int64 ``(last - first,)``.

    Example:
        >>> order = passes(0, 6, length=3, seed=1)
        >>> sorted(order[:3].tolist()), sorted(order[3:].tolist())
        ([0, 1, 2], [0, 1, 2])
    """
    if length == 1 or first >= last:
        return np.zeros(max(0, last - first), np.int64)
    if length <= _SORTED:
        return _short(first, last, length, seed)
    parts: list[Indices] = []
    while first < last:
        number, offset = divmod(first, length)
        end = min(last, (number + 1) * length)
        places = np.arange(offset, offset + end - first, dtype=np.int64)
        parts.append(permuted(places, length=length, seed=mix_seed(seed, number)))
        first = end
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _short(first: int, last: int, length: int, seed: int) -> Indices:
    """Sorts hashed counters, many permutations at once."""
    out = np.empty(last - first, np.int64)
    step = max(1, _AT_ONCE // length)
    mask, numbers = np.uint64(_SORTED - 1), np.arange(length, dtype=np.uint64)
    for begin in range(first // length, -(-last // length), step):
        end = min(begin + step, -(-last // length))
        words = scattered(np.arange(begin * length, end * length), seed).reshape(end - begin, length)
        # The number rides in the last bits of its word: sorting plain words is several times faster than an argsort.
        words &= ~mask
        words |= numbers
        words.sort(axis=1)
        order = (words & mask).ravel()
        start, stop = max(first, begin * length), min(last, end * length)
        out[start - first : stop - first] = order[start - begin * length : stop - begin * length]
    return out


def _feistel(x: Words, rows: Word, columns: Word, keys: Sequence[Word]) -> Words:
    """One pass of the network over a grid: a place is a row and a column, and each in turn moves the other on."""
    row = x // columns
    column = x - row * columns
    for number, key in enumerate(keys):
        if number % 2:
            column = _moved(column, columns, by=row, key=key)
        else:
            row = _moved(row, rows, by=column, key=key)
    row *= columns
    row += column
    return row


def _moved(value: Words, size: Word, *, by: Words, key: Word) -> Words:
    z = (by + key) * _FIRST
    z ^= z >> np.uint64(32)
    z *= _SECOND
    z >>= np.uint64(32)
    z *= size  # 32 random bits to [0, size)
    z >>= np.uint64(32)
    z += value
    # Modulo without a division: below the size the difference wraps around to a huge number.
    return np.minimum(z, z - size)
