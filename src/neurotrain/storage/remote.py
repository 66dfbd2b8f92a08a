"""What all backends behind a network share: retries inside deadlines, bounded concurrency, counts, forks."""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, NamedTuple, TypeVar

from neurotrain.storage.base import (
    ChangedError,
    DeadlineError,
    InvalidKeyError,
    ObjectInfo,
    Storage,
    StorageError,
)
from neurotrain.storage.keys import check_range, key_problem, prefix_problem
from neurotrain.storage.loops import Client, Link, process_lock
from neurotrain.storage.retry import RetryPolicy
from neurotrain.storage.statistics import Counter, Statistics

_CLOSED = "the storage was closed while this was under way"

T = TypeVar("T")


class Page(NamedTuple):
    """A part of a listing.

    Attributes:
        found: objects in the order of their keys.
        after: what the backend wants to be told for the next page; None where this is the last one.
    """

    found: list[ObjectInfo]
    after: Any


class RemoteStorage(Storage, Generic[Client]):
    """A storage whose backend is asked over a network, asynchronously, on one event loop a process.

    A backend says how to connect, how to do each single operation once, and what its errors mean. Here they are tried
    again with jittered waits, cut off at the deadline, counted and bounded in number.

    Args:
        retry: when to try again and when to give up; None takes :class:`RetryPolicy`'s defaults.
        concurrency: operations under way at once in one process; as many connections are kept open.

    Raises:
        ValueError: if the concurrency is not positive.
    """

    def __init__(self, *, retry: RetryPolicy | None, concurrency: int) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency={concurrency}: at least 1")
        self.retry = retry or RetryPolicy()
        self.concurrency = concurrency
        self._counter = Counter()
        self._link: Link[Client] | None = None

    @abstractmethod
    async def _connect(self) -> Client:
        """Make the client."""

    @staticmethod
    @abstractmethod
    async def _disconnect(client: Any) -> None:  # noqa: ANN401 - the backend's own
        """Close the client."""

    @abstractmethod
    async def _fetch(self, client: Client, key: str, start: int, length: int | None) -> tuple[ObjectInfo | None, bytes]:
        """Read once, and say of what; None where the range begins behind the end. ``length`` is not 0."""

    @abstractmethod
    async def _head(self, client: Client, key: str) -> ObjectInfo:
        """Ask once."""

    @abstractmethod
    async def _page(self, client: Client, prefix: str, after: Any) -> Page:  # noqa: ANN401 - the backend's own
        """Ask for one page; ``after`` is None for the first."""

    @abstractmethod
    async def _put(self, link: Link[Client], key: str, data: bytes | Path) -> None:
        """Write, with retries: what is one step is the backend's to say."""

    @abstractmethod
    async def _remove(self, client: Client, key: str) -> None:
        """Delete once."""

    @abstractmethod
    def _typed(self, error: Exception, uri: str) -> StorageError | None:
        """What a backend's error means; None if it is none of the backend's."""

    def _asked_wait(self, error: Exception) -> float:
        """Seconds that the server asked to wait."""
        del error
        return 0.0

    def _check_key(self, key: str) -> None:
        problem = key_problem(key)
        if problem is not None:
            raise InvalidKeyError(self.uri_of(key), problem)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield objects by key; one page at a time is held in memory."""
        problem = prefix_problem(prefix)
        if problem is not None:
            raise InvalidKeyError(self.uri_of(prefix), problem)
        after, last = None, ""
        while True:
            page = self._do(prefix, lambda client, after=after: self._page(client, prefix, after))
            for info in page.found:
                if info.key <= last:
                    raise StorageError(self.uri_of(info.key), f"the server lists it after {last!r}: not in order")
                last = info.key
                yield info
            after = page.after
            if after is None:
                return

    def read(self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None) -> bytes:
        """Read an object, or a part of it: see :meth:`Storage.read`."""
        check_range(start, length)
        return self._outcome(self._start(key, start, length, etag))[1]

    def fetch(self, key: str, *, start: int = 0, length: int | None = None) -> tuple[ObjectInfo, bytes]:
        """Read an object with one request that says of what: see :meth:`Storage.fetch`."""
        check_range(start, length)
        return self._outcome(self._start(key, start, length, None))

    def read_many(self, keys: Iterable[str]) -> Iterator[bytes | StorageError]:
        """Read several objects at once, ``concurrency`` at most, those not yet taken included."""
        waiting: deque[Future[tuple[ObjectInfo, bytes]]] = deque()
        coming = iter(keys)
        try:
            while True:
                while len(waiting) < self.concurrency and (key := next(coming, None)) is not None:
                    waiting.append(self._start(key, 0, None, None))
                if not waiting:
                    return
                try:
                    result = self._outcome(waiting.popleft())[1]
                except StorageError as error:
                    result = error
                yield result
        finally:
            for future in waiting:
                future.cancel()

    def write(self, key: str, data: bytes | Path) -> ObjectInfo:
        """Write an object: see :meth:`Storage.write`."""
        self._check_key(key)
        began = perf_counter()
        link = self._linked()

        async def writing() -> None:
            async with link.places:
                await self._put(link, key, data)

        mine = self._counter.mine()
        try:
            link.run(writing())
        except StorageError:
            mine.errors += 1
            raise
        mine.writes += 1
        mine.bytes_written += data.stat().st_size if isinstance(data, Path) else len(data)
        mine.wait_seconds += perf_counter() - began
        return self.stat(key)

    def stat(self, key: str) -> ObjectInfo:
        """Ask for an object: see :meth:`Storage.stat`."""
        self._check_key(key)
        return self._do(key, lambda client: self._head(client, key))

    def delete(self, key: str) -> None:
        """Remove an object: see :meth:`Storage.delete`."""
        self._check_key(key)
        self._do(key, lambda client: self._remove(client, key))

    def statistics(self) -> Statistics:
        """What this instance did in this process."""
        return self._counter.total()

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the connection."""
        return {**self.__dict__, "_link": None}

    def _linked(self) -> Link[Client]:
        link = self._link
        if link is None or link.process != os.getpid():
            with process_lock():  # of two clients, one would be closed by nobody
                link = self._link
                if link is None or link.process != os.getpid():
                    link = Link[Client](self, disconnect=self._disconnect, concurrency=self.concurrency)
                    self._link = link
        return link

    def _do(self, key: str, operation: Callable[[Client], Awaitable[T]]) -> T:
        """Do one operation on an object or a prefix, with retries, and wait for it."""
        link = self._linked()

        async def limited() -> T:
            async with link.places:
                return await self._attempts(link, self.uri_of(key), operation)

        try:
            return link.run(limited())
        except StorageError:
            self._counter.mine().errors += 1
            raise

    def _start(self, key: str, start: int, length: int | None, etag: str | None) -> Future[tuple[ObjectInfo, bytes]]:
        link = self._linked()
        return link.submit(self._reading(link, key, start, length, etag))

    async def _reading(
        self, link: Link[Client], key: str, start: int, length: int | None, etag: str | None
    ) -> tuple[ObjectInfo, bytes]:
        self._check_key(key)
        uri = self.uri_of(key)
        async with link.places:
            info, data = None, b""
            if length != 0:
                info, data = await self._attempts(link, uri, lambda client: self._fetch(client, key, start, length))
            if info is None:
                info = await self._attempts(link, uri, lambda client: self._head(client, key))
        if etag is not None and info.etag != etag:
            raise ChangedError(uri, f"it is no longer the object of etag {etag}")
        return info, data

    def _outcome(self, future: Future[tuple[ObjectInfo, bytes]]) -> tuple[ObjectInfo, bytes]:
        """Wait for a read and count it."""
        began = perf_counter()
        mine = self._counter.mine()
        try:
            info, data = future.result()
        except StorageError:
            mine.errors += 1
            raise
        except BaseException:
            future.cancel()
            raise
        finally:
            mine.wait_seconds += perf_counter() - began
        mine.reads += 1
        mine.bytes_read += len(data)
        return info, data

    async def _attempts(self, link: Link[Client], uri: str, operation: Callable[[Client], Awaitable[T]]) -> T:
        """Try an operation until it succeeds, fails for good, or its time is over."""
        failed: StorageError | None = None
        try:
            async with link.within(self.retry.deadline):
                for wait in (*self.retry.waits(), None):
                    try:
                        return await operation(await link.client(self._connect))
                    except Exception as error:
                        if link.ended:
                            failed = StorageError(uri, _CLOSED)
                            break
                        typed = error if isinstance(error, StorageError) else self._typed(error, uri)
                        if typed is None:
                            raise
                        failed, asked = typed, self._asked_wait(error)
                    if wait is None or not failed.transient:
                        break
                    self._counter.mine().retries += 1
                    await asyncio.sleep(max(wait, asked))
        except TimeoutError:
            last = f"; before that: {failed.reason}" if failed is not None else ""
            failed = (
                StorageError(uri, _CLOSED)
                if link.ended
                else DeadlineError(uri, f"no answer within {self.retry.deadline:g} s{last}")
            )
        assert failed is not None
        # Raised here, outside of any handler: what libraries put into their messages and URLs is not chained to it.
        raise failed
