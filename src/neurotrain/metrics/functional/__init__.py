"""Metrics as pure functions of tensors: no state, no configuration, values per image and class."""

from neurotrain.metrics.functional.boxes import box_iou, distance_box_iou, generalized_box_iou
from neurotrain.metrics.functional.detection import (
    detection_confusion,
    detection_precision_recall,
    mean_average_precision,
    mean_f1,
)
from neurotrain.metrics.functional.labels import predict_labels
from neurotrain.metrics.functional.overlap import (
    EmptyScore,
    accuracy,
    accuracy_from_counts,
    confusion_counts,
    dice_from_counts,
    dice_score,
    iou_from_counts,
    iou_score,
    sensitivity,
    sensitivity_from_counts,
    specificity,
    specificity_from_counts,
)
from neurotrain.metrics.functional.ranking import auroc, auroc_from_histogram, score_histogram
from neurotrain.metrics.functional.surface import normalized_surface_dice, surface_dice_from_areas, surface_overlap

__all__ = [
    "EmptyScore",
    "accuracy",
    "accuracy_from_counts",
    "auroc",
    "auroc_from_histogram",
    "box_iou",
    "confusion_counts",
    "detection_confusion",
    "detection_precision_recall",
    "dice_from_counts",
    "dice_score",
    "distance_box_iou",
    "generalized_box_iou",
    "iou_from_counts",
    "iou_score",
    "mean_average_precision",
    "mean_f1",
    "normalized_surface_dice",
    "predict_labels",
    "score_histogram",
    "sensitivity",
    "sensitivity_from_counts",
    "specificity",
    "specificity_from_counts",
    "surface_dice_from_areas",
    "surface_overlap",
]
