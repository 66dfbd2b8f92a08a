"""Checks of what a caller states: mode, weights and scalar options. Everything refused names its key and its value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import get_args

import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode

ALL_MODES: tuple[str, ...] = get_args(SegmentationMode)
BINARY_MODES: tuple[str, ...] = ("binary", "multilabel")
MULTICLASS_MODES: tuple[str, ...] = ("multiclass",)


def check_mode(mode: str, *, allowed: tuple[str, ...] = ALL_MODES, owner: str = "a segmentation loss") -> None:
    """Refuse a mode that ``owner`` has no definition for.

    Args:
        mode: what the caller asked for.
        allowed: the modes that are defined.
        owner: the loss, for the message.

    Raises:
        ValueError: naming the mode, the nearest one and the ones allowed.
    """
    if mode in allowed:
        return
    near = get_close_matches(mode, allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"mode={mode!r} is not defined for {owner}: choose from {list(allowed)}{hint}")


def bounded(name: str, value: float, *, low: float, high: float = math.inf, open_low: bool = False) -> float:
    """Return ``value`` if it is finite and lies in ``[low, high]``, or in ``(low, high]`` with ``open_low``.

    Args:
        name: key of the option, for the message.
        value: value of the option.
        low: smallest value (excluded with ``open_low``).
        high: largest value.
        open_low: whether ``low`` itself is refused.

    Raises:
        ValueError: naming the key, the value and the interval.

    Example:
        >>> bounded("smooth", 1.0, low=0, open_low=True)
        1.0
    """
    if math.isfinite(value) and value <= high and (value > low if open_low else value >= low):
        return value
    bracket, end = "(" if open_low else "[", "inf)" if math.isinf(high) else f"{high}]"
    raise ValueError(f"{name}={value} lies outside {bracket}{low}, {end}")


def weight_tensor(name: str, values: Sequence[float] | Tensor | None) -> Tensor | None:
    """Weights as an fp32 vector; a tensor passes through unread, because reading it would stall an accelerator.

    Args:
        name: key of the option, for the message.
        values: finite, non-negative weights of which one is positive, or None.

    Returns:
        ``(len(values),)`` float32, or None.

    Raises:
        ValueError: if there are no weights, one is negative or not finite, or all are zero.
    """
    if values is None or isinstance(values, Tensor):
        return values
    weights = tuple(float(value) for value in values)
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise ValueError(f"{name}={weights} must be finite and non-negative with a positive sum")
    return torch.tensor(weights, dtype=torch.float32)


def check_length(name: str, weights: Tensor | None, expected: int, reason: str) -> None:
    """Refuse a weight vector of the wrong length.

    Args:
        name: key of the option, for the message.
        weights: vector, or None (nothing to check).
        expected: entries that it must have.
        reason: where ``expected`` comes from.

    Raises:
        ValueError: naming the weights, their number and the expected number.
    """
    if weights is not None and weights.shape != (expected,):
        raise ValueError(f"{name}={weights.tolist()} has shape {tuple(weights.shape)}, not ({expected},): {reason}")


def check_region_options(mode: str, class_weights: Sequence[float] | Tensor | None, include_background: bool) -> None:
    """Refuse settings that would be without effect in a loss that scores regions (Dice and its kin).

    Args:
        mode: checked already.
        class_weights: has no meaning in ``binary``, where only the foreground is scored.
        include_background: may be False in ``multiclass`` only; the other modes have no background channel.

    Raises:
        ValueError: naming the setting and the mode; also if only the background, which is not scored, has weight.
    """
    if mode == "binary" and class_weights is not None:
        values = class_weights.tolist() if isinstance(class_weights, Tensor) else class_weights
        raise ValueError(f"class_weights={values} has no effect in mode='binary': one region is scored; leave it None")
    if mode != "multiclass" and not include_background:
        raise ValueError(f"include_background=False has no effect in mode={mode!r}: it has no background channel")
    if include_background or class_weights is None or isinstance(class_weights, Tensor):
        return
    if not sum(class_weights[1:]) > 0:
        raise ValueError(f"class_weights={tuple(class_weights)} leave no weight to the classes other than background")
