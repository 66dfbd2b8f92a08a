"""Speed and the time that is left."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

_WINDOW = 20.0  # seconds over which the shown speed is averaged


class Pace:
    """Counts steps and samples against the clock.

    The speed is that of the last seconds, without the time of evaluations; the time left comes from the whole run so
    far, evaluations included, because there will be more of them.
    """

    def __init__(self, *, step: int = 0) -> None:
        """Start the clock.

        Args:
            step: optimizer steps done before.
        """
        self._begun = time.monotonic()
        self._first = step
        self._samples = 0
        self._evaluated = 0.0  # seconds spent in evaluations that are over
        self._evaluation_begun: float | None = None
        self._marks: deque[tuple[float, int, int]] = deque([(self._begun, step, 0)])

    def count(self, *, samples: int) -> None:
        """Adds the samples of one batch."""
        self._samples += samples

    def evaluation_begins(self) -> None:
        """Stops the clock of the speed."""
        self._evaluation_begun = time.monotonic()

    def evaluation_ends(self) -> None:
        """Lets the clock of the speed go on."""
        if self._evaluation_begun is not None:
            self._evaluated += time.monotonic() - self._evaluation_begun
            self._evaluation_begun = None

    def texts(self, *, step: int, total: float) -> list[str]:
        """Reads the clock.

        Args:
            step: optimizer steps done.
            total: optimizer steps of the whole run; may be infinite.

        Returns:
            Speed and time left, as far as they are known yet.
        """
        elapsed = time.monotonic() - self._begun
        now = self._begun + elapsed - self._evaluated
        while len(self._marks) > 1 and now - self._marks[1][0] > _WINDOW:
            self._marks.popleft()
        then, steps, samples = self._marks[0]
        self._marks.append((now, step, self._samples))
        texts: list[str] = []
        if now > then and step > steps:
            speeds = ((step - steps) / (now - then), (self._samples - samples) / (now - then))
            texts = [f"{speeds[0]:.3g} steps/s", f"{speeds[1]:.3g} samples/s"]
        if step > self._first and not math.isinf(total):
            texts.append(f"ETA {clock_text(elapsed / (step - self._first) * max(total - step, 0))}")
        return texts


def batch_size(batch: Any) -> int:  # noqa: ANN401 - whatever a loader yields
    """Number of samples in a batch: that of its ids, else the length of its first tensor.

    Args:
        batch: tensor, mapping or sequence that holds one.

    Returns:
        1 where no tensor is found.

    Example:
        >>> batch_size({"image": [], "id": ["a", "b"]})
        2
    """
    if isinstance(batch, Mapping):
        if "id" in batch and isinstance(batch["id"], Sequence):
            return len(batch["id"])
        return next((batch_size(value) for value in batch.values() if isinstance(value, Tensor)), 1)
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    if isinstance(batch, Sequence) and batch and not isinstance(batch, str):
        return batch_size(batch[0])
    return 1


def clock_text(seconds: float) -> str:
    """Hours, minutes and seconds.

    Example:
        >>> clock_text(59.6), clock_text(3725)
        ('1:00', '1:02:05')
    """
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
