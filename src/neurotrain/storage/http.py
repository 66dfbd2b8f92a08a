"""Files of a web server, below one address or anywhere."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from neurotrain.storage.addresses import AddressGuard, RefusedAddress
from neurotrain.storage.base import (
    AccessDeniedError,
    AddressRefusedError,
    DeadlineError,
    InvalidKeyError,
    ObjectInfo,
    ObjectNotFoundError,
    StorageError,
    TransientError,
    TruncatedError,
    UnsupportedOperationError,
)
from neurotrain.storage.extras import require
from neurotrain.storage.keys import key_problem, redact
from neurotrain.storage.loops import Link
from neurotrain.storage.remote import Page, RemoteStorage
from neurotrain.storage.retry import RetryPolicy

if TYPE_CHECKING:
    from neurotrain.storage.http_client import Answer, HttpClient

_LINK = re.compile(r"""<a\s[^>]*?href\s*=\s*["']([^"']+)["']""", re.IGNORECASE)
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class WebStorage(RemoteStorage["HttpClient"]):
    """What storages over HTTP share: the client, its checks and what its errors mean.

    Args:
        headers: sent with every request to the storage's own origin, not to where it redirects.
        allowed_hosts: names of hosts that may lie in a private network; all others must have public addresses.
        retry: when to try again and when to give up.
        concurrency: requests, and connections, at once in one process.
    """

    def __init__(
        self,
        *,
        headers: Mapping[str, str] | None,
        allowed_hosts: Sequence[str],
        retry: RetryPolicy | None,
        concurrency: int,
    ) -> None:
        require("aiohttp", extra="http", purpose=type(self).__name__)
        super().__init__(retry=retry, concurrency=concurrency)
        self.allowed_hosts = tuple(allowed_hosts)
        self._headers = dict(headers or {})

    @abstractmethod
    def _url(self, key: str) -> str:
        """Where an object lies."""

    async def _connect(self) -> HttpClient:
        from neurotrain.storage.http_client import HttpClient

        guard = AddressGuard(self.allowed_hosts)
        return HttpClient(retry=self.retry, guard=guard, headers=self._sent(), concurrency=self.concurrency)

    def _sent(self) -> Mapping[str, str]:
        """Headers for the storage's own origin, when it connects."""
        return self._headers

    @staticmethod
    async def _disconnect(client: HttpClient) -> None:
        await client.close()

    async def _fetch(
        self, client: HttpClient, key: str, start: int, length: int | None
    ) -> tuple[ObjectInfo | None, bytes]:
        answer = await client.get(self._url(key), start=start, length=length)
        return (None if answer.behind_the_end else self._info(key, answer)), answer.body

    async def _head(self, client: HttpClient, key: str) -> ObjectInfo:
        return self._info(key, await client.head(self._url(key)))

    def _info(self, key: str, answer: Answer) -> ObjectInfo:
        return ObjectInfo(key=key, size=answer.size, etag=answer.etag, modified=answer.modified)

    async def _put(self, link: Link[HttpClient], key: str, data: bytes | Path) -> None:
        raise UnsupportedOperationError(self.uri_of(key), "a web server is read, not written to")

    async def _remove(self, client: HttpClient, key: str) -> None:
        raise UnsupportedOperationError(self.uri_of(key), "a web server is read, nothing is deleted there")

    def _asked_wait(self, error: Exception) -> float:
        from neurotrain.storage.http_client import StatusError

        return min(error.wait, self.retry.longest_wait) if isinstance(error, StatusError) else 0.0

    def _typed(self, error: Exception, uri: str) -> StorageError | None:
        import aiohttp

        from neurotrain.storage.http_client import BrokenAnswerError, StatusError

        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, StatusError):
            return _answered(error.status, error.reason, uri)
        if isinstance(error, RefusedAddress):
            return AddressRefusedError(uri, str(error))
        if isinstance(error, (BrokenAnswerError, aiohttp.ClientPayloadError)):
            return TruncatedError(uri, str(error))
        if isinstance(error, TimeoutError):
            return DeadlineError(uri, reason)
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return AccessDeniedError(uri, reason)
        if isinstance(error, aiohttp.InvalidURL):
            return InvalidKeyError(uri, "not a web address")
        if isinstance(error, (aiohttp.ClientError, OSError)):
            return TransientError(uri, reason)
        return None


