"""What watches a run: checkpoints, averaged weights, metrics, progress, figures."""

from neurotrain.callbacks.caption_export import CaptionerExport
from neurotrain.callbacks.caption_figures import CaptionFigures
from neurotrain.callbacks.caption_predictions import CaptionPredictions
from neurotrain.callbacks.checkpoint import RunCheckpoint, find_last
from neurotrain.callbacks.classification_figures import ClassificationFigures
from neurotrain.callbacks.classification_predictions import ClassificationPredictions
from neurotrain.callbacks.csv_logger import MetricsCsv, read_metrics
from neurotrain.callbacks.data_report import DataReport
from neurotrain.callbacks.ema import WeightAveraging
from neurotrain.callbacks.figures import SegmentationFigures
from neurotrain.callbacks.guard import NanGuard, NonFiniteLossError
from neurotrain.callbacks.loader_metrics import LoaderMetric, LoaderThroughput
from neurotrain.callbacks.predictions import SegmentationPredictions
from neurotrain.callbacks.progress import Progress
from neurotrain.callbacks.tables import SampleTable
from neurotrain.callbacks.telemetry import LoaderTelemetry
from neurotrain.callbacks.throughput import Throughput

__all__ = [
    "CaptionFigures",
    "CaptionPredictions",
    "CaptionerExport",
    "ClassificationFigures",
    "ClassificationPredictions",
    "DataReport",
    "LoaderMetric",
    "LoaderTelemetry",
    "LoaderThroughput",
    "MetricsCsv",
    "NanGuard",
    "NonFiniteLossError",
    "Progress",
    "RunCheckpoint",
    "SampleTable",
    "SegmentationFigures",
    "SegmentationPredictions",
    "Throughput",
    "WeightAveraging",
    "find_last",
    "read_metrics",
]
