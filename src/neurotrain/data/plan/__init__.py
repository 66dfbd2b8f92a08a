"""Plans: which sample at which position of which epoch, a pure function of one seed."""

from neurotrain.data.plan.base import LearningPlan, Plan, PlanBlock, SampleKey
from neurotrain.data.plan.epoch import EpochPlan
from neurotrain.data.plan.seeds import mix_seed, splitmix64

__all__ = ["EpochPlan", "LearningPlan", "Plan", "PlanBlock", "SampleKey", "mix_seed", "splitmix64"]
