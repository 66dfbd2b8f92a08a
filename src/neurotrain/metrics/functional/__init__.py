"""Metrics as pure functions of tensors: no state, no configuration, values per image and class."""

from neurotrain.metrics.functional.boxes import box_iou, distance_box_iou, generalized_box_iou
from neurotrain.metrics.functional.centerline import centerline_dice
from neurotrain.metrics.functional.classification import figure_at_threshold, threshold_counts, top_k_scores
from neurotrain.metrics.functional.classification_curves import (
    average_precision,
    calibration_error,
    threshold_at_precision,
    threshold_at_recall,
)
from neurotrain.metrics.functional.detection import (
    detection_confusion,
    detection_precision_recall,
    mean_average_precision,
    mean_f1,
)
from neurotrain.metrics.functional.distances import average_surface_distance, hausdorff_distance
from neurotrain.metrics.functional.generation import (
    energy_distance,
    feature_moments,
    frechet_distance,
    kernel_distance,
    sliced_wasserstein_distance,
)
from neurotrain.metrics.functional.generation_manifold import manifold_scores
from neurotrain.metrics.functional.instances import instance_counts, instance_f1, instance_precision, label_instances
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
from neurotrain.metrics.functional.retrieval import image_text_retrieval, retrieval_ranks
from neurotrain.metrics.functional.surface import normalized_surface_dice, surface_dice_from_areas, surface_overlap
from neurotrain.metrics.functional.text_bleu import bleu_score, sentence_bleu_score
from neurotrain.metrics.functional.text_cider import cider_d_score
from neurotrain.metrics.functional.text_rouge import rouge_l_score
from neurotrain.metrics.functional.text_tokenizers import tokenize

__all__ = [
    "EmptyScore",
    "accuracy",
    "accuracy_from_counts",
    "auroc",
    "auroc_from_histogram",
    "average_precision",
    "average_surface_distance",
    "bleu_score",
    "box_iou",
    "calibration_error",
    "centerline_dice",
    "cider_d_score",
    "confusion_counts",
    "detection_confusion",
    "detection_precision_recall",
    "dice_from_counts",
    "dice_score",
    "distance_box_iou",
    "energy_distance",
    "feature_moments",
    "figure_at_threshold",
    "frechet_distance",
    "generalized_box_iou",
    "hausdorff_distance",
    "image_text_retrieval",
    "instance_counts",
    "instance_f1",
    "instance_precision",
    "iou_from_counts",
    "iou_score",
    "kernel_distance",
    "label_instances",
    "manifold_scores",
    "mean_average_precision",
    "mean_f1",
    "normalized_surface_dice",
    "predict_labels",
    "retrieval_ranks",
    "rouge_l_score",
    "score_histogram",
    "sensitivity",
    "sensitivity_from_counts",
    "sentence_bleu_score",
    "sliced_wasserstein_distance",
    "specificity",
    "specificity_from_counts",
    "surface_dice_from_areas",
    "surface_overlap",
    "threshold_at_precision",
    "threshold_at_recall",
    "threshold_counts",
    "tokenize",
    "top_k_scores",
]
