"""Inference over any network: whole images, sliding windows, test-time augmentation, clean-up of masks."""

from neurotrain.inference.attention_maps import (
    AttentionMap,
    attention_evidence,
    attention_rollout,
    recorded_attention,
)
from neurotrain.inference.cleaning import MaskCleaning
from neurotrain.inference.grad_cam import grad_cam
from neurotrain.inference.inferer import FullImage, Inferer, Predictor, SlidingWindow
from neurotrain.inference.postprocess import (
    closing,
    fill_holes,
    largest_component,
    opening,
    remove_small_components,
    threshold,
)
from neurotrain.inference.tta import TestTimeAugmentation
from neurotrain.inference.views import View, check_views, mean_over_views
from neurotrain.inference.volumes import labels_over

__all__ = [
    "AttentionMap",
    "FullImage",
    "Inferer",
    "MaskCleaning",
    "Predictor",
    "SlidingWindow",
    "TestTimeAugmentation",
    "View",
    "attention_evidence",
    "attention_rollout",
    "check_views",
    "closing",
    "fill_holes",
    "grad_cam",
    "labels_over",
    "largest_component",
    "mean_over_views",
    "opening",
    "recorded_attention",
    "remove_small_components",
    "threshold",
]
