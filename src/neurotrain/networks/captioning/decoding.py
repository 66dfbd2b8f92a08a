"""From a network that tells the next token to whole sequences: greedy, and by beam search.

Shape legend: ``B`` sequences that are wanted, ``K`` beams of each, ``N = B K`` rows, ``L`` places, ``V`` tokens.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Continuation(Protocol):
    """Sequences that are under way, one a row, with whatever memory they need."""

    def next_logits(self, tokens_N: Tensor) -> Tensor:
        """Append a token to each row and return logits ``(N, V)`` of the one after it."""
        ...

    def reorder(self, rows_N: Tensor) -> None:
        """Let row ``i`` be what row ``rows_N[i]`` was."""
        ...


class Marks(NamedTuple):
    """Tokens that stand for no text.

    Attributes:
        start: that each sequence follows.
        end: that ends one.
        pad: behind the end.
    """

    start: int
    end: int
    pad: int


class Decoded(NamedTuple):
    """Sequences.

    Attributes:
        tokens: int64 ``(B, L)`` without start; ``pad`` behind ``end``. One that was cut off at L has no ``end``.
        scores: float64 ``(B,)``: log probability over ``length ** length_penalty``, where the length counts ``end``.
    """

    tokens: Tensor
    scores: Tensor


def greedy_search(model: Continuation, *, count: int, length: int, marks: Marks, device: torch.device) -> Decoded:
    """Take the most probable token at each place (of equals the lowest).

    Args:
        model: ``count`` rows.
        count: B.
        length: most tokens, the end included.
        marks: start, end and padding.
        device: of the model.

    Returns:
        Sequences and their log probabilities (the score of ``length_penalty=0``).
    """
    tokens_BL = torch.full((count, length), marks.pad, dtype=torch.int64, device=device)
    scores_B = torch.zeros(count, dtype=torch.float64, device=device)
    done_B = torch.zeros(count, dtype=torch.bool, device=device)
    last_B = torch.full((count,), marks.start, dtype=torch.int64, device=device)
    for place in range(length):
        best = model.next_logits(last_B).double().log_softmax(1).max(1)
        last_B = best.indices.masked_fill(done_B, marks.pad)
        tokens_BL[:, place] = last_B
        scores_B += best.values.masked_fill(done_B, 0.0)
        done_B |= last_B == marks.end
        if bool(done_B.all()):
            break
    return Decoded(tokens_BL, scores_B)


def beam_search(
    model: Continuation,
    *,
    count: int,
    beams: int,
    length: int,
    marks: Marks,
    device: torch.device,
    length_penalty: float = 1.0,
) -> Decoded:
    """The best sequence among those that are found by keeping the ``beams`` most probable beginnings at each place.

    Sequences that end compete by their score at once and leave their beam to others; those that are cut off at
    ``length`` compete with what they have. It ends early only where nothing that is under way can still win, so that
    the result is that of the whole search.

    Args:
        model: ``count * beams`` rows, those of one sequence behind each other, equal at first.
        count: B.
        beams: K, at least 1.
        length: most tokens, the end included.
        marks: start, end and padding.
        device: of the model.
        length_penalty: exponent of the length that log probabilities are divided by, at least 0.

    Raises:
        ValueError: if ``beams`` or ``length_penalty`` is out of range.

    Reference:
        Wu et al., 2016 (arXiv:1609.08144), section 7, with the plain power of the length as norm.
    """
    if beams < 1 or length_penalty < 0:
        raise ValueError(f"beams={beams}, length_penalty={length_penalty}: need at least 1, and at least 0")
    live = _beginnings(count, beams, length, marks, device)
    best = Decoded(live.tokens[:, 0].clone(), live.scores.new_full((count,), float("-inf")))
    first_B1 = torch.arange(0, count * beams, beams, device=device)[:, None]
    for place in range(length):
        steps_NV = model.next_logits(live.last.flatten()).double().log_softmax(1)
        total_BKV = live.scores[..., None] + steps_NV.unflatten(0, (count, beams))
        final = total_BKV if place == length - 1 else total_BKV[..., marks.end, None]
        best = _better(best, live.tokens, final / (place + 1) ** length_penalty, place, marks.end)
        if place == length - 1:
            break
        total_BKV[..., marks.end] = float("-inf")
        live, beam_BK = _grown(live, total_BKV, place)
        # Log probabilities only fall, and no norm is larger than the last place's.
        if bool((best.scores >= live.scores[:, 0] / length**length_penalty).all()):
            break
        model.reorder((first_B1 + beam_BK).flatten())
    return best


class _Live(NamedTuple):
    """Beginnings ``(B, K, L)``, their last tokens ``(B, K)`` and log probabilities, the best one first."""

    tokens: Tensor
    last: Tensor
    scores: Tensor


def _beginnings(count: int, beams: int, length: int, marks: Marks, device: torch.device) -> _Live:
    scores_BK = torch.full((count, beams), float("-inf"), dtype=torch.float64, device=device)
    scores_BK[:, 0] = 0.0  # all beams are equal at first: one of them stands for all
    tokens_BKL = torch.full((count, beams, length), marks.pad, dtype=torch.int64, device=device)
    return _Live(tokens_BKL, torch.full_like(tokens_BKL[..., 0], marks.start), scores_BK)


def _grown(live: _Live, total_BKV: Tensor, place: int) -> tuple[_Live, Tensor]:
    """The most probable continuations, and which beam each one continues."""
    scores_BK, chosen_BK = total_BKV.flatten(1).topk(live.scores.shape[1])
    beam_BK, last_BK = chosen_BK // total_BKV.shape[2], chosen_BK % total_BKV.shape[2]
    tokens_BKL = live.tokens.gather(1, beam_BK[..., None].expand_as(live.tokens))
    tokens_BKL[..., place] = last_BK
    return _Live(tokens_BKL, last_BK, scores_BK), beam_BK


def _better(best: Decoded, tokens_BKL: Tensor, scores_BKE: Tensor, place: int, end: int) -> Decoded:
    """The best so far, or what ends here: ``scores_BKE`` of each token at the last place, of ``end`` alone before."""
    endings = scores_BKE.shape[2]
    score_B, chosen_B = scores_BKE.flatten(1).max(1)
    tokens_BL = tokens_BKL.gather(1, (chosen_B // endings)[:, None, None].expand(-1, 1, tokens_BKL.shape[2]))[:, 0]
    tokens_BL[:, place] = chosen_B % endings if endings > 1 else end
    won_B = score_B > best.scores
    return Decoded(torch.where(won_B[:, None], tokens_BL, best.tokens), torch.where(won_B, score_B, best.scores))
