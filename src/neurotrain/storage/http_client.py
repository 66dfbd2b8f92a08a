"""GET and HEAD over aiohttp, with every address checked; imports aiohttp, so it is imported when there is one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict
from yarl import URL

from neurotrain.storage.addresses import AddressGuard, RefusedAddress
from neurotrain.storage.retry import RetryPolicy

_MOST_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NO_HEAD = frozenset({400, 403, 405, 501})
"""Answers of servers that know GET only, or that signed a URL for it."""
_SPAN = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class StatusError(Exception):
    """A server's refusal.

    Args:
        status: HTTP status.
        reason: the server's words.
        wait: seconds that it asks to wait before the next request.
        code: the kind of error, where the server has a name for it.
    """

    def __init__(self, status: int, reason: str, *, wait: float = 0.0, code: str = "") -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.wait = wait
        self.code = code


class BrokenAnswerError(Exception):
    """What arrived is not what was announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said of one address.

    Attributes:
        size: bytes of the whole object; None where it is not told.
        headers: of the last answer; and what a server that redirected said of the linked object (``X-Linked-...``).
        url: where it came from, after redirects.
        body: the bytes that were asked for.
        behind_the_end: whether they begin behind the object's end, in which case nothing else is known of it.
    """

    size: int | None
    headers: Mapping[str, str]
    url: str
    body: bytes = b""
    behind_the_end: bool = False

    @property
    def etag(self) -> str | None:
        """The server's etag, or time and size where it has none; None where it does not tell them."""
        if "ETag" in self.headers:
            return self.headers["ETag"].removeprefix("W/").strip('"')
        if "Last-Modified" in self.headers and self.size is not None:
            return f"{self.headers['Last-Modified']} {self.size}"
        return None

    @property
    def modified(self) -> float | None:
        """Seconds since 1970; None where the server does not tell, or nobody could read it."""
        try:
            return parsedate_to_datetime(self.headers["Last-Modified"]).timestamp()
        except (KeyError, ValueError):
            return None


