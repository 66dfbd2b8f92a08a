"""Filling a cache ahead of time: by several processes without doing a thing twice, resumed where it was killed."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic

from neurotrain.data.cache.filling import EncodeError, Filler, Value, Work
from neurotrain.data.cache.locks import Claims
from neurotrain.data.sources.base import SampleFormatError
from neurotrain.storage import StorageError

PATIENCE = 600.0
"""Seconds to wait for keys that another process holds without storing any; then they are encoded here."""

_POLL = 0.05
_LISTED = 10
_SAMPLE_ERRORS = (SampleFormatError, StorageError, EncodeError)


@dataclass(frozen=True, kw_only=True)
class BuildProgress:
    """How far a build is.

    Attributes:
        done: of this rank's share, failed ones included.
        total: this rank's share.
        encoded: of ``done``, by this process.
        failed: of ``done``.
        seconds: since the start.
    """

    done: int
    total: int
    encoded: int
    failed: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build did.

    Attributes:
        total: entries of the source, or distinct texts.
        owned: this rank's share of them; ``encoded + present + elsewhere + len(failed)``.
        encoded: by this process.
        present: stored before, or under the same key as another of this share.
        elsewhere: stored by another process meanwhile.
        failed: name and reason of samples that could not be read or encoded.
        seconds: the whole build.
        seconds_encoding: in the encoder.
    """

    total: int
    owned: int
    encoded: int
    present: int
    elsewhere: int
    failed: tuple[tuple[str, str], ...]
    seconds: float
    seconds_encoding: float


class BuildError(RuntimeError):
    """Too many samples failed; what was encoded is stored.

    Args:
        message: names the first ones.
        failed: name and reason of all.
    """

    def __init__(self, message: str, failed: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, failed)
        self.failed = tuple(failed)

    def __str__(self) -> str:
        """The message."""
        return str(self.args[0])


