"""Metrics: classes that accumulate over a data set and sync over ranks; the maths are in ``metrics.functional``."""

from neurotrain.metrics.captioning import CaptionReport
from neurotrain.metrics.centerline import CenterlineDice
from neurotrain.metrics.classification import (
    CalibrationError,
    FigureAtThreshold,
    MultilabelMAP,
    ThresholdAt,
    TopKScores,
)
from neurotrain.metrics.classification_report import ClassificationReport
from neurotrain.metrics.detection import DetectionConfusion, DetectionF1, MeanAveragePrecision
from neurotrain.metrics.generation import FrechetDistance, KernelDistance, ManifoldScores
from neurotrain.metrics.instances import InstanceScores
from neurotrain.metrics.report import SegmentationReport
from neurotrain.metrics.retrieval import ImageTextRetrieval
from neurotrain.metrics.sample_mean import SampleMean
from neurotrain.metrics.segmentation import (
    DiceScore,
    IoUScore,
    NormalizedSurfaceDice,
    SegmentationScore,
    Sensitivity,
    Specificity,
)
from neurotrain.metrics.surface_distances import AverageSurfaceDistance, HausdorffDistance
from neurotrain.metrics.text import BLEUScore, CIDErScore, ROUGELScore
from neurotrain.metrics.threshold import ThresholdSearch
from neurotrain.metrics.training import RunningConfusion
from neurotrain.metrics.volumes import VolumeReport

__all__ = [
    "AverageSurfaceDistance",
    "BLEUScore",
    "CIDErScore",
    "CalibrationError",
    "CaptionReport",
    "CenterlineDice",
    "ClassificationReport",
    "DetectionConfusion",
    "DetectionF1",
    "DiceScore",
    "FigureAtThreshold",
    "FrechetDistance",
    "HausdorffDistance",
    "ImageTextRetrieval",
    "InstanceScores",
    "IoUScore",
    "KernelDistance",
    "ManifoldScores",
    "MeanAveragePrecision",
    "MultilabelMAP",
    "NormalizedSurfaceDice",
    "ROUGELScore",
    "RunningConfusion",
    "SampleMean",
    "SegmentationReport",
    "SegmentationScore",
    "Sensitivity",
    "Specificity",
    "ThresholdAt",
    "ThresholdSearch",
    "TopKScores",
    "VolumeReport",
]
