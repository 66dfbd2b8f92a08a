"""The same losses a few rows at a time: what the backward pass needs of the similarities is computed again there.

Only one chunk of similarities exists at any time, and of each row one number is kept. Gradients are written down by
hand, so they are those of the plain losses up to rounding.

Shape legend: ``Q`` questions, ``A`` answers, ``D`` features, ``c`` rows of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def cross_entropy_in_chunks(
    questions_QD: Tensor, answers_AD: Tensor, scale: Tensor, first: int, chunk_size: int
) -> Tensor:
    """See :func:`neurotrain.losses.contrastive.functional.contrastive_cross_entropy`; arguments are checked there."""
    loss = _CrossEntropy.apply(questions_QD, answers_AD, scale, first, chunk_size)
    assert isinstance(loss, Tensor)
    return loss


def pairwise_sigmoid_in_chunks(
    image_QD: Tensor, text_AD: Tensor, scale: Tensor, bias: Tensor, first: int, chunk_size: int
) -> Tensor:
    """See :func:`neurotrain.losses.contrastive.functional.siglip_loss`; arguments are checked there."""
    loss = _PairwiseSigmoid.apply(image_QD, text_AD, scale, bias, first, chunk_size)
    assert isinstance(loss, Tensor)
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Mean over rows of ``logsumexp(s q a) - s q a_right``."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's signature
        questions_QD: Tensor,
        answers_AD: Tensor,
        scale: Tensor,
        first: int,
        chunk_size: int,
    ) -> Tensor:
        total_Q = questions_QD.new_empty(len(questions_QD))
        for start in range(0, len(questions_QD), chunk_size):
            rows = slice(start, start + chunk_size)
            torch.logsumexp((questions_QD[rows] * scale) @ answers_AD.T, 1, out=total_Q[rows])
        right_QD = answers_AD[first : first + len(questions_QD)]
        ctx.save_for_backward(questions_QD, answers_AD, scale, total_Q)
        ctx.first, ctx.chunk_size = first, chunk_size
        return (total_Q - scale * (questions_QD * right_QD).sum(1)).mean()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator's result has no names
        ctx: Any,  # noqa: ANN401 - torch's signature
        *grads: Tensor,
    ) -> tuple[Tensor | None, ...]:
        questions_QD, answers_AD, scale, total_Q = ctx.saved_tensors
        of_questions, of_answers = torch.zeros_like(questions_QD), torch.zeros_like(answers_AD)
        each = grads[0] / len(questions_QD)
        with torch.autocast(questions_QD.device.type, enabled=False):
            for start in range(0, len(questions_QD), ctx.chunk_size):
                rows = slice(start, start + ctx.chunk_size)
                share_cA = (questions_QD[rows] * scale) @ answers_AD.T
                share_cA.sub_(total_Q[rows, None]).exp_()  # softmax
                here = torch.arange(len(share_cA), device=share_cA.device)
                share_cA[here, here + ctx.first + start] -= 1
                share_cA.mul_(each)
                torch.mm(share_cA, answers_AD, out=of_questions[rows])
                of_answers.addmm_(share_cA.T, questions_QD[rows])
            # Both are of the product q a without s so far: its derivative by s is what q says of its own gradient.
            of_scale = (of_questions * questions_QD).sum()
            return of_questions.mul_(scale), of_answers.mul_(scale), of_scale, None, None


class _PairwiseSigmoid(torch.autograd.Function):
    """Mean over rows of ``sum softplus(s x y + b) - (s x y_right + b)``."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's signature
        image_QD: Tensor,
        text_AD: Tensor,
        scale: Tensor,
        bias: Tensor,
        first: int,
        chunk_size: int,
    ) -> Tensor:
        total = image_QD.new_zeros(())
        for start in range(0, len(image_QD), chunk_size):
            logits_cA = (image_QD[start : start + chunk_size] * scale) @ text_AD.T
            total += F.softplus(logits_cA.add_(bias)).sum()
        right_QD = text_AD[first : first + len(image_QD)]
        ctx.save_for_backward(image_QD, text_AD, scale, bias)
        ctx.first, ctx.chunk_size = first, chunk_size
        return (total - scale * (image_QD * right_QD).sum()) / len(image_QD) - bias

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator's result has no names
        ctx: Any,  # noqa: ANN401 - torch's signature
        *grads: Tensor,
    ) -> tuple[Tensor | None, ...]:
        image_QD, text_AD, scale, bias = ctx.saved_tensors
        of_image, of_text = torch.zeros_like(image_QD), torch.zeros_like(text_AD)
        of_bias = torch.zeros_like(bias)
        each = grads[0] / len(image_QD)
        with torch.autocast(image_QD.device.type, enabled=False):
            for start in range(0, len(image_QD), ctx.chunk_size):
                rows = slice(start, start + ctx.chunk_size)
                share_cA = (image_QD[rows] * scale) @ text_AD.T
                share_cA.add_(bias).sigmoid_()
                here = torch.arange(len(share_cA), device=share_cA.device)
                share_cA[here, here + ctx.first + start] -= 1
                share_cA.mul_(each)
                of_bias += share_cA.sum()
                torch.mm(share_cA, text_AD, out=of_image[rows])
                of_text.addmm_(share_cA.T, image_QD[rows])
            of_scale = (of_image * image_QD).sum()
            return of_image.mul_(scale), of_text.mul_(scale), of_scale, of_bias, None, None
