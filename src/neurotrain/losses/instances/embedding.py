"""Embeddings of pixels: near to their own instance's mean, far from the others'.

Shape legend: ``B`` images, ``D`` numbers of an embedding, ``*spatial`` two or three axes (``S`` in suffixes), ``P``
pixels of the instances of one image, ``C`` instances of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from neurotrain.losses.options import bounded


def discriminative_loss(
    embedding_BDS: Tensor,
    instance_BS: Tensor,
    *,
    valid_BS: Tensor | None = None,
    pull_margin: float = 0.5,
    push_margin: float = 1.5,
    pull_weight: float = 1.0,
    push_weight: float = 1.0,
    norm_weight: float = 0.001,
) -> Tensor:
    r"""Pull pixels to their instance's mean, push means apart, keep means near the origin; mean over the images.

    ``\frac{1}{C} \sum_c \frac{1}{N_c} \sum_i [|m_c - x_i| - d_v]_+^2``, plus ``[2 d_d - |m_a - m_b|]_+^2`` averaged
    over pairs of instances, plus ``\frac{1}{C} \sum_c |m_c|``. An image without instances does not count.

    Args:
        embedding_BDS: ``(B, D, *spatial)``, any floating dtype.
        instance_BS: integers ``(B, *spatial)``: 0 is no instance, any other number names one of its image.
        valid_BS: bool ``(B, *spatial)``, False where a pixel does not count (whatever it holds); all when None.
        pull_margin: d_v, distance from the mean within which nothing pulls.
        push_margin: d_d, half the distance of two means from which on nothing pushes.
        pull_weight: at least 0, as the other weights.
        push_weight: of the means' distances.
        norm_weight: of the means' lengths.

    Returns:
        Scalar in fp32 (fp64 for fp64 embeddings); 0 with gradient 0 where there is no instance.

    Raises:
        ValueError: if shapes or dtypes do not fit, or a number is negative.

    Reference:
        De Brabandere et al., 2017 (arXiv:1708.02551), equations 1 to 4.

    Example:
        >>> embedding = torch.tensor([0.0, 2.0, 3.0, 3.0]).view(1, 1, 1, 4)
        >>> instance = torch.tensor([1, 1, 2, 2]).view(1, 1, 4)
        >>> round(discriminative_loss(embedding, instance, norm_weight=0.0).item(), 4)  # 0.125 + 1
        1.125
    """
    weights = {"pull_weight": pull_weight, "push_weight": push_weight, "norm_weight": norm_weight}
    _check(embedding_BDS, instance_BS, valid_BS, weights | {"pull_margin": pull_margin, "push_margin": push_margin})
    embedding_BDS = embedding_BDS if embedding_BDS.dtype == torch.float64 else embedding_BDS.float()
    counted_BS = instance_BS != 0 if valid_BS is None else (instance_BS != 0) & valid_BS
    images = [image for image in zip(embedding_BDS, instance_BS, counted_BS, strict=True) if image[2].any()]
    if not images:
        return torch.where(counted_BS[:, None], embedding_BDS, 0.0).sum()
    parts = torch.stack([_parts(*image, pull_margin, push_margin) for image in images]).mean(0)
    return (parts * parts.new_tensor(tuple(weights.values()))).sum()


def _parts(
    embedding_DS: Tensor, instance_S: Tensor, counted_S: Tensor, pull_margin: float, push_margin: float
) -> Tensor:
    """Pull, push and norm of one image: ``(3,)``."""
    # Indexing leaves out what does not count, in the value and in the gradient, NaN or not.
    pixels_PD = embedding_DS[:, counted_S].T
    own_P = torch.unique(instance_S[counted_S], return_inverse=True)[1]
    count_C = torch.bincount(own_P)
    instances = len(count_C)
    mean_CD = pixels_PD.new_zeros(instances, pixels_PD.shape[1]).index_add(0, own_P, pixels_PD) / count_C[:, None]
    beyond_P = (torch.linalg.vector_norm(pixels_PD - mean_CD[own_P], dim=1) - pull_margin).clamp_min(0).square()
    pull = (beyond_P / count_C[own_P]).sum() / instances
    norm = torch.linalg.vector_norm(mean_CD, dim=1).mean()
    first, second = torch.triu_indices(instances, instances, offset=1, device=own_P.device)
    if not len(first):
        return torch.stack((pull, pull.new_zeros(()), norm))
    apart = torch.linalg.vector_norm(mean_CD[first] - mean_CD[second], dim=1)
    return torch.stack((pull, (2 * push_margin - apart).clamp_min(0).square().mean(), norm))


def _check(embedding_BDS: Tensor, instance_BS: Tensor, valid_BS: Tensor | None, options: Mapping[str, float]) -> None:
    for name, value in options.items():
        bounded(name, value, low=0)
    if embedding_BDS.ndim not in (4, 5) or not embedding_BDS.is_floating_point():
        raise ValueError(
            f"embedding is {embedding_BDS.dtype} {tuple(embedding_BDS.shape)}, expected floats (B, D, *spatial)"
        )
    pixels = (embedding_BDS.shape[0], *embedding_BDS.shape[2:])
    if tuple(instance_BS.shape) != pixels or instance_BS.is_floating_point():
        raise ValueError(f"instance is {instance_BS.dtype} {tuple(instance_BS.shape)}, expected integers {pixels}")
    if valid_BS is not None and (tuple(valid_BS.shape) != pixels or valid_BS.dtype != torch.bool):
        raise ValueError(f"valid is {valid_BS.dtype} {tuple(valid_BS.shape)}, expected bool {pixels}")
