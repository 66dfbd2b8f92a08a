"""From probabilities of a prepared volume to labels over all voxels of its file.

Shape legend: ``K`` predicted channels, ``*spatial`` voxels of the prepared volume, ``*size`` of the canonical frame.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def labels_over(
    probabilities_KS: Tensor,
    *,
    box: Tensor,
    size: Tensor,
    mode: Literal["multiclass", "multilabel"],
    threshold: float = 0.5,
) -> Tensor:
    """Lay probabilities over the voxels that they were prepared from, then decide.

    They are resampled trilinearly, one channel at a time: beside the labels no more than two channels are held at once,
    whatever their number. What the box leaves out is background.

    Args:
        probabilities_KS: float ``(K, *spatial)``.
        box: int64 ``(2, 3)``: first voxel that the prepared volume covers, and the one after its last.
        size: int64 ``(3,)``: voxels of the result.
        mode: ``multiclass`` takes the most probable class, of equals the first.
        threshold: of multilabel: a voxel is of every region whose probability is greater.

    Returns:
        uint8 classes ``(*size)``, or regions ``(K, *size)``.

    Raises:
        ValueError: if there are more classes than uint8 has values.

    Example:
        >>> box, size = torch.tensor([[0, 0, 1], [1, 1, 3]]), torch.tensor([1, 1, 4])
        >>> labels_over(torch.tensor([[[[0.2]]], [[[0.8]]]]), box=box, size=size, mode="multiclass")
        tensor([[[0, 1, 1, 0]]], dtype=torch.uint8)
    """
    classes = probabilities_KS.shape[0]
    if classes > 256:
        raise ValueError(f"{classes} classes: labels of volumes are written as uint8, of 256 at most")
    first, last = box.tolist()
    inside = tuple(slice(start, stop) for start, stop in zip(first, last, strict=True))
    lengths = [stop - start for start, stop in zip(first, last, strict=True)]
    labels = probabilities_KS.new_zeros(
        (*(() if mode == "multiclass" else (classes,)), *size.tolist()), dtype=torch.uint8
    )
    if mode == "multilabel":
        for region, values_S in enumerate(probabilities_KS):
            labels[(region, *inside)] = _resampled(values_S, lengths) > threshold
        return labels
    best = _resampled(probabilities_KS[0], lengths).clone()
    for index in range(1, classes):
        values = _resampled(probabilities_KS[index], lengths)
        labels[inside][values > best] = index
        torch.maximum(best, values, out=best)
    return labels


def _resampled(values_S: Tensor, size: list[int]) -> Tensor:
    if list(values_S.shape) == size:
        return values_S
    return functional.interpolate(values_S[None, None], size=size, mode="trilinear", align_corners=False)[0, 0]
