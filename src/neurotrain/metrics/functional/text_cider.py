"""CIDEr-D: agreement of a caption with its references, n-grams weighted by how rare they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neurotrain.metrics.functional.text_ngrams import Ints, Segments, check_texts, encode_segments
from neurotrain.metrics.functional.text_tokenizers import TextTokenizer, Vocabulary


def cider_d_score(
    preds: Sequence[str],
    target: Sequence[Sequence[str]] | Sequence[str],
    *,
    max_order: int = 4,
    sigma: float = 6.0,
    tokenizer: TextTokenizer = "13a",
    lowercase: bool = True,
) -> Tensor:
    """CIDEr-D of each caption; that of a corpus is the mean.

    An n-gram's weight is its count times ``log(S / images whose references have it)``. Weights of the caption are
    clipped to those of the reference, the cosine of both is damped by ``exp(-(difference in length)^2 / (2 sigma^2))``,
    and the mean over orders and references is multiplied by 10.

    Args:
        preds: captions of a whole data set: how rare an n-gram is depends on all of it.
        target: for each caption its references.
        max_order: longest n-grams.
        sigma: of the damping.
        tokenizer: see :data:`neurotrain.metrics.functional.text_tokenizers.TextTokenizer`. Published figures come from
            Stanford's PTB tokenizer without punctuation: give its output with ``tokenizer="none"`` to compare.
        lowercase: whether texts are lowered first.

    Returns:
        float64 ``(S,)`` in [0, 10]; all 0 for a single image, whose n-grams are not rare.

    Raises:
        ValueError: if a number is wrong, or a caption has no reference.

    Reference:
        Vedantam et al., 2015 (arXiv:1411.5726), section 5; lengths are counted in bigrams, as coco-caption does.

    Example:
        >>> scores = cider_d_score(["a red bus drives", "two dogs play here"], ["a red bus drives", "cats sleep"])
        >>> [round(score, 6) for score in scores.tolist()]
        [10.0, 0.0]
    """
    check_cider_settings(max_order, sigma)
    references = check_texts(preds, target)
    segments = encode_segments(preds, references, Vocabulary(tokenizer=tokenizer, lowercase=lowercase))
    number = len(segments.numbers)
    segment = np.repeat(np.arange(number), segments.numbers)
    similarity = np.zeros(len(segment))
    for texts, grams in _grams(segments, max_order):
        similarity += _cosines(texts, grams, segment, number)
    own, theirs = (np.maximum(tokens.lengths - 1, 0) for tokens in (segments.preds, segments.references))
    gap = (own[segment] - theirs).astype(np.float64)
    damped = similarity * np.exp(-(gap**2) / (2 * sigma**2)) / max_order
    return torch.from_numpy(10 * np.bincount(segment, weights=damped, minlength=number) / segments.numbers)


def check_cider_settings(max_order: int, sigma: float) -> None:
    """Refuse numbers that have no meaning.

    Raises:
        ValueError: if the order is less than 1 or sigma is not positive.
    """
    if max_order < 1:
        raise ValueError(f"max_order={max_order} must be at least 1")
    if not sigma > 0:
        raise ValueError(f"sigma={sigma} must be greater than 0")


def _grams(segments: Segments, max_order: int) -> list[tuple[Ints, Ints]]:
    """For each order the text (captions before references) and the n-gram at each place, as numbers."""
    lengths = np.concatenate([segments.preds.lengths, segments.references.lengths])
    ids = np.concatenate([segments.preds.ids, segments.references.ids])
    text = np.repeat(np.arange(len(lengths)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(ids))
    place, gram = np.arange(len(ids)), ids
    found = [(text, gram)]
    for order in range(2, max_order + 1):
        keep = left[place] >= order
        place = place[keep]
        gram = np.unique(gram[keep] * (segments.vocabulary_size + 1) + ids[place + order - 1], return_inverse=True)[1]
        found.append((text[place], gram))
    return found


def _cosines(texts: Ints, grams: Ints, segment: Ints, number: int) -> np.ndarray:
    """Clipped cosine of each reference with the caption of its segment, for one order."""
    size = int(grams.max(initial=0)) + 1
    key, count = np.unique(texts * size + grams, return_counts=True)
    text, gram = np.divmod(key, size)
    of_reference = text >= number
    owner = segment[text[of_reference] - number]
    holders = np.unique(owner * size + gram[of_reference]) % size
    frequency = np.maximum(np.bincount(holders, minlength=size), 1)
    weight = count * (np.log(float(max(number, 1))) - np.log(frequency))[gram]
    norm = np.sqrt(np.bincount(text, weights=weight**2, minlength=number + len(segment)))
    own, theirs = key[~of_reference], owner * size + gram[of_reference]
    if not len(own):
        return np.zeros(len(segment))
    at = np.minimum(np.searchsorted(own, theirs), len(own) - 1)
    mine = np.where(own[at] == theirs, weight[~of_reference][at], 0.0)
    other = weight[of_reference]
    shared = np.bincount(text[of_reference] - number, weights=np.minimum(mine, other) * other, minlength=len(segment))
    product = norm[:number][segment] * norm[number:]
    return np.divide(shared, product, out=np.zeros(len(segment)), where=product > 0)
