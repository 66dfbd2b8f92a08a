"""Metrics: classes that accumulate over a data set and sync over ranks; the maths are in ``metrics.functional``."""

from neurotrain.metrics.detection import DetectionConfusion, DetectionF1, MeanAveragePrecision
from neurotrain.metrics.report import SegmentationReport
from neurotrain.metrics.segmentation import DiceScore, IoUScore, NormalizedSurfaceDice
from neurotrain.metrics.text import BLEUScore, CIDErScore, ROUGELScore
from neurotrain.metrics.threshold import ThresholdSearch
from neurotrain.metrics.training import RunningConfusion

__all__ = [
    "BLEUScore",
    "CIDErScore",
    "DetectionConfusion",
    "DetectionF1",
    "DiceScore",
    "IoUScore",
    "MeanAveragePrecision",
    "NormalizedSurfaceDice",
    "ROUGELScore",
    "RunningConfusion",
    "SegmentationReport",
    "ThresholdSearch",
]