class HttpClient:
    """One pool of connections; to be made, used and closed on one event loop.

    Args:
        retry: its timeouts of connecting and reading.
        guard: decides about addresses.
        headers: sent to the origin of the address that was asked, and not to where it redirects.
        concurrency: connections.
    """

    def __init__(
        self, *, retry: RetryPolicy, guard: AddressGuard, headers: Mapping[str, str], concurrency: int
    ) -> None:
        self._guard = guard
        self._headers = dict(headers)
        connector = aiohttp.TCPConnector(
            limit=concurrency, resolver=_CheckedResolver(guard), socket_factory=self._socket
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            # Cookies of one object have no say in another's; bodies are counted as they are sent.
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=retry.connect_timeout,
                sock_connect=retry.connect_timeout,
                sock_read=retry.read_timeout,
            ),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self, url: str, *, start: int = 0, length: int | None = None) -> Answer:
        """Read an object or a part of it.

        Raises:
            StatusError: if the server refuses.
            BrokenAnswerError: if other bytes came than were announced.
        """
        whole = start == 0 and length is None
        last = "" if length is None else start + length - 1
        try:
            ranged = {} if whole else {"Range": f"bytes={start}-{last}"}
            async with self._request("GET", url, ranged) as (response, headers):
                body = await response.content.read()
        except StatusError as error:
            if error.status == 416 and not whole:  # it begins behind the end
                return Answer(size=None, headers={}, url=url, behind_the_end=True)
            raise
        _check_body(body, response.headers)
        if response.status == 206:
            size = _check_span(response.headers.get("Content-Range", ""), body, start, length)
        else:  # the server knows no ranges
            size, body = len(body), body[start : None if length is None else start + length]
        return Answer(size=size, headers=headers, url=str(response.url), body=body)

    async def head(self, url: str) -> Answer:
        """Ask for an object without reading it.

        Raises:
            StatusError: if the server refuses.
        """
        try:
            async with self._request("HEAD", url, {}) as (response, headers):
                length = response.headers.get("Content-Length")
                size = int(length) if length is not None else None
                return Answer(size=size, headers=headers, url=str(response.url))
        except StatusError as error:
            if error.status not in _NO_HEAD:
                raise
        return await self.get(url, start=0, length=1)

    @asynccontextmanager
    async def _request(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> AsyncGenerator[tuple[aiohttp.ClientResponse, Mapping[str, str]]]:
        """Ask, follow redirects to checked addresses, and yield a good answer with its headers."""
        target = origin = _parsed(url)
        linked: dict[str, str] = {}
        sent = {"Accept-Encoding": "identity", **headers}
        for _ in range(_MOST_REDIRECTS):
            if target.scheme not in ("http", "https") or target.host is None:
                raise RefusedAddress(f"{target.scheme or 'no scheme'}: only http and https are read")
            own = self._headers if target.origin() == origin.origin() else {}
            async with self._session.request(
                method, target, headers={**own, **sent}, allow_redirects=False
            ) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    linked |= {n: value for n, value in response.headers.items() if n.lower().startswith("x-linked-")}
                    target = target.join(_parsed(response.headers["Location"]))
                    continue
                _check_status(response)
                yield response, CIMultiDict({**linked, **response.headers})
                return
        raise StatusError(310, f"more than {_MOST_REDIRECTS} redirects")

    def _socket(self, address: Any) -> socket.socket:  # noqa: ANN401 - what getaddrinfo returns
        family, kind, protocol, _, place = address
        self._guard.check_connection(place[0])
        made = socket.socket(family=family, type=kind, proto=protocol)
        made.setblocking(False)
        return made


class _CheckedResolver(AbstractResolver):
    """The system's resolver, whose answers are checked and then connected to: no second look-up comes between."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a host's name, or an unusual way of writing its address."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        self._guard.check(host, [str(place[0]) for *_, place in found])
        return [
            ResolveResult(hostname=host, host=str(place[0]), port=port, family=kind, proto=protocol, flags=0)
            for kind, _, protocol, _, place in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _parsed(url: str) -> URL:
    """Take a URL as it is, so that signatures in it stay valid; quote one that nobody quoted."""
    return URL(url, encoded=url.isascii() and url.isprintable() and " " not in url)


def _check_body(body: bytes, headers: Mapping[str, str]) -> None:
    """Compare a body with the length and the checksums that came with it (RFC 1864, RFC 9530)."""
    length = headers.get("Content-Length")
    if length is not None and int(length) != len(body):
        raise BrokenAnswerError(f"{len(body)} of {length} bytes arrived")
    announced = {"md5": headers.get("Content-MD5")}
    for item in headers.get("Content-Digest", "").split(","):
        name, _, value = item.strip().partition("=")
        announced[name.replace("-", "")] = value.strip(":")
    for name, value in announced.items():
        if value is None or name not in ("md5", "sha256", "sha512"):
            continue
        if base64.b64encode(hashlib.new(name, body, usedforsecurity=False).digest()).decode() != value:
            raise BrokenAnswerError(f"the bytes that arrived have another {name} than was announced")


def _check_span(span: str, body: bytes, start: int, length: int | None) -> int | None:
    """Compare a part with what was asked; return the size of the whole."""
    found = _SPAN.fullmatch(span)
    if found is None:
        raise BrokenAnswerError(f"a part came without saying which: Content-Range is {span!r}")
    first, last, total = int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3])
    ends = [end for end in (total, None if length is None else start + length) if end is not None]
    if first != start or last - first + 1 != len(body) or (ends and last + 1 != min(ends)):
        asked = f"{start} to {'the end' if length is None else start + length - 1}"
        raise BrokenAnswerError(f"bytes {asked} were asked, {span} with {len(body)} bytes came")
    return total


def _check_status(response: aiohttp.ClientResponse) -> None:
    """Refuse an answer that is none, or that is packed though that was not asked."""
    headers = response.headers
    if response.status >= 300:
        said = headers.get("X-Error-Message") or response.reason or ""
        raise StatusError(response.status, said, wait=_retry_after(headers), code=headers.get("X-Error-Code", ""))
    packed = headers.get("Content-Encoding", "identity")
    if packed != "identity":
        raise StatusError(response.status, f"sent as {packed}, though identity was asked")


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait; dates are left to the backoff."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0
