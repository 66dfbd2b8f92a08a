"""Bad samples: tried again where that makes sense, replaced by others of their source, counted, written down.

The replacement is a pure function of (seed, epoch, position, attempt), so a resumed run and any number of workers meet
the same ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from neurotrain.data.engine.errors import LoaderError
from neurotrain.data.engine.protocols import MakeKey, NamedSource
from neurotrain.storage import StorageError

_MASK = 0xFFFF_FFFF_FFFF_FFFF
_REASON_LENGTH = 500
_LISTED = 20

MISTAKES = (MemoryError, NameError, AttributeError, ImportError, NotImplementedError, AssertionError)
"""Errors of code or machine, not of a sample: never replaced."""


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """What happens to samples that cannot be loaded.

    Args:
        max_bad_share: share of an epoch's samples that may be replaced; one more stops the run with the list.
        retries: further tries of a sample whose error is transient.
        backoff: seconds before the first of them, doubled for each further one.
        candidates: replacements to try before giving up.

    Raises:
        ValueError: if a number is out of its range.
    """

    max_bad_share: float = 0.01
    retries: int = 3
    backoff: float = 0.1
    candidates: int = 16

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"max_bad_share={self.max_bad_share}: must be within 0 and 1")
        if self.retries < 0 or self.backoff < 0:
            raise ValueError(f"retries={self.retries}, backoff={self.backoff}: must be at least 0")
        if self.candidates < 1:
            raise ValueError(f"candidates={self.candidates}: must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class BadSample:
    """One entry of the ledger.

    Attributes:
        id: of the bad sample.
        uri: where its bytes are.
        source: name of its source.
        reason: type and text of the error.
        epoch: of the pass over the data.
        position: global place within the epoch.
        step: batch of the epoch, from 0.
        replacement: id of the sample in its place.
    """

    id: str
    uri: str
    source: str
    reason: str
    epoch: int
    position: int
    step: int
    replacement: str


@dataclass(slots=True)
class Report:
    """What happened while one batch was made.

    Attributes:
        retried: reads that were tried again.
        replaced: bad samples.
        counters: totals of the source in this worker, by name.
        worker: who made the batch; -1: the main process.
    """

    retried: int = 0
    replaced: list[BadSample] = field(default_factory=list["BadSample"])
    counters: dict[str, int] = field(default_factory=dict[str, int])
    worker: int = -1


class TooManyBadSamplesError(LoaderError):
    """More bad samples than the run was told to bear."""

    def __init__(self, bad: list[BadSample], *, found: int, samples: int, allowed: float) -> None:
        listed = "\n".join(f"  {one.source}/{one.id} ({one.uri}): {one.reason}" for one in bad[:_LISTED])
        more = f"\n  … and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        super().__init__(
            f"{found} bad samples among the {samples} of this epoch and rank are more than "
            f"max_bad_share={allowed:g}:\n{listed}{more}"
        )
        self.bad = tuple(bad)


def replacement(*, seed: int, epoch: int, position: int, attempt: int, count: int, bad: int) -> int:
    """Which entry of a source stands in for a bad one: uniform over the others.

    Args:
        seed: of the order.
        epoch: of the sample.
        position: of the sample.
        attempt: from 0, should a replacement be bad too.
        count: entries of the source.
        bad: the entry to replace.

    Returns:
        An index in ``[0, count)`` other than ``bad``.

    Example:
        >>> [replacement(seed=0, epoch=1, position=7, attempt=a, count=5, bad=2) for a in range(6)]
        [0, 4, 1, 4, 3, 3]
    """
    other = mixed(seed, epoch, position, attempt) % (count - 1)
    return other + (other >= bad)


def mixed(*words: int) -> int:
    """Fold integers into 64 bits, equal on every machine and version: SplitMix64 (Steele, Lea and Flood, 2014)."""
    state = 0
    for word in words:
        z = ((state ^ (word & _MASK)) + 0x9E37_79B9_7F4A_7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58_476D_1CE4_E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D0_49BB_1331_11EB) & _MASK
        state = z ^ (z >> 31)
    return state


def is_transient(error: BaseException) -> bool:
    """Whether the same read may succeed later: a storage error that says so is among the causes."""
    return any(isinstance(cause, StorageError) and cause.transient for cause in _causes(error))


def is_mistake(error: BaseException) -> bool:
    """Whether code or machine is to blame, not the sample."""
    return any(isinstance(cause, MISTAKES) for cause in _causes(error))


class BadSampleHandler:
    """Retries and replaces, in the process that loads.

    Args:
        policy: how often.
        source: names samples and counts entries.
        seed: of the order.
        make_key: makes a key of (index, epoch, position, source).
    """

    def __init__(self, *, policy: Quarantine, source: NamedSource[Any], seed: int, make_key: MakeKey) -> None:
        self._policy = policy
        self._source = source
        self._seed = seed
        self._make_key = make_key

    def retry(self, again: Callable[[], None], error: Exception, report: Report) -> Exception | None:
        """Try a failed read again while its error is transient.

        Args:
            again: loads the sample and puts it into its place.
            error: of the first try.
            report: counts the tries.

        Returns:
            None if it succeeded; otherwise the last error.

        Raises:
            Exception: ``error`` itself, if no sample is to blame.
        """
        wait = self._policy.backoff
        for _ in range(self._policy.retries):
            if not is_transient(error):
                break
            time.sleep(wait)
            wait *= 2
            report.retried += 1
            try:
                again()
            except Exception as later:
                error = later
            else:
                return None
        if is_mistake(error):
            raise error
        return error

    def replace(self, put: Callable[[Any], None], key: Any, step: int, error: Exception, report: Report) -> None:  # noqa: ANN401
        """Put another sample of the same source into the place of a bad one.

        Args:
            put: loads the sample of a key and puts it into the place.
            key: of the bad sample.
            step: number of the batch.
            error: why it is bad.
            report: is told.

        Raises:
            LoaderError: if no candidate can be loaded either; the first error is its cause.
        """
        name = self._source.identify(key)
        for candidate in self._candidates(key):
            try:
                put(candidate)
            except Exception as another:
                if self.retry(lambda chosen=candidate: put(chosen), another, report) is not None:
                    continue
            report.replaced.append(
                BadSample(
                    id=name.id,
                    uri=name.uri,
                    source=name.source,
                    reason=reason_of(error),
                    epoch=key.epoch,
                    position=key.position,
                    step=step,
                    replacement=self._source.identify(candidate).id,
                )
            )
            return
        raise LoaderError(
            f"sample {name.id!r} of {name.source} ({name.uri}) is bad, and so are the {self._policy.candidates} "
            f"candidates to replace it: {reason_of(error)}"
        ) from error

    def _candidates(self, key: Any) -> Iterator[Any]:  # noqa: ANN401
        count = self._source.count(key.source)
        if count < 2:
            return
        for attempt in range(self._policy.candidates):
            index = replacement(
                seed=self._seed,
                epoch=key.epoch,
                position=key.position,
                attempt=attempt,
                count=count,
                bad=key.index,
            )
            yield self._make_key(index, key.epoch, key.position, key.source)


def reason_of(error: BaseException) -> str:
    """Type and text of an error on one line, with its first cause where that says more."""
    causes = list(_causes(error))
    told = [f"{type(cause).__name__}: {cause}" for cause in (causes[0], *causes[1:][-1:])]
    text = " <- ".join(told)
    return " ".join(text.split())[:_REASON_LENGTH]


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
