"""Losses of pairs of embeddings as pure functions: unit vectors in, a scalar out, in fp32.

Shape legend: ``B`` images and texts of one process, ``N`` of all, ``Q`` questions, ``A`` answers, ``D`` features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.losses.contrastive.chunks import cross_entropy_in_chunks, pairwise_sigmoid_in_chunks


def contrastive_cross_entropy(
    questions_QD: Tensor, answers_AD: Tensor, *, scale: Tensor, first: int = 0, chunk_size: int | None = None
) -> Tensor:
    r"""Mean cross-entropy of finding each question's answer: ``-\log softmax_a(s q_i \cdot a)_{first + i}``.

    Args:
        questions_QD: ``(Q, D)``, any floating dtype.
        answers_AD: ``(A, D)``; answer ``first + i`` belongs to question ``i``.
        scale: scalar s, the inverse temperature.
        first: where the questions' answers begin.
        chunk_size: questions whose similarities are held at once: memory is then ``chunk_size * A`` and not ``Q * A``,
            for one more product of the two in the backward pass. None: all at once.

    Returns:
        Scalar in fp32 (fp64 for fp64 features).

    Raises:
        ValueError: if shapes do not fit, or ``chunk_size`` is below 1.

    Example:
        >>> loss = contrastive_cross_entropy(torch.eye(2), torch.eye(2), scale=torch.tensor(0.0))
        >>> round(loss.exp().item(), 4)
        2.0
    """
    questions_QD, answers_AD, scale = _pair(questions_QD, answers_AD, scale, first, chunk_size)
    with torch.autocast(questions_QD.device.type, enabled=False):
        if chunk_size is not None:
            return cross_entropy_in_chunks(questions_QD, answers_AD, scale, first, chunk_size)
        target_Q = torch.arange(first, first + len(questions_QD), device=questions_QD.device)
        return F.cross_entropy(scale * questions_QD @ answers_AD.T, target_Q)


def clip_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    *,
    scale: Tensor,
    all_image_ND: Tensor | None = None,
    all_text_ND: Tensor | None = None,
    first: int = 0,
    chunk_size: int | None = None,
) -> Tensor:
    r"""CLIP's loss: the mean of finding each image's text among all texts, and each text's image among all images.

    Args:
        image_BD: unit vectors ``(B, D)``, any floating dtype.
        text_BD: likewise; text ``i`` belongs to image ``i``.
        scale: scalar, the inverse temperature (not its logarithm).
        all_image_ND: images of all processes, see :func:`~neurotrain.losses.contrastive.gathered`; None: ``image_BD``.
        all_text_ND: texts of all processes; None: ``text_BD``.
        first: where this process's pairs begin among all.
        chunk_size: see :func:`contrastive_cross_entropy`.

    Returns:
        Scalar in fp32 (fp64 for fp64 features): the mean over this process's pairs.

    Raises:
        ValueError: if shapes do not fit, or ``chunk_size`` is below 1.

    Reference:
        Radford et al., 2021 (arXiv:2103.00020), figure 3; with ``all_*`` as open_clip's ``local_loss``.

    Example:
        >>> pairs = torch.eye(2)
        >>> round(clip_loss(pairs, pairs, scale=torch.tensor(1.0)).item(), 4)  # log(1 + 1 / e)
        0.3133
    """
    all_image_ND = image_BD if all_image_ND is None else all_image_ND
    all_text_ND = text_BD if all_text_ND is None else all_text_ND
    of_images = contrastive_cross_entropy(image_BD, all_text_ND, scale=scale, first=first, chunk_size=chunk_size)
    of_texts = contrastive_cross_entropy(text_BD, all_image_ND, scale=scale, first=first, chunk_size=chunk_size)
    return (of_images + of_texts) / 2


def siglip_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    *,
    scale: Tensor,
    bias: Tensor,
    all_text_ND: Tensor | None = None,
    first: int = 0,
    chunk_size: int | None = None,
) -> Tensor:
    r"""SigLIP's loss, whether each image and each text are a pair: ``-\sum_ij \log\sigma(z_ij (s x_i y_j + b)) / B``.

    ``z`` is 1 for a pair and -1 otherwise.

    Args:
        image_BD: unit vectors ``(B, D)``, any floating dtype.
        text_BD: likewise; text ``i`` belongs to image ``i``.
        scale: scalar s (not its logarithm).
        bias: scalar b.
        all_text_ND: texts of all processes, see :func:`~neurotrain.losses.contrastive.gathered`; None: ``text_BD``.
        first: where this process's pairs begin among all.
        chunk_size: images whose similarities are held at once; None: all.

    Returns:
        Scalar in fp32 (fp64 for fp64 features): a sum over texts, the mean over this process's images.

    Raises:
        ValueError: if shapes do not fit, or ``chunk_size`` is below 1.

    Reference:
        Zhai et al., 2023 (arXiv:2303.15343), algorithm 1.

    Example:
        >>> pairs, zero = torch.eye(2), torch.tensor(0.0)
        >>> round(siglip_loss(pairs, pairs, scale=zero, bias=zero).item(), 4)  # two texts an image: 2 log(2)
        1.3863
    """
    all_text_ND = text_BD if all_text_ND is None else all_text_ND
    image_BD, all_text_ND, scale = _pair(image_BD, all_text_ND, scale, first, chunk_size)
    bias = bias.to(scale)
    with torch.autocast(image_BD.device.type, enabled=False):
        if chunk_size is not None:
            return pairwise_sigmoid_in_chunks(image_BD, all_text_ND, scale, bias, first, chunk_size)
        logits_BN = scale * image_BD @ all_text_ND.T + bias
        rows = torch.arange(len(image_BD), device=image_BD.device)
        # softplus(x) for every pair as if it were none, and softplus(-x) - softplus(x) = -x where it is one.
        return (F.softplus(logits_BN).sum() - logits_BN[rows, rows + first].sum()) / len(image_BD)


def _pair(
    questions: Tensor, answers: Tensor, scale: Tensor, first: int, chunk_size: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Both in float32 at least, of one dtype.

    Raises:
        ValueError: if something does not fit.
    """
    if questions.ndim != 2 or answers.ndim != 2 or questions.shape[1] != answers.shape[1] or not len(questions):
        raise ValueError(f"features {tuple(questions.shape)} and {tuple(answers.shape)}: need (B, D) and (N, D)")
    if not 0 <= first <= len(answers) - len(questions):
        raise ValueError(f"first={first}: {len(questions)} rows from there on do not lie among {len(answers)}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size}: must be at least 1, or None for all at once")
    if scale.ndim:
        raise ValueError(f"scale of shape {tuple(scale.shape)}: expected a scalar")
    wide = torch.promote_types(torch.promote_types(questions.dtype, answers.dtype), torch.float32)
    return questions.to(wide), answers.to(wide), scale.to(wide)
