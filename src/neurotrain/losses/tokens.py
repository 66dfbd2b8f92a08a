"""Loss of a sequence of tokens, each the target of what came before it.

Shape legend: ``B`` sequences, ``L`` places, ``V`` tokens there are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.losses.options import bounded

_NOT_COUNTED = -100


def token_cross_entropy(
    logits_BLV: Tensor, target_BL: Tensor, valid_BL: Tensor, *, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of softmax, mean over the tokens that count (not of the means of sequences).

    Args:
        logits_BLV: any floating dtype.
        target_BL: integers in ``[0, V)``; not read where they do not count.
        valid_BL: bool; False on padding.
        label_smoothing: share of the target that is spread evenly over all tokens, in [0, 1].

    Returns:
        Scalar in fp32 (fp64 for fp64 logits); 0 where nothing counts.

    Raises:
        ValueError: if the shapes do not fit, or ``label_smoothing`` is out of range.

    Example:
        >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[3, 0]])
        >>> token_cross_entropy(logits, target, torch.tensor([[True, False]])).exp().item()
        4.0
    """
    bounded("label_smoothing", label_smoothing, low=0, high=1)
    if logits_BLV.ndim != 3 or logits_BLV.shape[:2] != target_BL.shape or target_BL.shape != valid_BL.shape:
        raise ValueError(
            f"logits {tuple(logits_BLV.shape)}, target {tuple(target_BL.shape)}, valid {tuple(valid_BL.shape)}: "
            "expected (B, L, V), (B, L), (B, L)"
        )
    logits_BLV = logits_BLV if logits_BLV.dtype == torch.float64 else logits_BLV.float()
    # Padding is marked, not cut out: how much there is would have to be known on the CPU first.
    marked_BL = target_BL.long().masked_fill(~valid_BL, _NOT_COUNTED)
    total = F.cross_entropy(
        logits_BLV.flatten(0, 1),
        marked_BL.flatten(),
        ignore_index=_NOT_COUNTED,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return total / valid_BL.sum().clamp_min(1)
