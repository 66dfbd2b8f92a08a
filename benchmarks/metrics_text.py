"""Rows of text: BLEU of a corpus, from strings to the figure.

Words are drawn by Zipf's law from 30,000; a text is its reference with a quarter of the words replaced. sacrebleu
remembers the lines that it has tokenized: its memory is cleared before each turn, as in an evaluation.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import numpy as np
from harness import Options, Result, interleaved, is_installed, left_out

from neurotrain.metrics.functional import bleu_score

ROUNDS = 3


def corpus(pairs: int, vocabulary: int = 30_000) -> tuple[list[str], list[str]]:
    """Texts and references of 10 to 45 words."""
    rng, choice = np.random.default_rng(0), random.Random(0)  # noqa: S311 - no secret
    places = np.minimum((rng.pareto(0.9, (pairs, 45)) * 8).astype(int), vocabulary - 1)
    words = [f"word{place}" for place in range(vocabulary)]
    references = [
        " ".join(words[k] for k in row[:length]) + (", and so on." if length % 3 else ".")
        for row, length in zip(places.tolist(), rng.integers(10, 45, pairs).tolist(), strict=True)
    ]
    texts = [
        " ".join(word if choice.random() < 0.75 else choice.choice(words) for word in reference.split())
        for reference in references
    ]
    return texts, references


def rows(options: Options) -> Iterator[Result]:
    """Every row of the family."""
    number = 2_000 if options.quick else 10_000
    texts, references = corpus(number)

    def sacrebleu(tokenizer: str) -> float:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
        from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

        for memory in (Tokenizer13a.__call__, TokenizerRegexp.__call__):
            memory.cache_clear()
        return BLEU(tokenize=tokenizer, force=True).corpus_score(texts, [references]).score / 100

    def nltk() -> float:
        from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

        return corpus_bleu(
            [[reference.split()] for reference in references],
            [text.split() for text in texts],
            smoothing_function=SmoothingFunction().method3,
        )

    def torchmetrics() -> float:
        from torchmetrics.functional.text import bleu_score as peer

        return float(peer(texts, [[reference] for reference in references]))

    name = f"corpus BLEU, {number} pairs"
    peers = {
        "sacrebleu, 13a": ("sacrebleu", "13a", lambda: sacrebleu("13a"), 3, 1e-9),
        "sacrebleu, none": ("sacrebleu", "none", lambda: sacrebleu("none"), 3, 1e-9),
        "NLTK, none": ("nltk", "none", nltk, 3, 1e-9),
        "torchmetrics, none": ("torchmetrics", "none", torchmetrics, 20, 1e-5),
    }
    for peer_name, (module, tokenizer, peer, speedup, close) in peers.items():
        yield _row(f"{name}, {tokenizer}", peer_name, module, _ours(texts, references, tokenizer), peer, speedup,
                   close, options)  # fmt: skip


def _ours(texts: list[str], references: list[str], tokenizer: str) -> Callable[[], float]:
    return lambda: bleu_score(texts, references, tokenizer=tokenizer).item()


def _row(
    name: str,
    peer_name: str,
    module: str,
    ours: Callable[[], float],
    peer: Callable[[], float],
    speedup: float,
    close: float,
    options: Options,
) -> Result:
    if not is_installed(module):
        alone = interleaved({"ours": lambda: _milliseconds(ours)}, rounds=ROUNDS, options=options)
        return left_out(name=name, ours=alone["ours"], peer_name=peer_name, unit="ms", goal=1 / speedup)
    assert abs(ours() - peer()) < close, peer_name
    sides = {"ours": lambda: _milliseconds(ours), "peer": lambda: _milliseconds(peer)}
    measured = interleaved(sides, rounds=ROUNDS, options=options)
    return Result(
        name=name, ours=measured["ours"], peer=measured["peer"], peer_name=peer_name, unit="ms", goal=1 / speedup
    )


def _milliseconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begin)
