"""Noise of diffusion models: schedules, what networks predict, solvers of the sampling equation, training times.

Pure functions of tensors. Time is continuous: 0 is the data, 1 the most noise, ``x_t = alpha(t) x_0 + sigma(t) noise``.
"""

from neurotrain.noise.prediction import (
    Prediction,
    add_noise,
    convert,
    match_snr,
    matches_snr,
    rescale,
    to_epsilon,
    to_x0,
)
from neurotrain.noise.samplers import (
    Denoise,
    Solver,
    ddim,
    ddim_step,
    dpm_solver_2m,
    euler,
    heun,
    initial_state,
    sampling_times,
    solver,
)
from neurotrain.noise.schedules import (
    BetaSchedule,
    CosineSchedule,
    FlowSchedule,
    KarrasSchedule,
    LinearBetaSchedule,
    NoiseSchedule,
    ScaledLinearSchedule,
    expand,
)
from neurotrain.noise.timesteps import LogitNormalTimes, ModeTimes, TimeSampling, UniformTimes, min_snr_weight

__all__ = [
    "BetaSchedule",
    "CosineSchedule",
    "Denoise",
    "FlowSchedule",
    "KarrasSchedule",
    "LinearBetaSchedule",
    "LogitNormalTimes",
    "ModeTimes",
    "NoiseSchedule",
    "Prediction",
    "ScaledLinearSchedule",
    "Solver",
    "TimeSampling",
    "UniformTimes",
    "add_noise",
    "convert",
    "ddim",
    "ddim_step",
    "dpm_solver_2m",
    "euler",
    "expand",
    "heun",
    "initial_state",
    "match_snr",
    "matches_snr",
    "min_snr_weight",
    "rescale",
    "sampling_times",
    "solver",
    "to_epsilon",
    "to_x0",
]