def place_in_world(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and number of ranks: as given, or as ``torchrun`` tells in the environment, or one process alone.

    Raises:
        ValueError: if only one is given, or there is no such rank.
    """
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank={rank}, world_size={world_size}: give both, or neither under torchrun")
    if rank is None or world_size is None:
        rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world_size:
        raise ValueError(f"rank={rank}: world_size={world_size} has the ranks 0 to {world_size - 1}")
    return rank, world_size


class Build(Generic[Value]):
    """One process's part of a build.

    Args:
        filler: encodes and stores.
        share: what this rank has to see to, as ``load`` counts it.
        load: one item's work, or its key where it is stored already; called from several threads.
        name: of an item, for messages.
        total: items of all ranks.
        threads: that read and prepare ahead of the encoder.
        max_bad_share: of ``share`` that may fail before the build stops, in [0, 1].
        progress: called after every batch and about once a second.
    """

    def __init__(
        self,
        *,
        filler: Filler[Value],
        share: Sequence[int],
        load: Callable[[int], Work[Value] | bytes],
        name: Callable[[int], str],
        total: int,
        threads: int = 4,
        max_bad_share: float = 0.01,
        progress: Callable[[BuildProgress], None] | None = None,
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads={threads}: must be at least 1")
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f"max_bad_share={max_bad_share}: a share from 0 to 1")
        self._filler, self._cache = filler, filler.cache
        self._share, self._total = share, total
        self._load, self._name = load, name
        self._threads, self._max_bad_share = threads, max_bad_share
        self._progress = progress
        self._claims = Claims(self._cache.folder.claims)
        self._groups: dict[Hashable, list[Work[Value]]] = {}
        self._queued: set[bytes] = set()
        self._unstored: list[bytes] = []
        self._held_by_others: list[tuple[int, bytes]] = []
        self._failed: list[tuple[str, str]] = []
        self._encoded = self._present = self._elsewhere = 0
        self._started = self._told = time.monotonic()

    def run(self) -> BuildReport:
        """Do it.

        Returns:
            What was done.

        Raises:
            BuildError: if too many samples fail.
            CacheFullError: if there is no room; what was stored before is kept.
        """
        seconds = self._filler.statistics.seconds
        try:
            for index, loaded in self._ahead():
                self._take(index, loaded)
            self._finish_groups()
            self._wait_for_others()
        finally:
            try:
                self._cache.flush()
            finally:
                self._claims.close()
        self._cache.write_manifest()
        self._tell()
        return BuildReport(
            total=self._total,
            owned=len(self._share),
            encoded=self._encoded,
            present=self._present,
            elsewhere=self._elsewhere,
            failed=tuple(self._failed),
            seconds=time.monotonic() - self._started,
            seconds_encoding=self._filler.statistics.seconds - seconds,
        )

    def _ahead(self) -> Iterator[tuple[int, Work[Value] | bytes | Exception]]:
        """Items in order, read by threads a few batches before they are needed."""
        window: deque[tuple[int, Future[Work[Value] | bytes | Exception]]] = deque()
        depth = 2 * max(self._threads, self._filler.batch_size)
        with ThreadPoolExecutor(max_workers=self._threads) as pool:
            try:
                for index in self._share:
                    window.append((index, pool.submit(self._loaded, index)))
                    if len(window) > depth:
                        first, future = window.popleft()
                        yield first, future.result()
                while window:
                    first, future = window.popleft()
                    yield first, future.result()
            finally:
                for _, future in window:
                    future.cancel()

    def _loaded(self, index: int) -> Work[Value] | bytes | Exception:
        try:
            return self._load(index)
        except _SAMPLE_ERRORS as error:
            return error

    def _take(self, index: int, loaded: Work[Value] | bytes | Exception, *, claim: bool = True) -> None:
        if isinstance(loaded, Exception):
            self._fail(self._name(index), loaded)
        elif isinstance(loaded, bytes) or loaded.key in self._queued:
            self._present += 1
        elif claim and not self._claims.take(loaded.key):
            self._held_by_others.append((index, loaded.key))
        elif loaded.key in self._cache:  # stored since, by whoever held it
            self._claims.release([loaded.key])
            self._elsewhere += 1
        else:
            group = self._groups.setdefault(self._filler.alike(loaded.value), [])
            group.append(loaded)
            self._queued.add(loaded.key)
            if len(group) == self._filler.batch_size:
                self._encode(group)
        if time.monotonic() - self._told > 1.0:
            self._tell()

    def _encode(self, group: list[Work[Value]]) -> None:
        results = self._filler.encode(group)
        works = list(group)
        group.clear()
        for work, result in zip(works, results, strict=True):
            if isinstance(result, EncodeError):
                self._fail(work.name, result)
                continue
            self._cache.put(work.key, result)
            self._encoded += 1
            self._unstored.append(work.key)
        waiting = [key for key in self._unstored if self._cache.is_waiting(key)]
        if len(waiting) < len(self._unstored):
            # Only now may another process look: what it does not find stored it would encode again.
            self._claims.release(set(self._unstored).difference(waiting))
            self._unstored = waiting
        self._tell()

    def _finish_groups(self) -> None:
        for group in self._groups.values():
            if group:
                self._encode(group)
        self._cache.flush()
        self._claims.release(self._unstored)
        self._unstored = []

    def _wait_for_others(self) -> None:
        changed = time.monotonic()
        while self._held_by_others:
            waiting, self._held_by_others = self._held_by_others, []
            impatient = time.monotonic() - changed > PATIENCE
            for index, key in waiting:
                free = self._claims.take(key)
                if key in self._cache:
                    self._elsewhere += 1
                    self._claims.release([key])
                elif free or impatient:  # its holder died, or hangs
                    self._take(index, self._loaded(index), claim=not impatient)
                else:
                    self._held_by_others.append((index, key))
            self._finish_groups()
            if len(self._held_by_others) < len(waiting):
                changed = time.monotonic()
            elif self._held_by_others:
                time.sleep(_POLL)

    def _fail(self, name: str, error: Exception) -> None:
        self._failed.append((name, str(error)))
        if len(self._failed) > self._max_bad_share * len(self._share):
            listed = "".join(f"\n  {name}: {reason}" for name, reason in self._failed[:_LISTED])
            counts = f"{len(self._failed)} of {len(self._share)} samples failed"
            raise BuildError(f"{counts}, max_bad_share={self._max_bad_share}:{listed}", self._failed)

    def _tell(self) -> None:
        self._told = time.monotonic()
        if self._progress is not None:
            self._progress(
                BuildProgress(
                    done=self._encoded + self._present + self._elsewhere + len(self._failed),
                    total=len(self._share),
                    encoded=self._encoded,
                    failed=len(self._failed),
                    seconds=self._told - self._started,
                )
            )
