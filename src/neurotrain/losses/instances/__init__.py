"""Losses that tell things of one class apart: by embeddings, by matched masks, by centres and what points to them."""

from neurotrain.losses.instances.centres import CentreTargets, centre_loss, centre_targets, offset_loss
from neurotrain.losses.instances.embedding import discriminative_loss
from neurotrain.losses.instances.mask_sets import MaskTarget, mask_costs, mask_set_loss, matched
from neurotrain.losses.instances.modules import DiscriminativeLoss, MaskSetLoss, PanopticCentreLoss

__all__ = [
    "CentreTargets",
    "DiscriminativeLoss",
    "MaskSetLoss",
    "MaskTarget",
    "PanopticCentreLoss",
    "centre_loss",
    "centre_targets",
    "discriminative_loss",
    "mask_costs",
    "mask_set_loss",
    "matched",
    "offset_loss",
]
