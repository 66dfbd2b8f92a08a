"""Networks that map images and texts to unit vectors of one space."""

from neurotrain.networks.clip.base import ClipFeatures, ClipNetwork
from neurotrain.networks.clip.dual_encoder import DualEncoder
from neurotrain.networks.clip.embedding import ClipTextEncoder
from neurotrain.networks.clip.files import export, load_weights
from neurotrain.networks.clip.openclip import OpenClip
from neurotrain.networks.clip.tuning import Frozen, LowRank, TowerTuning, merged_state
from neurotrain.networks.clip.zero_shot import GENERAL_TEMPLATES, MEDICAL_TEMPLATES, Prompts, class_features

__all__ = [
    "GENERAL_TEMPLATES",
    "MEDICAL_TEMPLATES",
    "ClipFeatures",
    "ClipNetwork",
    "ClipTextEncoder",
    "DualEncoder",
    "Frozen",
    "LowRank",
    "OpenClip",
    "Prompts",
    "TowerTuning",
    "class_features",
    "export",
    "load_weights",
    "merged_state",
]
