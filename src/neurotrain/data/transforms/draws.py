"""Draws that the transforms share, and the checks of their parameters."""

from __future__ import annotations

import torch


def happens(probability: float, generator: torch.Generator) -> bool:
    """Draw whether something of this probability takes place."""
    return float(torch.rand((), generator=generator)) < probability


def uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    """Draw from ``[low, high)``."""
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator))


def check_probability(name: str, value: float) -> float:
    """Return ``value``.

    Raises:
        ValueError: if it is outside [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value}: a probability lies in [0, 1]")
    return value


def check_range(name: str, bounds: tuple[float, float]) -> tuple[float, float]:
    """Return ``bounds``.

    Raises:
        ValueError: if they are negative or reversed.
    """
    low, high = bounds
    if not 0 <= low <= high:
        raise ValueError(f"{name}={bounds}: need 0 <= low <= high")
    return low, high
