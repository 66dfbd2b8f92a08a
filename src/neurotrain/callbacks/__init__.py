"""What watches a run: checkpoints, averaged weights, metrics, progress, figures."""

from neurotrain.callbacks.caption_export import CaptionerExport
from neurotrain.callbacks.caption_figures import CaptionFigures
from neurotrain.callbacks.caption_predictions import CaptionPredictions
from neurotrain.callbacks.checkpoint import RunCheckpoint, find_last
from neurotrain.callbacks.checkpoint_writing import DiskFullError
from neurotrain.callbacks.classification_figures import ClassificationFigures
from neurotrain.callbacks.classification_predictions import ClassificationPredictions
from neurotrain.callbacks.clip_export import ClipExport
from neurotrain.callbacks.clip_figures import ClipFigures
from neurotrain.callbacks.clip_predictions import ClipPredictions
from neurotrain.callbacks.clip_tables import ClipSampleTable
from neurotrain.callbacks.csv_logger import MetricsCsv, read_metrics
from neurotrain.callbacks.data_report import DataReport
from neurotrain.callbacks.detection_figures import DetectionFigures
from neurotrain.callbacks.detection_predictions import DetectionPredictions
from neurotrain.callbacks.distillation_validation import DistillationValidation
from neurotrain.callbacks.ema import WeightAveraging
from neurotrain.callbacks.figures import SegmentationFigures
from neurotrain.callbacks.guard import NanGuard, NonFiniteLossError
from neurotrain.callbacks.loader_metrics import LoaderMetric, LoaderThroughput
from neurotrain.callbacks.memory import MemoryReport
from neurotrain.callbacks.picture_samples import PictureSamples
from neurotrain.callbacks.predictions import SegmentationPredictions
from neurotrain.callbacks.preemption import Preemption, StoppedBySignal
from neurotrain.callbacks.priorities import LossPriorities
from neurotrain.callbacks.progress import Progress
from neurotrain.callbacks.role_export import RoleExport
from neurotrain.callbacks.tables import SampleTable
from neurotrain.callbacks.telemetry import LoaderTelemetry
from neurotrain.callbacks.tensorboard_run import TensorBoardRun
from neurotrain.callbacks.throughput import Throughput
from neurotrain.callbacks.trackers import MlflowRun, WandbRun
from neurotrain.callbacks.vocabulary import LearnVocabulary
from neurotrain.callbacks.volume_figures import VolumeFigures
from neurotrain.callbacks.volume_predictions import VolumePredictions
from neurotrain.callbacks.watchdog import Watchdog

__all__ = [
    "CaptionFigures",
    "CaptionPredictions",
    "CaptionerExport",
    "ClassificationFigures",
    "ClassificationPredictions",
    "ClipExport",
    "ClipFigures",
    "ClipPredictions",
    "ClipSampleTable",
    "DataReport",
    "DetectionFigures",
    "DetectionPredictions",
    "DiskFullError",
    "DistillationValidation",
    "LearnVocabulary",
    "LoaderMetric",
    "LoaderTelemetry",
    "LoaderThroughput",
    "LossPriorities",
    "MemoryReport",
    "MetricsCsv",
    "MlflowRun",
    "NanGuard",
    "NonFiniteLossError",
    "PictureSamples",
    "Preemption",
    "Progress",
    "RoleExport",
    "RunCheckpoint",
    "SampleTable",
    "SegmentationFigures",
    "SegmentationPredictions",
    "StoppedBySignal",
    "TensorBoardRun",
    "Throughput",
    "VolumeFigures",
    "VolumePredictions",
    "WandbRun",
    "Watchdog",
    "WeightAveraging",
    "find_last",
    "read_metrics",
]
