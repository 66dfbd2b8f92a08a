from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from neurotrain.networks.captioning.decoding import Decoded, Marks, beam_search, greedy_search

START, END, PAD, SIZE, LENGTH = 0, 1, 4, 4, 4
"""Tokens 0 to 3 are what the toy can say; padding is none of them."""
PLACES = {"marks": Marks(START, END, PAD), "length": LENGTH, "device": torch.device("cpu")}


class Toy:
    """Log probabilities of the next token that depend on the whole beginning; each sequence has its own."""

    def __init__(self, seed: int, *, count: int, rows: int = 1) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (count, *[SIZE] * LENGTH, SIZE)
        self.table = (2 * torch.randn(shape, generator=generator)).double().log_softmax(-1)
        self.which = [row // rows for row in range(count * rows)]
        self.said: list[list[int]] = [[] for _ in self.which]

    def next_logits(self, tokens_N: Tensor) -> Tensor:
        for said, token in zip(self.said, tokens_N.tolist(), strict=True):
            said.append(token)
        # Padding after an end: whatever follows must not matter.
        known = [[min(token, SIZE - 1) for token in said] for said in self.said]
        return torch.stack([self.after(place, said) for place, said in zip(self.which, known, strict=True)])

    def after(self, which: int, said: list[int]) -> Tensor:
        return self.table[(which, *said, *[0] * (LENGTH - len(said)))]

    def reorder(self, rows_N: Tensor) -> None:
        self.said = [list(self.said[row]) for row in rows_N.tolist()]

    def score(self, which: int, sequence: tuple[int, ...]) -> float:
        said, total = [START], 0.0
        for token in sequence:
            total += float(self.after(which, said)[token])
            said.append(token)
        return total


def _all_sequences() -> list[tuple[int, ...]]:
    """Everything of at most LENGTH tokens that ends, or is cut off there."""
    words = [token for token in range(SIZE) if token != END]
    ended = [(*words_, END) for size in range(LENGTH) for words_ in itertools.product(words, repeat=size)]
    return ended + list(itertools.product(words, repeat=LENGTH))


def _told(decoded: Decoded, row: int) -> tuple[int, ...]:
    return tuple(token for token in decoded.tokens[row].tolist() if token != PAD)


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 2.0])
def test_a_search_that_keeps_everything_finds_the_best_of_all_sequences(length_penalty: float) -> None:
    count, beams = 3, 3**LENGTH
    toy = Toy(seed=1, count=count)
    found = beam_search(
        Toy(seed=1, count=count, rows=beams), count=count, beams=beams, length_penalty=length_penalty, **PLACES
    )
    for row in range(count):
        scores = {way: toy.score(row, way) / len(way) ** length_penalty for way in _all_sequences()}
        best = max(scores, key=lambda way: scores[way])
        assert _told(found, row) == best
        assert float(found.scores[row]) == pytest.approx(scores[best])


def _reference_search(toy: Toy, which: int, beams: int, penalty: float) -> tuple[float, tuple[int, ...]]:
    """The definition, without tensors and without stopping early."""
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    done: list[tuple[float, tuple[int, ...]]] = []
    for place in range(LENGTH):
        grown = [
            (score + float(toy.after(which, [START, *said])[token]), (*said, token))
            for score, said in live
            for token in range(SIZE)
        ]
        ends = [way for way in grown if way[1][-1] == END or place == LENGTH - 1]
        done += [(score / len(said) ** penalty, said) for score, said in ends]
        live = sorted((way for way in grown if way[1][-1] != END), reverse=True)[:beams]
    return max(done)


@pytest.mark.parametrize("beams", [1, 2, 3])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_narrow_beams_are_those_of_the_definition(beams: int, penalty: float) -> None:
    for seed in range(5):
        found = beam_search(Toy(seed, count=4, rows=beams), count=4, beams=beams, length_penalty=penalty, **PLACES)
        for row in range(4):
            score, way = _reference_search(Toy(seed, count=4), row, beams, penalty)
            assert _told(found, row) == way
            assert float(found.scores[row]) == pytest.approx(score)


def test_greedy_takes_the_best_token_each_time_and_pads_behind_the_end() -> None:
    toy, found = Toy(seed=3, count=8), greedy_search(Toy(seed=3, count=8), count=8, **PLACES)
    lengths = set()
    for row in range(8):
        said = [START]
        while len(said) <= LENGTH and (len(said) == 1 or said[-1] != END):
            said.append(int(toy.after(row, said).argmax()))
        assert found.tokens[row].tolist() == said[1:] + [PAD] * (LENGTH + 1 - len(said))
        assert float(found.scores[row]) == pytest.approx(toy.score(row, tuple(said[1:])))
        lengths.add(len(said))
    assert len(lengths) > 1


def test_impossible_settings_are_refused() -> None:
    for beams, penalty in ((0, 1.0), (2, -1.0)):
        with pytest.raises(ValueError, match="beams="):
            beam_search(Toy(0, count=1), count=1, beams=beams, length_penalty=penalty, **PLACES)
    assert math.isfinite(float(beam_search(Toy(0, count=1, rows=2), count=1, beams=2, **PLACES).scores[0]))
