"""LightningModules: a method each, made of network, loss, optimizer and metrics that are injected."""

from neurotrain.tasks.captioning import CaptioningTask, CaptionPrediction
from neurotrain.tasks.classification import ClassificationTask, ClassPrediction
from neurotrain.tasks.mixing import Mixing, MixupCutmix
from neurotrain.tasks.optimization import OptimizerFactory, layer_groups, optimizer_and_schedule, parameter_groups
from neurotrain.tasks.schedules import Constant, Cosine, MultiStep, Polynomial, Schedule
from neurotrain.tasks.segmentation import Prediction, SegmentationTask
from neurotrain.tasks.teaching import Distillation, SoftTargets

__all__ = [
    "CaptionPrediction",
    "CaptioningTask",
    "ClassPrediction",
    "ClassificationTask",
    "Constant",
    "Cosine",
    "Distillation",
    "Mixing",
    "MixupCutmix",
    "MultiStep",
    "OptimizerFactory",
    "Polynomial",
    "Prediction",
    "Schedule",
    "SegmentationTask",
    "SoftTargets",
    "layer_groups",
    "optimizer_and_schedule",
    "parameter_groups",
]
