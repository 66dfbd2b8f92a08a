"""When to try again, how long to wait, and when to give up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with full jitter, inside deadlines.

    The wait before attempt ``n + 1`` is drawn from ``[0, min(longest_wait, first_wait * 2**(n - 1))]``, so that
    many workers that failed together do not come back together.

    Args:
        attempts: tries in all; 1 means no retry.
        first_wait: bound of the first wait, in seconds.
        longest_wait: bound of every wait, in seconds.
        connect_timeout: seconds to find the host, connect and shake hands.
        read_timeout: seconds without a single byte, after which an attempt has failed.
        deadline: seconds for one operation with all its attempts and waits; reading one object, one part of an upload
            and one page of a listing are operations.
        seed: makes the waits repeat, for tests; None draws them anew in every process.

    Raises:
        ValueError: if a number is out of range.

    Reference:
        M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: "full jitter".

    Example:
        >>> policy = RetryPolicy(attempts=4, first_wait=1.0, seed=7)
        >>> [round(wait, 2) for wait in policy.waits()] == [round(wait, 2) for wait in policy.waits()]
        True
    """

    attempts: int = 6
    first_wait: float = 0.1
    longest_wait: float = 10.0
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    deadline: float = 120.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.attempts < 1:
            raise ValueError(f"attempts={self.attempts}: at least 1")
        for name in ("first_wait", "longest_wait"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: seconds, 0 or more")
        for name in ("connect_timeout", "read_timeout", "deadline"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: seconds, more than 0")

    def waits(self) -> Iterator[float]:
        """Seconds to wait before each further attempt: ``attempts - 1`` of them."""
        draw = random.Random(self.seed).uniform  # noqa: S311 - spreads load, guards nothing
        for attempt in range(self.attempts - 1):
            # An exponent beyond 60 is past any bound and would overflow.
            yield draw(0.0, min(self.longest_wait, self.first_wait * 2.0 ** min(attempt, 60)))
