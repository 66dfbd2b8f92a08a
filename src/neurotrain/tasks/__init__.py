"""LightningModules: a method each, made of network, loss, optimizer and metrics that are injected."""

from neurotrain.tasks.captioning import CaptioningTask, CaptionPrediction
from neurotrain.tasks.classification import ClassificationTask, ClassPrediction
from neurotrain.tasks.clip import ClipPrediction, ClipTask
from neurotrain.tasks.detection import DetectionPrediction, DetectionTask
from neurotrain.tasks.distillation import DistillationTask
from neurotrain.tasks.mixing import Mixing, MixupCutmix
from neurotrain.tasks.optimization import OptimizerFactory, layer_groups, optimizer_and_schedule, parameter_groups
from neurotrain.tasks.sample_losses import TellsSampleLosses, TrainingOutput
from neurotrain.tasks.schedules import Constant, Cosine, MultiStep, Polynomial, Schedule
from neurotrain.tasks.segmentation import Prediction, SegmentationTask
from neurotrain.tasks.teaching import Distillation, SoftTargets
from neurotrain.tasks.volume_segmentation import VolumePrediction, VolumeSegmentationTask

__all__ = [
    "CaptionPrediction",
    "CaptioningTask",
    "ClassPrediction",
    "ClassificationTask",
    "ClipPrediction",
    "ClipTask",
    "Constant",
    "Cosine",
    "DetectionPrediction",
    "DetectionTask",
    "Distillation",
    "DistillationTask",
    "Mixing",
    "MixupCutmix",
    "MultiStep",
    "OptimizerFactory",
    "Polynomial",
    "Prediction",
    "Schedule",
    "SegmentationTask",
    "SoftTargets",
    "TellsSampleLosses",
    "TrainingOutput",
    "VolumePrediction",
    "VolumeSegmentationTask",
    "layer_groups",
    "optimizer_and_schedule",
    "parameter_groups",
]
