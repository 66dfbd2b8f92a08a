"""How far one distribution is from another: of classes at every place, and of a diagonal Gaussian from the normal one.

Shape legend: ``B`` batch, ``K`` classes, ``*spatial`` any number of axes, none included (``S`` in suffixes).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.losses.options import bounded

Direction = Literal["forward", "reverse"]
"""``forward``: ``KL(target || prediction)``, which covers all that the target has; ``reverse``: the other way round,
which stays where the target is."""


def kl_divergence(
    logits_BKS: Tensor,
    target_BKS: Tensor,
    *,
    temperature: float = 1.0,
    direction: Direction = "forward",
    valid_BS: Tensor | None = None,
) -> Tensor:
    r"""``T^2 \sum_k p_k \log (p_k / q_k)`` of two softmaxes at temperature T, mean over the places that count.

    The factor keeps the gradient's size independent of the temperature.

    Args:
        logits_BKS: of the prediction, ``(B, K, *spatial)``, any floating dtype.
        target_BKS: logits of the same shape; detached here, whatever made them.
        temperature: T, above 0.
        direction: see :data:`Direction`.
        valid_BS: bool ``(B, *spatial)``, False where a place does not count (whatever it holds); all when None.

    Returns:
        Scalar in fp32 (fp64 for fp64 logits); 0 with gradient 0 where no place counts.

    Raises:
        ValueError: if shapes do not fit, the temperature is not above 0, or the direction is unknown.

    Reference:
        Hinton et al., 2015 (arXiv:1503.02531), section 2.

    Example:
        >>> target = torch.tensor([[0.0, 0.0]])
        >>> round(kl_divergence(torch.tensor([[0.0, 1.0]]), target).item(), 4)
        0.1201
        >>> round(kl_divergence(torch.tensor([[0.0, 1.0]]), target, direction="reverse").item(), 4)
        0.1109
    """
    _check(logits_BKS, target_BKS, valid_BS, temperature, direction)
    logits_BKS = logits_BKS if logits_BKS.dtype == torch.float64 else logits_BKS.float()
    target_BKS = target_BKS.detach().to(logits_BKS.dtype)
    if valid_BS is not None:
        # Before the softmax: a NaN there must reach neither the value nor the gradient.
        logits_BKS, target_BKS = (torch.where(valid_BS[:, None], x, 0.0) for x in (logits_BKS, target_BKS))
    log_q_BKS, log_p_BKS = F.log_softmax(logits_BKS / temperature, 1), F.log_softmax(target_BKS / temperature, 1)
    if direction == "reverse":
        log_q_BKS, log_p_BKS = log_p_BKS, log_q_BKS
    total = temperature**2 * F.kl_div(log_q_BKS, log_p_BKS, reduction="sum", log_target=True)
    places = logits_BKS.numel() // logits_BKS.shape[1]
    return total / (max(1, places) if valid_BS is None else valid_BS.sum().clamp_min(1))


def gaussian_kl(mean_BS: Tensor, log_variance_BS: Tensor) -> Tensor:
    r"""``KL(N(m, \sigma^2) || N(0, 1))``, summed over a sample's numbers, mean over the samples.

    ``\frac{1}{2} \sum (m^2 + \sigma^2 - 1 - \log \sigma^2)``.

    Args:
        mean_BS: ``(B, ...)``, any floating dtype.
        log_variance_BS: of the same shape.

    Returns:
        Scalar in fp32 (fp64 for fp64 means).

    Raises:
        ValueError: if the shapes differ.

    Reference:
        Kingma and Welling, 2014 (arXiv:1312.6114), appendix B.

    Example:
        >>> gaussian_kl(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2)).item()
        2.5
    """
    if mean_BS.ndim < 2 or mean_BS.shape != log_variance_BS.shape:
        raise ValueError(
            f"mean {tuple(mean_BS.shape)}, log variance {tuple(log_variance_BS.shape)}: need (B, ...) of both"
        )
    mean_BS = mean_BS if mean_BS.dtype == torch.float64 else mean_BS.float()
    log_variance_BS = log_variance_BS.to(mean_BS.dtype)
    # expm1: the difference that is left of a variance near 1 would be rounded away.
    return 0.5 * (mean_BS.square() + log_variance_BS.expm1() - log_variance_BS).sum() / max(1, len(mean_BS))


def _check(logits_BKS: Tensor, target_BKS: Tensor, valid_BS: Tensor | None, temperature: float, direction: str) -> None:
    bounded("temperature", temperature, low=0, open_low=True)
    if direction not in get_args(Direction):
        raise ValueError(f"direction={direction!r}: choose from {list(get_args(Direction))}")
    if logits_BKS.ndim < 2 or logits_BKS.shape != target_BKS.shape:
        raise ValueError(
            f"prediction {tuple(logits_BKS.shape)}, target {tuple(target_BKS.shape)}: need (B, K, *spatial) of both"
        )
    places = (logits_BKS.shape[0], *logits_BKS.shape[2:])
    if valid_BS is not None and (tuple(valid_BS.shape) != places or valid_BS.dtype != torch.bool):
        raise ValueError(f"valid is {valid_BS.dtype} {tuple(valid_BS.shape)}, expected bool {places}")
