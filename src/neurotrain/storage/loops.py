"""One event loop in one thread for all remote storages of a process; a forked child starts its own."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

Client = TypeVar("Client")
T = TypeVar("T")

_CLOSING_SECONDS = 2.0


class _Process:
    """What belongs to this process alone."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None


_process = _Process()
_inherited: list[object] = []
"""Loops and connections of a parent process: never used, and never finalized, which would disturb the parent's."""


def _after_fork() -> None:
    # All of it is new: a lock that a thread of the parent held would never be released here.
    global _process
    _inherited.append(_process)
    _process = _Process()


os.register_at_fork(after_in_child=_after_fork)


def process_lock() -> AbstractContextManager[object]:
    """Return a lock of this process, which a fork does not leave held."""
    return _process.lock


def event_loop() -> asyncio.AbstractEventLoop:
    """Return this process's running event loop; its thread is a daemon."""
    with _process.lock:
        if _process.loop is None:
            _process.loop = asyncio.new_event_loop()
            _process.thread = threading.Thread(target=_process.loop.run_forever, name="neurotrain-storage", daemon=True)
            _process.thread.start()
        return _process.loop


class LinkEndedError(Exception):
    """The storage was closed while an operation was under way."""


class Link(Generic[Client]):
    """A backend's client in one process, made at its first use and bounded in its concurrent operations.

    Args:
        owner: the storage; the client is closed when it is gone, so nothing here may refer to it.
        disconnect: closes the client, on the event loop.
        concurrency: operations under way at once.

    Attributes:
        ended: whether the client is closed; what is under way then fails.
        limits: of what is under way; the end brings them forward, as a closed client may never answer.
    """

    def __init__(
        self,
        owner: object,
        *,
        disconnect: Callable[[Client], Awaitable[None]],
        concurrency: int,
    ) -> None:
        self.process = os.getpid()
        self.loop = event_loop()
        self.places = asyncio.Semaphore(concurrency)
        self.ended = False
        self.limits: set[asyncio.Timeout] = set()
        self._made: asyncio.Future[Client] | None = None
        self._disconnect = disconnect
        self._finalizer = weakref.finalize(owner, _close, self)

    async def client(self, connect: Callable[[], Awaitable[Client]]) -> Client:
        """Return the client, made by ``connect``; callers that come meanwhile wait for the same one.

        Raises:
            LinkEndedError: after the end: nobody would close what is made now.
        """
        if self.ended:
            raise LinkEndedError
        if self._made is None:
            self._made = asyncio.ensure_future(connect())
        try:
            # One caller's deadline must not cancel what others wait for.
            return await asyncio.shield(self._made)
        except Exception:
            self._made = None
            raise

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncGenerator[None, None]:
        """Do something that ends by a deadline, or when the client is closed.

        Raises:
            TimeoutError: at either.
        """
        async with asyncio.timeout(seconds) as limit:
            self.limits.add(limit)
            try:
                yield
            finally:
                self.limits.discard(limit)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start work on the event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Do work on the event loop and wait for it; an interrupt cancels it."""
        future = self.submit(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Close the client."""
        self._finalizer()

    async def end(self) -> None:
        """Close the client for good, on the event loop."""
        self.ended = True
        for limit in self.limits:
            limit.reschedule(self.loop.time())
        made, self._made = self._made, None
        if made is None:
            return
        if not made.done():
            made.cancel()
        elif not made.cancelled() and made.exception() is None:
            await self._disconnect(made.result())


def _close(link: Link[Any]) -> None:
    """Close a link's client; one of a parent process is left alone."""
    if link.process != os.getpid():
        _inherited.append(link)
        return
    if link.loop.is_closed() or not link.loop.is_running():
        return
    future = link.submit(link.end())
    if threading.current_thread() is not _process.thread:  # garbage is collected on any thread, the loop's too
        future.result(timeout=_CLOSING_SECONDS)
