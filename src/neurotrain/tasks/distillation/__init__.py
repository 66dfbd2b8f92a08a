"""Distillation of diffusion models: one task that runs any method, and one module a method."""

from neurotrain.tasks.distillation.adversarial import Adversarial
from neurotrain.tasks.distillation.base import Method, Moment, Needs, Update, Workplace
from neurotrain.tasks.distillation.consistency import Consistency
from neurotrain.tasks.distillation.diffusion_forcing import DiffusionForcing
from neurotrain.tasks.distillation.dmd2 import Dmd2
from neurotrain.tasks.distillation.fine_tune import FineTune
from neurotrain.tasks.distillation.mean_flow import MeanFlow
from neurotrain.tasks.distillation.ode_distillation import OdeDistillation
from neurotrain.tasks.distillation.progressive import Progressive
from neurotrain.tasks.distillation.regression import TrajectoryRegression
from neurotrain.tasks.distillation.self_forcing import SelfForcing
from neurotrain.tasks.distillation.task import DistillationTask, RoleWithoutGradientError

__all__ = [
    "Adversarial",
    "Consistency",
    "DiffusionForcing",
    "DistillationTask",
    "Dmd2",
    "FineTune",
    "MeanFlow",
    "Method",
    "Moment",
    "Needs",
    "OdeDistillation",
    "Progressive",
    "RoleWithoutGradientError",
    "SelfForcing",
    "TrajectoryRegression",
    "Update",
    "Workplace",
]
