"""Files of a repository on the Hugging Face hub.

The hub is asked by the same HTTP client as any other server, so that deadlines, retries, checks of length and content,
and forks are the same everywhere: ``HfFileSystem`` takes its timeouts from the environment, shares a global session and
returns short reads as they are. Addresses, tokens and commits are huggingface_hub's.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from neurotrain.documents import parse_json
from neurotrain.storage.base import (
    AccessDeniedError,
    ObjectInfo,
    ObjectNotFoundError,
    StorageError,
    TransientError,
    TruncatedError,
)
from neurotrain.storage.extras import require
from neurotrain.storage.http import WebStorage, web_problem
from neurotrain.storage.keys import key_problem
from neurotrain.storage.loops import Link
from neurotrain.storage.remote import Page
from neurotrain.storage.retry import RetryPolicy

if TYPE_CHECKING:
    from neurotrain.storage.http_client import Answer, HttpClient

_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="next"')


class HuggingFaceStorage(WebStorage):
    """Files of one repository at one revision, below a prefix.

    What is read whole is compared with the hash that the hub keeps of it (SHA-256 of large files, git's of others),
    which is its etag too. The hub's listings know no times.

    Args:
        repo_id: ``owner/name``.
        repo_type: kind of repository.
        revision: branch, tag or commit; only a commit never changes.
        prefix: keys are relative to it, as to a folder.
        token: access token; None takes what huggingface_hub finds (``HF_TOKEN``, or the file of ``hf auth login``).
        endpoint: address of another hub; None takes huggingface_hub's (``HF_ENDPOINT``). Its host is allowed by name.
        allowed_hosts: further names of hosts that may lie in a private network: where such a hub redirects to.
        retry: when to try again and when to give up; None takes :class:`RetryPolicy`'s defaults.
        concurrency: requests, and connections, at once in one process.

    Raises:
        ValueError: if the repository's name, prefix or endpoint is none.
        ImportError: if huggingface_hub or aiohttp is not installed.

    Example:
        >>> HuggingFaceStorage(repo_id="ylecun/mnist", revision="main")
        HuggingFaceStorage(hf://datasets/ylecun/mnist@main)
    """

    def __init__(
        self,
        *,
        repo_id: str,
        repo_type: Literal["dataset", "model", "space"] = "dataset",
        revision: str = "main",
        prefix: str = "",
        token: str | None = None,
        endpoint: str | None = None,
        allowed_hosts: Sequence[str] = (),
        retry: RetryPolicy | None = None,
        concurrency: int = 16,
    ) -> None:
        require("huggingface_hub", extra="huggingface", purpose=type(self).__name__)
        if repo_type not in ("dataset", "model", "space"):
            raise ValueError(f"repo_type={repo_type!r}: 'dataset', 'model' or 'space'")
        if key_problem(repo_id) is not None or repo_id.count("/") > 1:
            raise ValueError(f"repo_id={repo_id!r}: like 'owner/name'")
        prefix = prefix.removesuffix("/")
        if prefix and key_problem(prefix) is not None:
            raise ValueError(f"prefix={prefix!r}: {key_problem(prefix)}")
        if endpoint is not None and web_problem(endpoint) is not None:
            raise ValueError(f"endpoint={endpoint!r}: {web_problem(endpoint)}")
        own = (urlsplit(endpoint).hostname or "",) if endpoint is not None else ()
        super().__init__(headers=None, allowed_hosts=(*allowed_hosts, *own), retry=retry, concurrency=concurrency)
        self.repo_id = repo_id
        self.repo_type = repo_type
        self.revision = revision
        self.prefix = prefix
        self.endpoint = endpoint
        self._token = token
        self._top = f"{prefix}/" if prefix else ""

    @property
    def uri(self) -> str:
        """``hf://``, kind, repository, revision and prefix."""
        kind = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        return f"hf://{kind}{self.repo_id}@{quote(self.revision, safe='')}/{self.prefix}".rstrip("/")

    @property
    def identity(self) -> str:
        """The URI, at its endpoint."""
        return f"{self.uri} at {self.endpoint}" if self.endpoint is not None else self.uri

    def _sent(self) -> Mapping[str, str]:
        from huggingface_hub.utils import build_hf_headers

        # Looked for when it connects: a pickled storage carries no token that it was not given.
        return build_hf_headers(token=self._token, library_name="neurotrain")

    def _url(self, key: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(
            self.repo_id, self._top + key, repo_type=self.repo_type, revision=self.revision, endpoint=self.endpoint
        )

    async def _fetch(
        self, client: HttpClient, key: str, start: int, length: int | None
    ) -> tuple[ObjectInfo | None, bytes]:
        info, data = await super()._fetch(client, key, start, length)
        if start == 0 and length is None and info is not None and not _is_hash_of(info.etag or "", data):
            raise TruncatedError(self.uri_of(key), f"the bytes that arrived are not those of etag {info.etag}")
        return info, data

    def _info(self, key: str, answer: Answer) -> ObjectInfo:
        size = int(answer.headers["X-Linked-Size"]) if "X-Linked-Size" in answer.headers else answer.size
        etag = answer.headers["X-Linked-Etag"].strip('"') if "X-Linked-Etag" in answer.headers else answer.etag
        return ObjectInfo(key=key, size=size, etag=etag, modified=None)

    async def _page(self, client: HttpClient, prefix: str, after: Any) -> Page:  # noqa: ANN401
        """Read one page of the tree; the hub's order is not that of keys, so objects come with the last one."""
        from neurotrain.storage.http_client import StatusError

        url, found = after or (self._tree_url(prefix), ())
        try:
            answer = await client.get(url)
        except StatusError as error:
            if error.code == "EntryNotFound":
                return Page([], None)
            raise
        found += tuple(self._listed(entry) for entry in parse_json(answer.body) if entry["type"] == "file")
        following = _NEXT.search(answer.headers.get("Link", ""))
        if following is not None:
            if urlsplit(following[1]).netloc != urlsplit(url).netloc:
                raise StorageError(self.uri_of(prefix), "the next page of the listing lies on another host")
            return Page([], (following[1], found))
        fitting = (info for info in found if info.key.startswith(prefix))
        return Page(sorted(fitting, key=lambda info: info.key), None)

    def _tree_url(self, prefix: str) -> str:
        from huggingface_hub import constants

        folder = (self._top + prefix[: prefix.rfind("/") + 1]).rstrip("/")
        place = f"{self.repo_type}s/{self.repo_id}/tree/{quote(self.revision, safe='')}/{quote(folder)}".rstrip("/")
        return f"{self.endpoint or constants.ENDPOINT}/api/{place}?recursive=True&expand=False"

    def _listed(self, entry: dict[str, Any]) -> ObjectInfo:
        large = entry.get("lfs")
        key, etag = str(entry["path"]).removeprefix(self._top), large["oid"] if large else entry["oid"]
        return ObjectInfo(key=key, size=entry["size"], etag=etag, modified=None)

    async def _put(self, link: Link[HttpClient], key: str, data: bytes | Path) -> None:
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, token=self._token, library_name="neurotrain")

        async def upload(_: HttpClient) -> None:
            await asyncio.to_thread(
                api.upload_file,
                path_or_fileobj=data,
                path_in_repo=self._top + key,
                repo_id=self.repo_id,
                repo_type=self.repo_type,
                revision=self.revision,
            )

        await self._attempts(link, self.uri_of(key), upload)

    async def _remove(self, client: HttpClient, key: str) -> None:
        from huggingface_hub import HfApi

        from neurotrain.storage.http_client import StatusError

        try:
            await self._head(client, key)
        except StatusError as error:
            if error.status == 404 and error.code == "EntryNotFound":
                return
            raise
        api = HfApi(endpoint=self.endpoint, token=self._token, library_name="neurotrain")
        await asyncio.to_thread(
            api.delete_file,
            path_in_repo=self._top + key,
            repo_id=self.repo_id,
            repo_type=self.repo_type,
            revision=self.revision,
        )

    def _typed(self, error: Exception, uri: str) -> StorageError | None:
        from huggingface_hub.errors import HfHubHTTPError

        if not isinstance(error, HfHubHTTPError):
            return super()._typed(error, uri)
        status, reason = error.response.status_code, str(error)
        if status == 404:
            return ObjectNotFoundError(uri, reason)
        if status in (401, 403):
            return AccessDeniedError(uri, reason)
        return (TransientError if status >= 500 or status == 429 else StorageError)(uri, reason)


def _is_hash_of(etag: str, data: bytes) -> bool:
    """Whether an etag is that of these bytes; of one that is no hash, nobody can tell that it is not."""
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        return hashlib.sha256(data).hexdigest() == etag
    if re.fullmatch(r"[0-9a-f]{40}", etag):
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == etag
    return True
