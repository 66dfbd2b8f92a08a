"""Overlap of axis-aligned boxes: intersection over union, generalised (GIoU) and with centre distance (DIoU).

Shape legend: ``N``, ``M`` numbers of boxes; the last axis holds the four numbers of a box.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from neurotrain.metrics.functional.labels import check_choice

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
"""``xyxy``: two corners; ``xywh``: upper left corner and size (COCO's); ``cxcywh``: centre and size."""


def box_iou(preds: Tensor, target: Tensor, *, box_format: BoxFormat = "xyxy") -> Tensor:
    """Intersection over union of every pair of boxes, ``|A n B| / |A u B|``.

    Args:
        preds: floats or integers ``(N, 4)``; half precision is computed in float32, integers in float64.
        target: ``(M, 4)``.
        box_format: see :data:`BoxFormat`.

    Returns:
        ``(N, M)`` in [0, 1], differentiable; 0 for a pair without any area.

    Raises:
        ValueError: if a shape or the format is wrong.

    Example:
        >>> box_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]])).item()
        0.3333333432674408
    """
    a_N4, b_M4 = _corners(preds, target, box_format)
    intersection, union = _overlap(a_N4, b_M4)
    return _ratio(intersection, union)


def generalized_box_iou(preds: Tensor, target: Tensor, *, box_format: BoxFormat = "xyxy") -> Tensor:
    """Generalised intersection over union of every pair, ``IoU - |C minus (A u B)| / |C|``, ``C`` the smallest hull.

    Args:
        preds: floats or integers ``(N, 4)``; half precision is computed in float32, integers in float64.
        target: ``(M, 4)``.
        box_format: see :data:`BoxFormat`.

    Returns:
        ``(N, M)`` in (-1, 1], differentiable; the second term is 0 where the hull has no area.

    Raises:
        ValueError: if a shape or the format is wrong.

    Reference:
        Rezatofighi et al., 2019 (arXiv:1902.09630), algorithm 1.

    Example:
        >>> generalized_box_iou(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[1.0, 1.0, 2.0, 2.0]])).item()
        -0.5
    """
    a_N4, b_M4 = _corners(preds, target, box_format)
    intersection, union = _overlap(a_N4, b_M4)
    width, height = _hull(a_N4, b_M4)
    hull = width * height
    return _ratio(intersection, union) - _ratio(hull - union, hull)


def distance_box_iou(preds: Tensor, target: Tensor, *, box_format: BoxFormat = "xyxy") -> Tensor:
    """Distance intersection over union of every pair, ``IoU - d^2 / c^2``.

    ``d`` is the distance of the centres, ``c`` the diagonal of the smallest hull.

    Args:
        preds: floats or integers ``(N, 4)``; half precision is computed in float32, integers in float64.
        target: ``(M, 4)``.
        box_format: see :data:`BoxFormat`.

    Returns:
        ``(N, M)`` in (-1, 1], differentiable; the second term is 0 for two equal points.

    Raises:
        ValueError: if a shape or the format is wrong.

    Reference:
        Zheng et al., 2020 (arXiv:1911.08287), equation 7.

    Example:
        >>> distance_box_iou(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[1.0, 1.0, 2.0, 2.0]])).item()
        -0.25
    """
    a_N4, b_M4 = _corners(preds, target, box_format)
    intersection, union = _overlap(a_N4, b_M4)
    width, height = _hull(a_N4, b_M4)
    offset = (a_N4[:, None, :2] + a_N4[:, None, 2:] - b_M4[None, :, :2] - b_M4[None, :, 2:]) / 2
    return _ratio(intersection, union) - _ratio(offset.square().sum(dim=-1), width.square() + height.square())


def to_xywh(boxes: Tensor, *, box_format: BoxFormat) -> Tensor:
    """Upper left corner and size of boxes in another format.

    Args:
        boxes: floats ``(..., 4)``.
        box_format: what they are in.

    Returns:
        The same shape and type.
    """
    if box_format == "xywh":
        return boxes
    first, second = boxes[..., :2], boxes[..., 2:]
    if box_format == "xyxy":
        return torch.cat([first, second - first], dim=-1)
    return torch.cat([first - second / 2, second], dim=-1)


def check_boxes(key: str, boxes: Tensor) -> None:
    """Refuse what is no list of boxes.

    Args:
        key: name of the argument, for the message.
        boxes: ``(N, 4)``.

    Raises:
        ValueError: if the shape differs, or the type is complex or bool.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{key} has shape {tuple(boxes.shape)}, expected (N, 4); no box is (0, 4)")
    if boxes.is_complex() or boxes.dtype == torch.bool:
        raise ValueError(f"{key} must hold numbers, not {boxes.dtype}")


def _corners(preds: Tensor, target: Tensor, box_format: BoxFormat) -> tuple[Tensor, Tensor]:
    check_choice("box_format", box_format, get_args(BoxFormat))
    check_boxes("preds", preds)
    check_boxes("target", target)
    common = torch.promote_types(preds.dtype, target.dtype)
    if not common.is_floating_point:
        common = torch.float64
    common = torch.promote_types(common, torch.float32)
    return _to_xyxy(preds.to(common), box_format), _to_xyxy(target.to(common), box_format)


def _to_xyxy(boxes: Tensor, box_format: BoxFormat) -> Tensor:
    if box_format == "xyxy":
        return boxes
    xywh = to_xywh(boxes, box_format=box_format)
    return torch.cat([xywh[..., :2], xywh[..., :2] + xywh[..., 2:]], dim=-1)


def _overlap(a_N4: Tensor, b_M4: Tensor) -> tuple[Tensor, Tensor]:
    """Areas ``(N, M)`` of intersection and union."""
    lower = torch.maximum(a_N4[:, None, :2], b_M4[None, :, :2])
    upper = torch.minimum(a_N4[:, None, 2:], b_M4[None, :, 2:])
    intersection = (upper - lower).clamp(min=0).prod(dim=-1)
    area_N = (a_N4[:, 2:] - a_N4[:, :2]).prod(dim=-1)
    area_M = (b_M4[:, 2:] - b_M4[:, :2]).prod(dim=-1)
    return intersection, area_N[:, None] + area_M[None, :] - intersection


def _hull(a_N4: Tensor, b_M4: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height ``(N, M)`` of the smallest box around both."""
    lower = torch.minimum(a_N4[:, None, :2], b_M4[None, :, :2])
    upper = torch.maximum(a_N4[:, None, 2:], b_M4[None, :, 2:])
    extent = upper - lower
    return extent[..., 0], extent[..., 1]


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, 0 where there is no whole; the gradient stays finite there."""
    empty = whole <= 0
    return torch.where(empty, torch.zeros_like(part), part / torch.where(empty, torch.ones_like(whole), whole))
