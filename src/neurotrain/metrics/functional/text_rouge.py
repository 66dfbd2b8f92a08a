"""ROUGE-L: the longest common subsequence of a text and its reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from neurotrain.metrics.functional.labels import check_choice
from neurotrain.metrics.functional.text_ngrams import check_texts, encode_segments
from neurotrain.metrics.functional.text_tokenizers import TextTokenizer, Vocabulary

RougeDefinition = Literal["google", "coco"]
"""``google``: the best F1 of the references (rouge_score); ``coco``: F with beta 1.2 of the best precision and the best
recall, each over the references (coco-caption)."""


def rouge_l_score(
    preds: Sequence[str],
    target: Sequence[Sequence[str]] | Sequence[str],
    *,
    definition: RougeDefinition = "google",
    tokenizer: TextTokenizer = "rouge",
    lowercase: bool = False,
) -> Tensor:
    """F measure of the longest common subsequence of each text and its references.

    ``P = LCS / tokens of the text``, ``R = LCS / tokens of the reference``, ``F = (1 + b^2) P R / (R + b^2 P)``.

    Args:
        preds: texts.
        target: for each text its references, or its only one.
        definition: see :data:`RougeDefinition`.
        tokenizer: see :data:`neurotrain.metrics.functional.text_tokenizers.TextTokenizer`. No stemming.
        lowercase: whether texts are lowered first; ``rouge`` does so in any case.

    Returns:
        float64 ``(S,)`` in [0, 1]; 0 where nothing is shared, also for an empty text and an empty reference. The
        score of a corpus is its mean.

    Raises:
        ValueError: if a choice is unknown, the lengths differ, or a text has no reference.

    Reference:
        Lin, 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3.1.

    Example:
        >>> rouge_l_score(["police kill the gunman"], ["police killed the gunman"]).item()
        0.75
    """
    check_choice("definition", definition, get_args(RougeDefinition))
    references = check_texts(preds, target)
    segments = encode_segments(preds, references, Vocabulary(tokenizer=tokenizer, lowercase=lowercase))
    texts = _split(segments.preds.ids, segments.preds.lengths)
    wanted = _split(segments.references.ids, segments.references.lengths)
    scores, first = np.zeros(len(texts)), 0
    for place, (text, number) in enumerate(zip(texts, segments.numbers.tolist(), strict=True)):
        own = wanted[first : first + number]
        first += number
        common = [longest_common_subsequence(text, reference) for reference in own]
        precision = [length / max(len(text), 1) for length in common]
        recall = [length / max(len(reference), 1) for length, reference in zip(common, own, strict=True)]
        if definition == "coco":
            scores[place] = _f_measure(max(precision), max(recall), beta=1.2)
        else:
            scores[place] = max(_f_measure(p, r, beta=1.0) for p, r in zip(precision, recall, strict=True))
    return torch.from_numpy(scores)


def longest_common_subsequence(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest sequence that both have, not necessarily without gaps.

    Each row of the usual table is one integer, whose bits say where it does not grow.

    Args:
        left: tokens.
        right: tokens.

    Reference:
        Hyyro, 2004, "Bit-parallel LCS-length computation revisited".

    Example:
        >>> longest_common_subsequence([1, 2, 3, 4], [1, 3, 5, 4])
        3
    """
    where: dict[int, int] = {}
    for place, token in enumerate(right):
        where[token] = where.get(token, 0) | 1 << place
    full = (1 << len(right)) - 1
    row = full
    for token in left:
        hits = row & where.get(token, 0)
        row = ((row + hits) | (row - hits)) & full
    return len(right) - row.bit_count()


def _split(ids: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
    return [piece.tolist() for piece in np.split(ids, np.cumsum(lengths)[:-1])] if len(lengths) else []


def _f_measure(precision: float, recall: float, *, beta: float) -> float:
    if not (precision and recall):
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
