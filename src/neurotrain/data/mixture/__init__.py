"""Mixtures of sources: who is drawn when, exactly by weight, with random access to any position."""

from neurotrain.data.mixture.orders import Drawer, Sampler, Sequential, Shuffled
from neurotrain.data.mixture.plan import MixturePlan
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
    "Drawer",
    "Explicit",
    "MixturePlan",
    "Quotas",
    "Sampler",
    "Scheduled",
    "Sequential",
    "Shuffled",
    "SizeProportional",
    "SourcePlan",
    "Temperature",
    "Uniform",
    "Weights",
]
