"""BLEU from counts: of a corpus and of sentences, with the smoothing methods in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neurotrain.metrics.functional.labels import check_choice
from neurotrain.metrics.functional.text_ngrams import check_texts, closest_lengths, common_ngrams, encode_segments
from neurotrain.metrics.functional.text_tokenizers import TextTokenizer, Vocabulary

Floats: TypeAlias = npt.NDArray[np.float64]

BleuSmoothing = Literal["none", "floor", "add-k", "exp", "nltk-1", "nltk-2", "nltk-3", "nltk-4"]
"""``none``, ``floor``, ``add-k``, ``exp``: sacrebleu's; ``nltk-1`` to ``nltk-4``: NLTK's methods 1 to 4.

The first three of NLTK are ``floor``, ``add-k`` and ``exp`` but for orders that a text is too short for: NLTK takes
their number of n-grams, 0, as 1 in each sentence.
"""

_DEFAULTS = {"floor": 0.1, "add-k": 1.0, "nltk-1": 0.1, "nltk-4": 5.0}


def bleu_score(
    preds: Sequence[str],
    target: Sequence[Sequence[str]] | Sequence[str],
    *,
    max_order: int = 4,
    tokenizer: TextTokenizer = "13a",
    lowercase: bool = False,
    smoothing: BleuSmoothing = "exp",
    smoothing_value: float | None = None,
    effective_order: bool = False,
) -> Tensor:
    """BLEU of a corpus, ``BP * exp(mean of log precision_n)``; 100 times it is sacrebleu's figure.

    Args:
        preds: texts, as they are: tokenizing is part of the metric.
        target: for each text its references, or its only one (sacrebleu takes the transpose).
        max_order: N, the longest n-grams: 4 for BLEU-4, 1 for BLEU-1.
        tokenizer: see :data:`neurotrain.metrics.functional.text_tokenizers.TextTokenizer`.
        lowercase: whether texts are lowered first.
        smoothing: of precisions that are 0, see :data:`BleuSmoothing`.
        smoothing_value: of ``floor`` and ``nltk-1`` (0.1 when not given), ``add-k`` (1) and ``nltk-4`` (5).
        effective_order: whether orders that the texts are too short for are left out.

    Returns:
        float64 scalar in [0, 1]; 0 where nothing is shared, NaN for no text at all.

    Raises:
        ValueError: if a choice or a number is wrong, the lengths differ, or a text has no reference.

    Reference:
        Papineni et al., 2002; Post, 2018 (arXiv:1804.08771); Chen and Cherry, 2014, for the smoothing.

    Example:
        >>> bleu_score(["the cat sat on the mat"], ["the cat sat on a mat"]).item()
        0.537284965911771
    """
    check_bleu_settings(max_order, smoothing, smoothing_value)
    statistics = bleu_statistics(
        preds, target, max_order=max_order, tokenizer=tokenizer, lowercase=lowercase, smoothing=smoothing
    )
    return bleu_from_statistics(
        statistics.sum(dim=0), smoothing=smoothing, smoothing_value=smoothing_value, effective_order=effective_order
    )


def sentence_bleu_score(
    preds: Sequence[str],
    target: Sequence[Sequence[str]] | Sequence[str],
    *,
    max_order: int = 4,
    tokenizer: TextTokenizer = "13a",
    lowercase: bool = False,
    smoothing: BleuSmoothing = "exp",
    smoothing_value: float | None = None,
    effective_order: bool = True,
) -> Tensor:
    """BLEU of each text alone; arguments as of :func:`bleu_score`.

    Returns:
        float64 ``(S,)`` in [0, 1]; 0 for an empty text.

    Raises:
        ValueError: if a choice or a number is wrong, the lengths differ, or a text has no reference.

    Example:
        >>> sentence_bleu_score(["a b", "a c"], ["a b", "a b"], tokenizer="none").tolist()
        [1.0, 0.5]
    """
    check_bleu_settings(max_order, smoothing, smoothing_value)
    statistics = bleu_statistics(
        preds, target, max_order=max_order, tokenizer=tokenizer, lowercase=lowercase, smoothing=smoothing
    )
    return bleu_from_statistics(
        statistics, smoothing=smoothing, smoothing_value=smoothing_value, effective_order=effective_order
    )


def bleu_statistics(
    preds: Sequence[str],
    target: Sequence[Sequence[str]] | Sequence[str],
    *,
    max_order: int = 4,
    tokenizer: TextTokenizer = "13a",
    lowercase: bool = False,
    smoothing: BleuSmoothing = "exp",
) -> Tensor:
    """What BLEU is made of; statistics of a corpus are the sum of those of its texts.

    Args:
        preds: as of :func:`bleu_score`.
        target: as of :func:`bleu_score`.
        max_order: N.
        tokenizer: as of :func:`bleu_score`.
        lowercase: as of :func:`bleu_score`.
        smoothing: NLTK's methods count an order without n-grams as one.

    Returns:
        int64 ``(S, 2 + 2N)``: length of the text, that of the reference closest to it, shared n-grams and n-grams of
        each order.

    Raises:
        ValueError: if the lengths differ, or a text has no reference.

    Example:
        >>> bleu_statistics(["a b c"], [["a b", "b c d e"]], max_order=2).tolist()
        [[3, 2, 3, 2, 3, 2]]
    """
    references = check_texts(preds, target)
    segments = encode_segments(preds, references, Vocabulary(tokenizer=tokenizer, lowercase=lowercase))
    lengths = segments.preds.lengths
    totals = np.maximum(lengths[:, None] - np.arange(max_order), int(smoothing.startswith("nltk")))
    columns = [
        lengths[:, None],
        closest_lengths(segments)[:, None],
        common_ngrams(segments, max_order=max_order),
        totals,
    ]
    return torch.from_numpy(np.concatenate(columns, axis=1))


def bleu_from_statistics(
    statistics: Tensor,
    *,
    smoothing: BleuSmoothing = "exp",
    smoothing_value: float | None = None,
    effective_order: bool = False,
) -> Tensor:
    """BLEU of statistics, or of sums of them; other arguments as of :func:`bleu_score`.

    Args:
        statistics: int64 ``(..., 2 + 2N)`` of :func:`bleu_statistics`.
        smoothing: as of :func:`bleu_score`.
        smoothing_value: as of :func:`bleu_score`.
        effective_order: as of :func:`bleu_score`.

    Returns:
        float64 ``(...)``.
    """
    counts: Floats = statistics.cpu().numpy().astype(np.float64)
    length, reference = counts[..., 0], counts[..., 1]
    orders = (counts.shape[-1] - 2) // 2
    matched, total = counts[..., 2 : 2 + orders], counts[..., 2 + orders :]
    value = _DEFAULTS.get(smoothing, 0.0) if smoothing_value is None else smoothing_value
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, counted = _precisions(matched, total, length, smoothing, value)
        logarithm = np.where(counted, np.log(precision), 0.0)
        used = counted.sum(axis=-1) if effective_order else orders
        penalty = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        if not effective_order and not smoothing.startswith("nltk"):
            logarithm = np.where(counted, logarithm, -np.inf)  # an order without n-grams has precision 0
        score = penalty * np.exp(logarithm.sum(axis=-1) / used)
    score = np.where(matched.any(axis=-1), score, 0.0)
    nothing = (length == 0) & (reference == 0) & ~matched.any(axis=-1) & (statistics.ndim == 1)
    return torch.from_numpy(np.asarray(np.where(nothing, np.nan, score))).to(statistics.device)


def _precisions(
    matched: Floats, total: Floats, length: Floats, smoothing: str, value: float
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Smoothed precisions ``(..., N)`` and which of them count."""
    if smoothing in ("add-k", "nltk-2"):
        added = np.where(np.arange(total.shape[-1]) > 0, 1.0 if smoothing == "nltk-2" else value, 0.0)
        matched, total = matched + added, total + added
    # orders after the first without any n-gram do not count
    counted = np.logical_and.accumulate(total > 0, axis=-1)
    missing = (matched == 0) & counted
    plain = matched / total
    if smoothing in ("floor", "nltk-1"):
        return np.where(missing, value / total, plain), counted
    if smoothing in ("exp", "nltk-3"):
        return np.where(missing, 1 / (2.0 ** missing.cumsum(axis=-1) * total), plain), counted
    if smoothing == "nltk-4":
        shrunk = np.log(length)[..., None] / (2.0 ** missing.cumsum(axis=-1) * value) / total
        # a text of one token has no such precision: NLTK leaves it out
        return np.where(missing, shrunk, plain), counted & ~(missing & (length[..., None] <= 1))
    return plain, counted


def check_bleu_settings(max_order: int, smoothing: str, smoothing_value: float | None) -> None:
    """Refuse settings that have no meaning or no effect.

    Raises:
        ValueError: if the order is less than 1, the smoothing is unknown, or its value is negative or not used.
    """
    check_choice("smoothing", smoothing, get_args(BleuSmoothing))
    if max_order < 1:
        raise ValueError(f"max_order={max_order} must be at least 1")
    if smoothing_value is not None and smoothing not in _DEFAULTS:
        raise ValueError(f"smoothing_value={smoothing_value} has no effect with smoothing={smoothing!r}")
    if smoothing_value is not None and smoothing_value < 0:
        raise ValueError(f"smoothing_value={smoothing_value} must be at least 0")
