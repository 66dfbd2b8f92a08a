"""Losses of pairs of embeddings: modules here, pure functions in :mod:`neurotrain.losses.contrastive.functional`."""

from neurotrain.losses.contrastive.functional import clip_loss, contrastive_cross_entropy, siglip_loss
from neurotrain.losses.contrastive.gathering import gathered
from neurotrain.losses.contrastive.modules import ClipLoss, ContrastiveLoss, SigLipLoss

__all__ = [
    "ClipLoss",
    "ContrastiveLoss",
    "SigLipLoss",
    "clip_loss",
    "contrastive_cross_entropy",
    "gathered",
    "siglip_loss",
]
