"""What a mixture has to know of a source."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from neurotrain.data.mixture.checks import refuse
from neurotrain.data.mixture.orders import Sampler, Shuffled


@dataclass(frozen=True, kw_only=True)
class SourcePlan:
    """One source of a mixture.

    Args:
        name: unique in the mixture.
        length: entries.
        sampler: order of the entries.

    Raises:
        ValueError: naming everything that is wrong.
    """

    name: str
    length: int
    sampler: Sampler = field(default_factory=Shuffled)

    def __post_init__(self) -> None:
        """Check the numbers."""
        problems: list[str] = []
        if self.length < 1:
            problems.append(f"length={self.length} must be at least 1")
        refuse(f"source {self.name!r}", problems)

    @property
    def seed(self) -> int:
        """64 bits of the name: a source keeps its order when others come or go."""
        return int.from_bytes(hashlib.blake2b(self.name.encode(), digest_size=8).digest(), "big")
