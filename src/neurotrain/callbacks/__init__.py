"""What watches a run: checkpoints, averaged weights, metrics, progress, figures."""

from neurotrain.callbacks.checkpoint import RunCheckpoint, find_last
from neurotrain.callbacks.csv_logger import MetricsCsv, read_metrics
from neurotrain.callbacks.ema import WeightAveraging

__all__ = [
    "MetricsCsv",
    "RunCheckpoint",
    "WeightAveraging",
    "find_last",
    "read_metrics",
]