class HttpStorage(WebStorage):
    """Files below one address of a web server; reading only.

    Listings are read from the pages that servers such as Apache, nginx and Python's own make of a folder; they know
    names only, so sizes, etags and times of what is listed are None, and :meth:`stat` asks for them.

    Only http and https are spoken. Hosts whose addresses are private, loopback or link-local are refused unless they
    are named, and so is every host that a redirect leads to: an address is judged when it is connected to.

    Args:
        base_url: address of the folder, without user name, query and fragment.
        headers: sent with every request, for example for authorization; not sent to other origins on redirects.
        allowed_hosts: names of hosts that may lie in a private network.
        retry: when to try again and when to give up; None takes :class:`RetryPolicy`'s defaults.
        concurrency: requests, and connections, at once in one process.

    Raises:
        ValueError: if the address is none of the web's, or holds credentials or a query.
        ImportError: if aiohttp is not installed.

    Example:
        >>> HttpStorage(base_url="https://example.org/photos/").uri_of("a b.jpg")
        'https://example.org/photos/a b.jpg'
    """

    def __init__(
        self,
        *,
        base_url: str,
        headers: Mapping[str, str] | None = None,
        allowed_hosts: Sequence[str] = (),
        retry: RetryPolicy | None = None,
        concurrency: int = 16,
    ) -> None:
        super().__init__(headers=headers, allowed_hosts=allowed_hosts, retry=retry, concurrency=concurrency)
        problem = web_problem(base_url)
        parts = urlsplit(base_url)
        if problem is None and (parts.query or parts.fragment or "@" in parts.netloc):
            problem = "credentials, a query or a fragment do not belong in the address of a folder; see headers"
        if problem is not None:
            raise ValueError(f"base_url={redact(base_url)!r}: {problem}")
        self.base_url = base_url.rstrip("/")

    @property
    def uri(self) -> str:
        """The address."""
        return self.base_url

    def _url(self, key: str) -> str:
        return f"{self.base_url}/{quote(key)}"

    async def _page(self, client: HttpClient, prefix: str, after: Any) -> Page:  # noqa: ANN401
        """Read one folder's page; ``after`` is what is still to be visited, the next one last."""
        waiting: list[str] = [_folder_of(prefix)] if after is None else list(after)
        found: list[ObjectInfo] = []
        folder = waiting.pop()
        names = await self._names(client, folder)
        keys = (f"{folder}{name}" for name in names)
        waiting += sorted((key for key in keys if key.startswith(prefix) or prefix.startswith(key)), reverse=True)
        while waiting and not waiting[-1].endswith("/"):
            key = waiting.pop()
            if key.startswith(prefix):
                found.append(ObjectInfo(key=key, size=None, etag=None, modified=None))
        return Page(found, tuple(waiting) or None)

    async def _names(self, client: HttpClient, folder: str) -> set[str]:
        """Names in a folder, those of folders with a slash behind; of none where there is no such folder."""
        from neurotrain.storage.http_client import StatusError

        url = f"{self.base_url}/{quote(folder)}"
        try:
            answer = await client.get(url)
        except StatusError as error:
            if error.status in (404, 410):
                return set()
            raise
        if "html" not in answer.headers.get("Content-Type", ""):
            raise UnsupportedOperationError(url, "the server makes no page of what is in the folder")
        base = unquote(answer.url)
        # Servers offer other orders of the same page as links with a query.
        links = [unescape(link) for link in _LINK.findall(answer.body.decode(errors="replace"))]
        places = (unquote(urljoin(answer.url, link)) for link in links if "?" not in link and "#" not in link)
        names = {place.removeprefix(base) for place in places if place.startswith(base)}
        return {name for name in names if key_problem(name.removesuffix("/")) is None and "/" not in name[:-1]}


class UrlStorage(WebStorage):
    """Objects of the whole web: a key is an address, as tables of URLs hold them; reading only.

    The same checks as those of :class:`HttpStorage` hold for every address. Messages show addresses without their
    queries, which may be signatures.

    Args:
        headers: sent with every request to the address that was asked, not to where it redirects.
        allowed_hosts: names of hosts that may lie in a private network.
        retry: when to try again and when to give up; None takes :class:`RetryPolicy`'s defaults.
        concurrency: requests, and connections, at once in one process.

    Raises:
        ImportError: if aiohttp is not installed.

    Example:
        >>> UrlStorage().read("file:///etc/passwd")
        Traceback (most recent call last):
        neurotrain.storage.base.InvalidKeyError: file:///etc/passwd: not an http or https address
    """

    def __init__(
        self,
        *,
        headers: Mapping[str, str] | None = None,
        allowed_hosts: Sequence[str] = (),
        retry: RetryPolicy | None = None,
        concurrency: int = 16,
    ) -> None:
        super().__init__(headers=headers, allowed_hosts=allowed_hosts, retry=retry, concurrency=concurrency)

    @property
    def uri(self) -> str:
        """Stands for all addresses."""
        return "https://"

    def uri_of(self, key: str) -> str:
        """The address without its query."""
        return redact(key)

    def _url(self, key: str) -> str:
        return key

    def _check_key(self, key: str) -> None:
        problem = web_problem(key)
        if problem is not None:
            raise InvalidKeyError(self.uri_of(key), problem)

    async def _page(self, client: HttpClient, prefix: str, after: Any) -> Page:  # noqa: ANN401
        raise UnsupportedOperationError(self.uri_of(prefix), "nobody can list the web")


def web_problem(url: str) -> str | None:
    """Why an address is none of the web's; None if it is one.

    Example:
        >>> web_problem("https://example.org/a.png") is None, web_problem("ftp://example.org/a.png")
        (True, 'not an http or https address')
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError as error:
        return str(error)
    if parts.scheme.lower() not in ("http", "https"):
        return "not an http or https address"
    return None if parts.hostname else "an address without a host"


def _folder_of(prefix: str) -> str:
    return prefix[: prefix.rfind("/") + 1]


def _answered(status: int, said: str, uri: str) -> StorageError:
    """What a status means."""
    reason = f"{status} {said}".strip()
    if status in (404, 410):
        return ObjectNotFoundError(uri, reason)
    if status in (401, 403, 407):
        return AccessDeniedError(uri, reason)
    return (TransientError if status in _PASSING else StorageError)(uri, reason)
