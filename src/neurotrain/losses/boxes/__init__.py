"""Losses of boxes: a module here, pure functions in :mod:`neurotrain.losses.boxes.functional`."""

from neurotrain.losses.boxes.functional import BoxMeasure, box_l1_loss, box_overlap_loss
from neurotrain.losses.boxes.modules import BoxLoss

__all__ = ["BoxLoss", "BoxMeasure", "box_l1_loss", "box_overlap_loss"]
