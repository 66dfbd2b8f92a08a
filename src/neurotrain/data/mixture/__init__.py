"""Mixtures of sources: who is drawn when, exactly by weight, with random access to any position."""

from neurotrain.data.mixture.buckets import Buckets
from neurotrain.data.mixture.orders import ClassBalanced, Drawer, Sampler, Sequential, Shuffled, Weighted
from neurotrain.data.mixture.plan import MixturePlan
from neurotrain.data.mixture.priority import PrioritySampler
from neurotrain.data.mixture.selections import KFold, Subset
from neurotrain.data.mixture.source import SourcePlan
from neurotrain.data.mixture.weights import (
    Explicit,
    Quotas,
    Scheduled,
    SizeProportional,
    Temperature,
    Uniform,
    Weights,
)

__all__ = [
    "Buckets",
    "ClassBalanced",
    "Drawer",
    "Explicit",
    "KFold",
    "MixturePlan",
    "PrioritySampler",
    "Quotas",
    "Sampler",
    "Scheduled",
    "Sequential",
    "Shuffled",
    "SizeProportional",
    "SourcePlan",
    "Subset",
    "Temperature",
    "Uniform",
    "Weighted",
    "Weights",
]
