"""Many small reads at once, in order, with progress where somebody watches."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4
"""Calls that wait for each thread: enough to keep it busy, few enough to keep memory flat."""


def read_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], *, threads: int, label: str
) -> Iterator[Result]:
    """Call ``function`` on every item in threads.

    Args:
        function: reads one item.
        items: what to read.
        threads: calls at once, at least 1.
        label: what is going on, for the progress bar; shown on a terminal only.

    Yields:
        The results, in the order of ``items``.

    Raises:
        Exception: what the first failing call raised; calls that have not begun are not made.
        ValueError: if ``threads`` is below 1.

    Example:
        >>> list(read_parallel(str.upper, ["a", "b"], threads=2, label="letters"))
        ['A', 'B']
    """
    if threads < 1:
        raise ValueError(f"threads={threads}: must be at least 1")
    return _watched(_ordered(function, items, threads), total=len(items), label=label)


def _ordered(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="index") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= threads * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _watched(results: Iterator[Result], *, total: int, label: str) -> Iterator[Result]:
    if not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(results, description=label, total=total, console=Console(stderr=True), transient=True)
