"""Schedulers of diffusers, read as noise schedules and written back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from neurotrain.noise import (
    BetaSchedule,
    CosineSchedule,
    FlowSchedule,
    LinearBetaSchedule,
    NoiseSchedule,
    Prediction,
    ScaledLinearSchedule,
)

__all__ = ["flow_shift", "prediction_of", "schedule_of", "scheduler_config"]

_PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}
_FLOW_PREDICTION = "flow_prediction"
_BETAS = {"linear": LinearBetaSchedule, "scaled_linear": ScaledLinearSchedule}
_FLOWS = (
    "FlowMapEulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
)
_BETA_SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
_UNKNOWN = {"rescale_betas_zero_snr": False, "trained_betas": None, "invert_sigmas": False}
"""Options whose other values change the training noise, and are not known here."""


def schedule_of(config: Mapping[str, Any], *, image_tokens: int | None = None) -> NoiseSchedule:
    """The noise that a scheduler's models were trained with.

    Args:
        config: ``scheduler_config.json``.
        image_tokens: length of a picture's sequence; a flow with ``use_dynamic_shifting`` is shifted by it.

    Returns:
        A schedule of ours.

    Raises:
        ValueError: names the class or the option that is not known.

    Example:
        >>> schedule_of({"_class_name": "DDIMScheduler", "beta_schedule": "linear"})
        LinearBetaSchedule(beta_start=0.0001, beta_end=0.02, steps=1000)
    """
    name = config.get("_class_name")
    for option, plain in _UNKNOWN.items():
        if config.get(option, plain) != plain:
            raise ValueError(f"scheduler {name}: {option}={config[option]!r} is not known, only {plain!r}")
    steps = int(config.get("num_train_timesteps", 1000))
    if name in _FLOWS:
        return FlowSchedule(shift=flow_shift(config, image_tokens=image_tokens), steps=steps)
    if config.get("use_flow_sigmas", False):
        return FlowSchedule(shift=_shift_of_flow_sigmas(config), steps=steps)
    if name not in _BETA_SCHEDULERS:
        known = ", ".join(sorted((*_FLOWS, *_BETA_SCHEDULERS)))
        raise ValueError(f"scheduler {name!r} is not known; known are {known}. Give the family a schedule instead")
    kind = config.get("beta_schedule", "linear")
    if kind == "squaredcos_cap_v2":
        return CosineSchedule(steps=steps)
    if kind not in _BETAS:
        raise ValueError(f"scheduler {name}: beta_schedule={kind!r} is not known")
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    return _BETAS[kind](beta_start=start, beta_end=end, steps=steps)


def flow_shift(config: Mapping[str, Any], *, image_tokens: int | None) -> float:
    """Shift of a flow's times: the scheduler's own, or by the picture's size.

    Raises:
        ValueError: if the size decides and is not given, or the shift is linear in time.

    Reference:
        Esser et al., 2024 (arXiv:2403.03206), section 5.3.2; ``calculate_shift`` of Flux.
    """
    if not config.get("use_dynamic_shifting", False):
        return float(config.get("shift", 1.0))
    if image_tokens is None:
        raise ValueError("use_dynamic_shifting=True: the shift follows from the picture's size, which is not given")
    if config.get("time_shift_type", "exponential") != "exponential":
        raise ValueError(f"time_shift_type={config['time_shift_type']!r} is not known, only 'exponential'")
    low, high = float(config.get("base_shift", 0.5)), float(config.get("max_shift", 1.15))
    first, last = int(config.get("base_image_seq_len", 256)), int(config.get("max_image_seq_len", 4096))
    return math.exp(low + (high - low) * (image_tokens - first) / (last - first))


def _shift_of_flow_sigmas(config: Mapping[str, Any]) -> float:
    """Shift of a solver that is told to follow a flow, as Wan's ``UniPCMultistepScheduler`` is.

    Raises:
        ValueError: if its models do not predict one, or the size decides over the shift.
    """
    name, kind = config.get("_class_name"), config.get("prediction_type", "epsilon")
    if kind != _FLOW_PREDICTION:
        raise ValueError(f"scheduler {name}: use_flow_sigmas=True with prediction_type={kind!r} is not known")
    if config.get("use_dynamic_shifting", False):
        raise ValueError(f"scheduler {name}: use_flow_sigmas=True with use_dynamic_shifting=True is not known")
    return float(config.get("flow_shift", 1.0))


def prediction_of(config: Mapping[str, Any]) -> Prediction:
    """What the scheduler's models predict.

    Raises:
        ValueError: if it is not known.
    """
    if config.get("_class_name") in _FLOWS or config.get("use_flow_sigmas", False):
        return "flow"
    kind = config.get("prediction_type", "epsilon")
    if kind not in _PREDICTIONS:
        raise ValueError(f"prediction_type={kind!r}: one of {', '.join(map(repr, _PREDICTIONS))}")
    return _PREDICTIONS[kind]


def scheduler_config(schedule: NoiseSchedule, prediction: Prediction) -> tuple[str, dict[str, Any]]:
    """Class and arguments of the scheduler that samples with these times: ``DDIMScheduler``, or Euler's for a flow.

    Args:
        schedule: of the model.
        prediction: of the model.

    Raises:
        ValueError: if diffusers has no scheduler for the two together.
    """
    if isinstance(schedule, FlowSchedule) and prediction == "flow":
        return "FlowMatchEulerDiscreteScheduler", {"shift": schedule.shift, "num_train_timesteps": schedule.steps}
    names = {ours: theirs for theirs, ours in _PREDICTIONS.items()}
    betas: dict[str, Any] | None = None
    if isinstance(schedule, LinearBetaSchedule | ScaledLinearSchedule):
        kind = "linear" if isinstance(schedule, LinearBetaSchedule) else "scaled_linear"
        betas = {"beta_schedule": kind, "beta_start": schedule.beta_start, "beta_end": schedule.beta_end}
    elif isinstance(schedule, CosineSchedule) and schedule == CosineSchedule(steps=schedule.steps):
        betas = {"beta_schedule": "squaredcos_cap_v2"}
    if betas is None or prediction not in names or not isinstance(schedule, BetaSchedule):
        raise ValueError(f"diffusers has no scheduler for a model that predicts {prediction!r} under {schedule}")
    return "DDIMScheduler", {
        **betas,
        "num_train_timesteps": schedule.steps,
        "prediction_type": names[prediction],
        "clip_sample": False,
        "set_alpha_to_one": True,
        "timestep_spacing": "trailing",
        "steps_offset": 1,  # of no effect here, but Stable Diffusion's pipelines insist on it
    }
