"""Typed samples and batches: the one vocabulary that data and tasks share.

Shape legend: ``B`` batch, ``C`` image channels, ``L`` labels of a multilabel problem, ``*spatial`` two or three axes.
"""

from typing import Literal, TypedDict

from torch import Tensor

SegmentationMode = Literal["binary", "multiclass", "multilabel"]
"""``binary``: labels {0, 1}, one logit; ``multiclass``: labels 0..K-1, K logits; ``multilabel``: L labels apart."""


class SegmentationSample(TypedDict):
    """One image with its labels.

    Attributes:
        image: float32 ``(C, *spatial)``.
        mask: int64 labels ``(*spatial)``, or ``(L, *spatial)`` in {0, 1} for multilabel.
        valid: bool ``(*spatial)``; False where a pixel must not count (outside the field of view, ignored region).
        id: unique within its source, stable between runs.
        source: name of the dataset that the sample comes from.
    """

    image: Tensor
    mask: Tensor
    valid: Tensor
    id: str
    source: str


class SegmentationBatch(TypedDict):
    """Samples of one shape, stacked.

    Attributes:
        image: float32 ``(B, C, *spatial)``.
        mask: int64 ``(B, *spatial)``, or ``(B, L, *spatial)`` for multilabel.
        valid: bool ``(B, *spatial)``.
        id: B names.
        source: B dataset names.
    """

    image: Tensor
    mask: Tensor
    valid: Tensor
    id: list[str]
    source: list[str]
