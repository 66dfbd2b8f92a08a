"""LightningModules: a method each, made of network, loss, optimizer and metrics that are injected."""

from neurotrain.tasks.optimization import OptimizerFactory, optimizer_and_schedule, parameter_groups
from neurotrain.tasks.schedules import Constant, Cosine, MultiStep, Polynomial, Schedule
from neurotrain.tasks.segmentation import Prediction, SegmentationTask

__all__ = [
    "Constant",
    "Cosine",
    "MultiStep",
    "OptimizerFactory",
    "Polynomial",
    "Prediction",
    "Schedule",
    "SegmentationTask",
    "optimizer_and_schedule",
    "parameter_groups",
]
