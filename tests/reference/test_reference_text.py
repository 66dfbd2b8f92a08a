"""Text metrics against sacrebleu, NLTK, torchmetrics and the published definition of CIDEr-D."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import torch
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu, sentence_bleu
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_char import TokenizerChar
from sacrebleu.tokenizers.tokenizer_intl import TokenizerV14International
from sacrebleu.tokenizers.tokenizer_none import NoneTokenizer
from torchmetrics.functional.text import rouge_score

from neurotrain.metrics.functional import (
    bleu_score,
    cider_d_score,
    rouge_l_score,
    sentence_bleu_score,
    tokenize,
)

TOKENIZERS = {
    "13a": Tokenizer13a(),
    "intl": TokenizerV14International(),
    "char": TokenizerChar(),
    "none": NoneTokenizer(),
}
PIECES = [
    *"ab01..,,--  '\"&;<>$#%()!?+=^`~|{}[]/\\:@_*\t\n",
    *"é中文・،٣½ⅷ²…—€«»“”°",
    "\u00a0",
    "\u3000",
    "\u2028",
    "\x1c",
    "&amp;",
    "&lt;",
    "&gt;",
    "&quot;",
    "&amp;lt;",
    "<skipped>",
    "-\n",
    "1,000.5",
    "U.S.",
]


def corpus(seed: int, *, segments: int, references: int) -> tuple[list[str], list[list[str]]]:
    """Texts with repeated words, punctuation, empty ones, and references of other lengths."""
    draw = random.Random(seed)
    words = [f"w{k}" for k in range(60)] + ["the", "the", "a", "3.5%", "don't", "x-y", "end.", '"so"', ","]

    def sentence() -> str:
        return " ".join(draw.choice(words) for _ in range(draw.choice([0, 1, 2, 3, 5, 9, 20])))

    wanted = [[sentence() for _ in range(references)] for _ in range(segments)]
    texts = [" ".join(w if draw.random() < 0.8 else "new" for w in draw.choice(own).split()) for own in wanted]
    return texts, wanted


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers_equal_sacrebleu(name: str) -> None:
    draw = random.Random(1)
    for _ in range(1500):
        text = "".join(draw.choice(PIECES) for _ in range(draw.randint(0, 12)))
        assert tokenize(text, tokenizer=name) == TOKENIZERS[name](text.rstrip()).split(), repr(text)


@pytest.mark.parametrize("references", [1, 3])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("smoothing", ["none", "floor", "add-k", "exp"])
def test_bleu_equals_sacrebleu(references: int, tokenizer: str, smoothing: str) -> None:
    texts, wanted = corpus(2, segments=60, references=references)
    for effective in (False, True):
        for order in (1, 2, 4):
            peer = BLEU(
                tokenize=tokenizer,
                smooth_method=smoothing,
                effective_order=effective,
                max_ngram_order=order,
                lowercase=True,
                force=True,
            )
            options = {"tokenizer": tokenizer, "smoothing": smoothing, "effective_order": effective}
            options |= {"max_order": order, "lowercase": True}
            expected = peer.corpus_score(texts, [list(column) for column in zip(*wanted, strict=True)]).score
            assert 100 * bleu_score(texts, wanted, **options).item() == pytest.approx(expected, abs=1e-9)
            single = [
                peer._compute_score_from_stats(peer._extract_corpus_statistics([text], [[r] for r in own])[0]).score
                for text, own in zip(texts, wanted, strict=True)
            ]
            found = 100 * sentence_bleu_score(texts, wanted, **options)
            torch.testing.assert_close(found, torch.tensor(single, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [0.01, 0.5])
@pytest.mark.parametrize("smoothing", ["floor", "add-k"])
def test_smoothing_values_equal_sacrebleu(smoothing: str, value: float) -> None:
    texts, wanted = corpus(3, segments=4, references=2)
    peer = BLEU(tokenize="none", smooth_method=smoothing, smooth_value=value, force=True)
    expected = peer.corpus_score(texts, [list(column) for column in zip(*wanted, strict=True)]).score
    found = bleu_score(texts, wanted, tokenizer="none", smoothing=smoothing, smoothing_value=value)
    assert 100 * found.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("method", [1, 2, 3, 4])
def test_bleu_equals_nltk(method: int) -> None:
    texts, wanted = corpus(4, segments=80, references=2)
    smoothing = getattr(SmoothingFunction(), f"method{method}")
    tokens, references = [text.split() for text in texts], [[entry.split() for entry in own] for own in wanted]
    options = {"tokenizer": "none", "smoothing": f"nltk-{method}"}
    expected = corpus_bleu(references, tokens, smoothing_function=smoothing)
    assert bleu_score(texts, wanted, **options).item() == pytest.approx(expected, abs=1e-12)
    single = [
        float(sentence_bleu(own, text, smoothing_function=smoothing))
        for own, text in zip(references, tokens, strict=True)
    ]
    found = sentence_bleu_score(texts, wanted, effective_order=False, **options)
    torch.testing.assert_close(found, torch.tensor(single, dtype=torch.float64), rtol=0, atol=1e-12)


def test_rouge_l_equals_torchmetrics() -> None:
    texts, wanted = corpus(5, segments=40, references=3)
    texts[0], wanted[1][0] = "", ""
    found = rouge_l_score(texts, wanted)
    for text, own, score in zip(texts, wanted, found.tolist(), strict=True):
        # its "best" is of all its keys' first one: here the only one
        peer = rouge_score([text], [own], rouge_keys="rougeL", accumulate="best")
        assert score == pytest.approx(peer["rougeL_fmeasure"].item(), abs=1e-6)


def test_cider_d_follows_its_definition() -> None:
    texts, wanted = corpus(6, segments=25, references=3)
    found = cider_d_score(texts, wanted, tokenizer="none", lowercase=False)
    expected = plain_cider_d([t.split() for t in texts], [[r.split() for r in own] for own in wanted])
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert 1 < found.mean() < 9


def plain_cider_d(texts: list[list[str]], wanted: list[list[list[str]]], sigma: float = 6) -> list[float]:
    """Equations of section 5, with dictionaries."""

    def grams(tokens: list[str], n: int) -> Counter:
        return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))

    scores = [0.0] * len(texts)
    for n in range(1, 5):
        frequency = Counter(gram for own in wanted for gram in set().union(*(grams(entry, n) for entry in own)))

        def vector(tokens: list[str], n: int = n, frequency: Counter = frequency) -> dict[tuple[str, ...], float]:
            rare = {g: math.log(len(texts)) - math.log(max(1, frequency[g])) for g in grams(tokens, n)}
            return {g: count * rare[g] for g, count in grams(tokens, n).items()}

        for place, (text, own) in enumerate(zip(texts, wanted, strict=True)):
            for entry in own:
                c, s = vector(text), vector(entry)
                product = math.sqrt(sum(v * v for v in c.values())) * math.sqrt(sum(v * v for v in s.values()))
                if product:
                    cosine = sum(min(c.get(g, 0), v) * v for g, v in s.items()) / product
                    gap = max(len(text) - 1, 0) - max(len(entry) - 1, 0)
                    scores[place] += 10 * cosine * math.exp(-(gap**2) / (2 * sigma**2)) / len(own) / 4
    return scores
