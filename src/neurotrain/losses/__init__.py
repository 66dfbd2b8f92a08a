"""Segmentation losses: modules here, pure functions in :mod:`neurotrain.losses.functional`."""

from neurotrain.losses.deep_supervision import DeepSupervisionLoss
from neurotrain.losses.modules import (
    BinaryCrossEntropyLoss,
    BoundaryLoss,
    CenterlineDiceLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    SegmentationLoss,
    TverskyLoss,
    WeightedSum,
)

__all__ = [
    "BinaryCrossEntropyLoss",
    "BoundaryLoss",
    "CenterlineDiceLoss",
    "CrossEntropyLoss",
    "DeepSupervisionLoss",
    "DiceLoss",
    "FocalLoss",
    "SegmentationLoss",
    "TverskyLoss",
    "WeightedSum",
]
