"""Losses of whole images: modules here, pure functions in :mod:`neurotrain.losses.classification.functional`."""

from neurotrain.losses.classification.functional import (
    classification_cross_entropy,
    classification_focal_loss,
    distillation_loss,
    multilabel_cross_entropy,
)
from neurotrain.losses.classification.modules import (
    ClassificationCrossEntropy,
    ClassificationFocal,
    ClassificationLoss,
    ClassificationMode,
    MultilabelCrossEntropy,
)

__all__ = [
    "ClassificationCrossEntropy",
    "ClassificationFocal",
    "ClassificationLoss",
    "ClassificationMode",
    "MultilabelCrossEntropy",
    "classification_cross_entropy",
    "classification_focal_loss",
    "distillation_loss",
    "multilabel_cross_entropy",
]
