"""Metrics: classes that accumulate over a data set and sync over ranks; the maths are in ``metrics.functional``."""

from neurotrain.metrics.report import SegmentationReport
from neurotrain.metrics.segmentation import DiceScore, IoUScore, NormalizedSurfaceDice
from neurotrain.metrics.threshold import ThresholdSearch
from neurotrain.metrics.training import RunningConfusion

__all__ = [
    "DiceScore",
    "IoUScore",
    "NormalizedSurfaceDice",
    "RunningConfusion",
    "SegmentationReport",
    "ThresholdSearch",
]
