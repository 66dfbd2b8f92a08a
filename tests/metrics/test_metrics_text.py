"""Text metrics: by hand, empty texts, long ones, states, and what is refused."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

from neurotrain.metrics import BLEUScore, CIDErScore, ROUGELScore
from neurotrain.metrics.functional import (
    bleu_score,
    cider_d_score,
    rouge_l_score,
    sentence_bleu_score,
    tokenize,
)
from neurotrain.metrics.functional.text_bleu import bleu_statistics
from neurotrain.metrics.functional.text_rouge import longest_common_subsequence

TEXTS = ["the cat sat on the mat", "", "a dog", "the the the the"]
WANTED = [["the cat is on the mat", "there is a cat on the mat"], ["something"], ["a dog", ""], ["the the cat"]]


def test_bleu_worked_by_hand() -> None:
    # shared: 5 of 6, 3 of 5, 1 of 4 (1- to 3-grams); the references are as long as the text
    text, reference = ["the cat sat on the mat"], ["the cat is on the mat"]
    found = bleu_score(text, reference, tokenizer="none", max_order=3, smoothing="none")
    assert found.item() == pytest.approx((5 / 6 * 3 / 5 * 1 / 4) ** (1 / 3), abs=1e-15)
    # a text shorter than its reference
    short = bleu_score(["a b"], ["a b c d"], tokenizer="none", max_order=2)
    assert short.item() == pytest.approx(math.exp(1 - 4 / 2), abs=1e-15)


def test_counts_are_clipped_to_the_reference_that_has_most() -> None:
    statistics = bleu_statistics(["a a a b"], [["a b", "a a c"]], max_order=2, tokenizer="none")
    # length 4, closest reference 3; "a" twice and "b" once; "a a" and "a b" once
    assert statistics.tolist() == [[4, 3, 3, 2, 4, 3]]


def test_the_closest_reference_counts_and_of_two_the_shorter() -> None:
    statistics = bleu_statistics(["a b c"], [["x " * 5, "y", "z " * 9]], tokenizer="none")
    assert statistics[0, :2].tolist() == [3, 1]


def test_empty_texts() -> None:
    assert bleu_score([], []).isnan()
    assert sentence_bleu_score([], []).shape == (0,)
    assert bleu_score([""], ["a b"]).item() == 0
    assert bleu_score(["a b"], [""]).item() == 0
    assert sentence_bleu_score(["", "a"], ["a", "a"], tokenizer="none").tolist() == [0, 1]
    assert rouge_l_score(["", "a"], ["a", ""]).tolist() == [0, 0]
    assert cider_d_score(["", "b c"], ["a", "b c"]).tolist() == [0, pytest.approx(5)]  # two of four orders
    assert tokenize("") == []


def test_a_text_longer_than_bits_allow_in_one_word() -> None:
    words = [f"w{k % 3000}" for k in range(40_000)]
    text, reference = " ".join(words), " ".join(words[1:] + words[:1])
    statistics = bleu_statistics([text, "a b"], [[reference, "x"], ["a b", "y"]], max_order=6, tokenizer="none")
    # the n-grams across the cut are in the text once more than in the reference
    assert statistics[0, 2:8].tolist() == [40_000, *(39_999 - k for k in range(1, 6))]
    assert statistics[1].tolist() == [2, 2, 2, 1, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0]


def test_many_segments_are_counted_in_parts() -> None:
    texts = [f"a b c w{k} d e" for k in range(5500)]
    wanted = [[f"a b c w{k} x", f"w{k} d e"] for k in range(5500)]
    parts = bleu_statistics(texts, wanted, tokenizer="none")
    assert parts.unique(dim=0).tolist() == [[6, 5, 6, 5, 3, 1, 6, 5, 4, 3]]


def test_rouge_l_worked_by_hand() -> None:
    # LCS "police the gunman": 3 of 4 and 3 of 4; "the gunman": 2
    texts = ["police kill the gunman", "the gunman kill police"]
    found = rouge_l_score(texts, ["police killed the gunman"] * 2)
    assert found.tolist() == [0.75, 0.5]
    # coco: P = 3/4 of the first, R = 1 of the second
    coco = rouge_l_score(["a b c d"], [["a b x c y", "b d"]], definition="coco", tokenizer="none")
    p, r, beta = 3 / 4, 1.0, 1.2
    assert coco.item() == pytest.approx((1 + beta**2) * p * r / (r + beta**2 * p), abs=1e-15)


def test_longest_common_subsequence_equals_the_table() -> None:
    generator = torch.Generator().manual_seed(0)
    for length in (0, 1, 5, 40, 130):
        left = torch.randint(0, 6, (length,), generator=generator).tolist()
        right = torch.randint(0, 6, (max(2 * length // 3, 1),), generator=generator).tolist()
        row = [0] * (len(right) + 1)
        for a in left:
            before, row = row, [0]
            for place, b in enumerate(right):
                row.append(before[place] + 1 if a == b else max(before[place + 1], row[place]))
        assert longest_common_subsequence(left, right) == row[-1]


def test_cider_d_worked_by_hand() -> None:
    # one order; "a" is in both images and weighs nothing, the others log 2
    found = cider_d_score(["a b", "a"], [["a b", "a c"], ["a d"]], max_order=1, tokenizer="none")
    assert found.tolist() == [pytest.approx(10 * (1 + 0) / 2), 0]
    longer = cider_d_score(["b b b", "x"], ["b", "y"], max_order=1, tokenizer="none")
    assert longer[0].item() == pytest.approx(10 * (1 / 3) * math.exp(-(2**2) / (2 * 36)))


@pytest.mark.parametrize(
    ("metric", "function"),
    [
        (BLEUScore(), bleu_score),
        (BLEUScore(smoothing="nltk-1", tokenizer="none"), None),
        (ROUGELScore(), rouge_l_score),
        (CIDErScore(), cider_d_score),
    ],
)
def test_classes_accumulate(metric, function) -> None:  # noqa: ANN001 - metrics and functions
    if function is None:
        expected = bleu_score(TEXTS, WANTED, smoothing="nltk-1", tokenizer="none")
    else:
        expected = function(TEXTS, WANTED).mean()
    metric.update(TEXTS[:1], WANTED[:1])
    clone = pickle.loads(pickle.dumps(copy.deepcopy(metric.clone())))
    for each in (metric, clone):
        each.update([], [])
        each.update(TEXTS[1:], WANTED[1:])
        torch.nn.ModuleList([each]).to(torch.bfloat16)
        assert each.compute().item() == pytest.approx(expected.item(), abs=1e-15)
    assert expected > 0
    metric.reset()
    metric.update([], [])
    assert metric.compute().isnan()


REFUSED = [
    (lambda: bleu_score("a b", "a b"), "not one text"),
    (lambda: bleu_score(["a"], []), "preds holds 1 texts"),
    (lambda: bleu_score(["a"], [[]]), "holds no reference"),
    (lambda: bleu_score(["a"], [[3]]), "texts are needed"),
    (lambda: bleu_score(["a"], ["a"], tokenizer="13b"), "did you mean '13a'"),
    (lambda: bleu_score(["a"], ["a"], smoothing="add_k"), "did you mean 'add-k'"),
    (lambda: bleu_score(["a"], ["a"], smoothing="exp", smoothing_value=1.0), "has no effect"),
    (lambda: bleu_score(["a"], ["a"], max_order=0), "at least 1"),
    (lambda: BLEUScore(tokenizer="intel"), "did you mean 'intl'"),
    (lambda: rouge_l_score(["a"], ["a"], definition="goggle"), "did you mean 'google'"),
    (lambda: ROUGELScore(definition="x"), "is not one of"),
    (lambda: cider_d_score(["a"], ["a"], sigma=0.0), "greater than 0"),
    (lambda: CIDErScore(max_order=0), "at least 1"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_wrong_input_is_named(call, message: str) -> None:  # noqa: ANN001 - a function
    with pytest.raises(ValueError, match=message):
        call()
