"""What the data cost before and during training: time and memory of each stage, counts, hits of caches."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

_PROC = Path("/proc/self")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage cost in this process; a stage that came several times is summed up.

    Attributes:
        seconds: of wall time.
        rss_bytes: resident memory at its end.
        peak_bytes: the most within it.
        times: how often it came.
    """

    seconds: float
    rss_bytes: int
    peak_bytes: int
    times: int = 1


class Stages:
    """Collects stages, by name and in the order in which they first ended.

    Example:
        >>> stages = Stages()
        >>> with stages.measured("index"):
        ...     _ = sum(range(1000))
        >>> stages.add("workers", seconds=0.5)
        >>> list(stages.as_dict()), stages.as_dict()["workers"]["seconds"]
        (['index', 'workers'], 0.5)
    """

    def __init__(self) -> None:
        self._stages: dict[str, Stage] = {}
        self._open = 0

    @contextmanager
    def measured(self, name: str) -> Generator[None]:
        """Measure what happens inside; a stage within a stage belongs to the outer one."""
        self._open += 1
        if self._open > 1:
            try:
                yield
            finally:
                self._open -= 1
            return
        forget_peak()
        started = time.perf_counter()
        try:
            yield
        finally:
            self._open -= 1
            self.add(name, seconds=time.perf_counter() - started)

    def add(self, name: str, *, seconds: float) -> None:
        """Put down a stage that was measured elsewhere and has just ended."""
        now, peak = memory()
        earlier = self._stages.get(name, Stage(seconds=0.0, rss_bytes=0, peak_bytes=0, times=0))
        self._stages[name] = Stage(
            seconds=earlier.seconds + seconds,
            rss_bytes=now,
            peak_bytes=max(peak, earlier.peak_bytes),
            times=earlier.times + 1,
        )

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values by stage."""
        return {name: asdict(stage) for name, stage in self._stages.items()}


class Staged(Protocol):
    """What has stages, as a data module."""

    stages: Stages


Setup = TypeVar("Setup", bound=Callable[..., None])
"""A method ``setup(self, stage)``."""


def staged(name: str) -> Callable[[Setup], Setup]:
    """Measure a data module's ``setup`` as a stage of its own.

    Args:
        name: of the stage.

    Example:
        >>> class Data:
        ...     def __init__(self):
        ...         self.stages = Stages()
        ...
        ...     @staged("index")
        ...     def setup(self, stage):
        ...         print(stage)
        >>> data = Data()
        >>> data.setup("fit")
        fit
        >>> data.stages.as_dict()["index"]["times"]
        1
    """

    def decorate(setup: Setup) -> Setup:
        @wraps(setup)
        def measured(self: Staged, stage: str) -> None:
            with self.stages.measured(name):
                setup(self, stage)

        return cast("Setup", measured)

    return decorate


def memory() -> tuple[int, int]:
    """Resident memory of this process now, and the most since :func:`forget_peak`, or since its start.

    Returns:
        Bytes.
    """
    with suppress(OSError, KeyError, ValueError):
        lines = (line.partition(":") for line in (_PROC / "status").read_text(encoding="ascii").splitlines())
        told = {name: value for name, _, value in lines}
        return _kibibytes(told["VmRSS"]), _kibibytes(told["VmHWM"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak


def forget_peak() -> None:
    """Let the peak of memory begin anew, where the system can: a stage then has one of its own."""
    with suppress(OSError):
        (_PROC / "clear_refs").write_text("5", encoding="ascii")


def told(report: Mapping[str, Any]) -> list[str]:
    """The lines of a report, for people.

    Args:
        report: ``stages``, ``samples`` of each source whose size is known, ``counters``; ``sources``, of which those
            are told that keep no promise about their order.

    Example:
        >>> stage = {"seconds": 1.5, "rss_bytes": 2**30, "peak_bytes": 2**31, "times": 1}
        >>> told({"stages": {"index": stage}, "samples": {"drive": 20}, "counters": {"drive/latents_hits": 20}})
        ['data: 20 samples (drive 20)', '  index: 1.50 s, memory 1024 MiB, peak 2048 MiB', '  drive/latents_hits: 20']
        >>> told({"stages": {}, "samples": {}, "counters": {}, "sources": {"web": {"order": "streamed"}}})
        ['data: 1 stream (web)', '  web: streamed, exempt from one order for any number of ranks and workers']
    """
    samples: Mapping[str, int] = report["samples"]
    orders = {name: row["order"] for name, row in report.get("sources", {}).items()}
    streams = [name for name, order in orders.items() if order == "streamed"]
    sources = ", ".join(f"{name} {count}" for name, count in samples.items())
    parts = [f"{sum(samples.values())} samples ({sources})"] if samples or not streams else []
    if streams:
        parts.append(f"{len(streams)} stream{'s' if len(streams) > 1 else ''} ({', '.join(streams)})")
    lines = [f"data: {', '.join(parts)}"]
    lines += [
        f"  {name}: {order}, exempt from one order for any number of ranks and workers"
        for name, order in orders.items()
        if order != "exact"
    ]
    for name, stage in report["stages"].items():
        now, peak = stage["rss_bytes"] / 2**20, stage["peak_bytes"] / 2**20
        lines.append(f"  {name}: {stage['seconds']:.2f} s, memory {now:.0f} MiB, peak {peak:.0f} MiB")
    return lines + [f"  {name}: {count}" for name, count in report["counters"].items() if count]


def _kibibytes(text: str) -> int:
    return int(text.split()[0]) * 1024
