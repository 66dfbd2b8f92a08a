"""Losses of boxes as pure functions: pairs of boxes in, a scalar out, in fp32.

A box is ``(x1, y1, x2, y2)`` with ``x1 <= x2`` and ``y1 <= y2``, in any unit. A predicted box whose corners are
exchanged has no area.

Shape legend: ``N`` pairs of boxes.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.losses.options import bounded

BoxMeasure = Literal["iou", "giou", "diou", "ciou"]
"""What an overlap is: the share of the union; less what the hull has besides; less how far the centres are apart; and
less how the aspect ratios differ."""

_SMALLEST = 1e-7  # squared units: below it a box is a point, of which no share can be told


def box_l1_loss(boxes_N4: Tensor, target_N4: Tensor, *, valid_N: Tensor | None = None, beta: float = 0.0) -> Tensor:
    r"""Sum over a box's four numbers of ``|d|``, or of ``d^2 / (2 \beta)`` below ``beta``; mean over the boxes.

    Args:
        boxes_N4: predicted, any floating dtype.
        target_N4: true.
        valid_N: bool, False where a pair does not count (whatever it holds); all count when None.
        beta: difference from which on it is ``|d| - beta / 2``; 0 is L1 itself.

    Returns:
        Scalar in fp32 (fp64 for fp64 boxes); 0 with gradient 0 where no pair counts.

    Raises:
        ValueError: if shapes do not fit, or ``beta`` is negative.

    Reference:
        Girshick, 2015 (arXiv:1504.08083), equation 3, for ``beta``; Carion et al., 2020 (arXiv:2005.12872), section
        3.1, for the sum over a box.

    Example:
        >>> boxes, target = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 5]])
        >>> box_l1_loss(boxes, target).item(), box_l1_loss(boxes, target, beta=1.0).item()
        (3.0, 2.5)
    """
    bounded("beta", beta, low=0)
    boxes_N4, target_N4 = _pairs(boxes_N4, target_N4, valid_N)
    loss_N = F.smooth_l1_loss(boxes_N4, target_N4, beta=beta, reduction="none").sum(1)
    return _mean(loss_N, valid_N)


def box_overlap_loss(
    boxes_N4: Tensor, target_N4: Tensor, *, measure: BoxMeasure = "giou", valid_N: Tensor | None = None
) -> Tensor:
    r"""One minus the overlap of each pair, mean over the pairs.

    With ``U`` the union's area, ``C`` the hull's, ``c`` its diagonal, ``d`` the distance of the centres and
    ``v = 4 / \pi^2 (\arctan w'/h' - \arctan w/h)^2``: ``iou = I / U``; ``giou = iou - (C - U) / C``;
    ``diou = iou - d^2 / c^2``; ``ciou = diou - a v`` with ``a = v / (1 - iou + v)``, which gets no gradient.

    Args:
        boxes_N4: predicted, any floating dtype.
        target_N4: true.
        measure: see :data:`BoxMeasure`.
        valid_N: bool, False where a pair does not count (whatever it holds); all count when None.

    Returns:
        Scalar in fp32 (fp64 for fp64 boxes); 0 with gradient 0 where no pair counts.

    Raises:
        ValueError: if shapes do not fit, or the measure is unknown.

    Reference:
        Rezatofighi et al., 2019 (arXiv:1902.09630), algorithm 1; Zheng et al., 2020 (arXiv:1911.08287), equations 7,
        8, 10 and 11.

    Example:
        >>> boxes, target = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])
        >>> round(box_overlap_loss(boxes, target, measure="iou").item(), 4)
        0.6667
    """
    if measure not in get_args(BoxMeasure):
        near = get_close_matches(measure, get_args(BoxMeasure), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"measure={measure!r}: choose from {list(get_args(BoxMeasure))}{hint}")
    boxes_N4, target_N4 = _pairs(boxes_N4, target_N4, valid_N)
    own, other = _sides(boxes_N4), _sides(target_N4)
    shared = _sides(
        torch.cat((torch.maximum(boxes_N4, target_N4)[:, :2], torch.minimum(boxes_N4, target_N4)[:, 2:]), 1)
    )
    hull = _sides(torch.cat((torch.minimum(boxes_N4, target_N4)[:, :2], torch.maximum(boxes_N4, target_N4)[:, 2:]), 1))
    union_N = own.area + other.area - shared.area
    iou_N = _share(shared.area, union_N)
    if measure == "iou":
        return _mean(1 - iou_N, valid_N)
    if measure == "giou":
        return _mean(1 - iou_N + _share(hull.area - union_N, hull.area), valid_N)
    apart_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:] - target_N4[:, :2] - target_N4[:, 2:]) / 2
    loss_N = 1 - iou_N + _share(apart_N2.square().sum(1), hull.width.square() + hull.height.square())
    return _mean(loss_N if measure == "diou" else loss_N + _aspect(own, other, iou_N), valid_N)


class _Sides(NamedTuple):
    """Width and height of boxes, never negative."""

    width: Tensor
    height: Tensor

    @property
    def area(self) -> Tensor:
        return self.width * self.height


def _sides(boxes_N4: Tensor) -> _Sides:
    return _Sides(*(boxes_N4[:, 2:] - boxes_N4[:, :2]).clamp_min(0).unbind(1))


def _share(part_N: Tensor, whole_N: Tensor) -> Tensor:
    """``part / whole``; 0 without a gradient where there is no whole."""
    there_N = whole_N > _SMALLEST
    return torch.where(there_N, part_N / torch.where(there_N, whole_N, 1.0), 0.0)


def _aspect(own: _Sides, other: _Sides, iou_N: Tensor) -> Tensor:
    angles = [torch.atan(sides.width / sides.height.clamp_min(_SMALLEST)) for sides in (other, own)]
    v_N = 4 / torch.pi**2 * (angles[0] - angles[1]).square()
    with torch.no_grad():
        weight_N = v_N / (1 - iou_N + v_N).clamp_min(_SMALLEST)
    return weight_N * v_N


def _pairs(boxes_N4: Tensor, target_N4: Tensor, valid_N: Tensor | None) -> tuple[Tensor, Tensor]:
    """Checked, in fp32; a pair that does not count becomes twice one box, before anything is computed of it."""
    if boxes_N4.ndim != 2 or boxes_N4.shape[1] != 4 or boxes_N4.shape != target_N4.shape:
        raise ValueError(f"boxes {tuple(boxes_N4.shape)}, target {tuple(target_N4.shape)}: need (N, 4) of both")
    if not boxes_N4.is_floating_point():
        raise ValueError(f"boxes have dtype {boxes_N4.dtype}, expected a floating one")
    boxes_N4 = boxes_N4 if boxes_N4.dtype == torch.float64 else boxes_N4.float()
    target_N4 = target_N4.to(boxes_N4.dtype)
    if valid_N is None:
        return boxes_N4, target_N4
    if valid_N.shape != boxes_N4.shape[:1] or valid_N.dtype != torch.bool:
        raise ValueError(f"valid is {valid_N.dtype} {tuple(valid_N.shape)}, expected bool ({len(boxes_N4)},)")
    unit_4 = boxes_N4.new_tensor((0.0, 0.0, 1.0, 1.0))
    return torch.where(valid_N[:, None], boxes_N4, unit_4), torch.where(valid_N[:, None], target_N4, unit_4)


def _mean(loss_N: Tensor, valid_N: Tensor | None) -> Tensor:
    if valid_N is None:
        return loss_N.sum() / max(1, len(loss_N))
    return torch.where(valid_N, loss_N, 0.0).sum() / valid_N.sum().clamp_min(1)
