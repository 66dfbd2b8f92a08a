"""Learning-rate schedules: pure functions of (step, total steps), as factors of the base learning rate."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod


class Schedule(ABC):
    """Factor of the base learning rate at a step.

    A schedule holds no state: a resumed run reads the same factor at the same step, and the horizon is the
    run's own number of optimizer steps, derived from the trainer and never typed twice.

    Args:
        warmup: share of all steps over which the factor rises linearly to 1, in ``[0, 1)``.

    Raises:
        ValueError: if ``warmup`` is outside ``[0, 1)``.
    """

    def __init__(self, *, warmup: float = 0.0) -> None:
        if not 0.0 <= warmup < 1.0:
            raise ValueError(f"warmup={warmup} must be a share of the run in [0, 1)")
        self.warmup = warmup

    def __call__(self, step: int, total: int) -> float:
        """Return the factor for optimizer step ``step`` (from 0) of ``total``."""
        warmup_steps = round(self.warmup * total)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return self.decay(min(1.0, (step - warmup_steps) / max(1, total - warmup_steps)))

    @abstractmethod
    def decay(self, progress: float) -> float:
        """Return the factor after the warm-up; ``progress`` runs from 0 to 1."""


class Constant(Schedule):
    """Factor 1 after the warm-up.

    Example:
        >>> Constant()(7, 10)
        1.0
    """

    def __init__(self, *, warmup: float = 0.0) -> None:
        super().__init__(warmup=warmup)

    def decay(self, progress: float) -> float:
        """Return 1 at every ``progress``."""
        return 1.0


class Cosine(Schedule):
    """Half a cosine from 1 down to ``floor`` (SGDR without restarts, arXiv:1608.03983, equation 5).

    Args:
        warmup: share of all steps for the linear rise.
        floor: factor at the end, in ``[0, 1]``.

    Example:
        >>> schedule = Cosine(warmup=0.1)
        >>> [round(schedule(step, 100), 3) for step in (0, 9, 10, 55, 100)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, *, warmup: float = 0.05, floor: float = 0.0) -> None:
        super().__init__(warmup=warmup)
        if not 0.0 <= floor <= 1.0:
            raise ValueError(f"floor={floor} must be in [0, 1]")
        self.floor = floor

    def decay(self, progress: float) -> float:
        """Return the cosine's value at ``progress``."""
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))


class Polynomial(Schedule):
    """``(1 - progress) ** power``, nnU-Net's schedule at its default power.

    Args:
        warmup: share of all steps for the linear rise.
        power: exponent, above 0; 1 is a linear decay.

    Example:
        >>> Polynomial(power=1.0)(25, 100)
        0.75
    """

    def __init__(self, *, warmup: float = 0.0, power: float = 0.9) -> None:
        super().__init__(warmup=warmup)
        if power <= 0.0:
            raise ValueError(f"power={power} must be above 0")
        self.power = power

    def decay(self, progress: float) -> float:
        """Return the polynomial's value at ``progress``."""
        return (1.0 - progress) ** self.power


class MultiStep(Schedule):
    """Multiply by ``gamma`` at each milestone.

    Args:
        warmup: share of all steps for the linear rise.
        milestones: shares of the run after the warm-up, rising, each in ``(0, 1)``.
        gamma: factor at each milestone.

    Example:
        >>> schedule = MultiStep(milestones=(0.5, 0.75), gamma=0.1)
        >>> [round(schedule(step, 100), 3) for step in (0, 50, 80)]
        [1.0, 0.1, 0.01]
    """

    def __init__(self, *, warmup: float = 0.0, milestones: tuple[float, ...] = (0.6, 0.85), gamma: float = 0.1) -> None:
        super().__init__(warmup=warmup)
        if list(milestones) != sorted(milestones) or not all(0.0 < share < 1.0 for share in milestones):
            raise ValueError(f"milestones={milestones} must rise and lie in (0, 1): they are shares of the run")
        self.milestones = milestones
        self.gamma = gamma

    def decay(self, progress: float) -> float:
        """Return ``gamma`` to the number of milestones passed."""
        return self.gamma ** sum(progress >= share for share in self.milestones)
