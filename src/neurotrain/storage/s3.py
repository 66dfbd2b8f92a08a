"""A bucket, or a part of one, behind the S3 protocol."""

from __future__ import annotations

import asyncio
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

from neurotrain.storage.base import InvalidKeyError, ObjectInfo, ObjectNotFoundError, StorageError, TruncatedError
from neurotrain.storage.extras import require
from neurotrain.storage.keys import key_problem
from neurotrain.storage.loops import Link
from neurotrain.storage.remote import Page, RemoteStorage
from neurotrain.storage.retry import RetryPolicy

_SMALLEST_PART = 5 << 20
_MOST_PARTS = 10_000
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


class S3Storage(RemoteStorage[Any]):
    """Objects of a bucket below a prefix, through s3fs's session and client.

    Credentials come from where every AWS tool looks for them (environment, profile, container, instance), and that is
    where they belong: what is passed here travels, pickled, to worker processes.

    Args:
        bucket: its name.
        prefix: keys are relative to it, as to a folder.
        endpoint_url: of a server other than Amazon's.
        region: of the bucket, where the profile does not say it.
        profile: a named one of the credential files.
        key: access key; only together with ``secret``.
        secret: its secret.
        token: session token of temporary credentials.
        anonymous: sign nothing: public buckets.
        requester_pays: accept the transfer's cost.
        addressing_style: whether the bucket is a part of the path or of the host's name.
        part_bytes: size of a part; what is larger is written in parts, so that no failure costs more than one of them.
        page_size: objects that one request lists, 1000 at most.
        verify_md5: compare the MD5 of whole objects with an etag that is one. Checksums that the server sends, and the
            length, are always checked.
        retry: when to try again and when to give up; None takes :class:`RetryPolicy`'s defaults.
        concurrency: requests, and connections, at once in one process.

    Raises:
        ValueError: if arguments contradict each other or are out of range.
        ImportError: if s3fs is not installed.

    Example:
        >>> S3Storage(bucket="images", prefix="train", endpoint_url="https://minio.example.org")
        S3Storage(s3://images/train)
    """

    def __init__(
        self,
        *,
        bucket: str,
        prefix: str = "",
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        key: str | None = None,
        secret: str | None = None,
        token: str | None = None,
        anonymous: bool = False,
        requester_pays: bool = False,
        addressing_style: Literal["auto", "path", "virtual"] = "auto",
        part_bytes: int = 16 << 20,
        page_size: int = 1000,
        verify_md5: bool = True,
        retry: RetryPolicy | None = None,
        concurrency: int = 16,
    ) -> None:
        require("s3fs", extra="s3", purpose=type(self).__name__)
        super().__init__(retry=retry, concurrency=concurrency)
        _check_credentials(key=key, secret=secret, token=token, profile=profile, anonymous=anonymous)
        prefix = prefix.removesuffix("/")
        if not bucket or "/" in bucket:
            raise ValueError(f"bucket={bucket!r}: a name without slashes")
        if prefix and key_problem(prefix) is not None:
            raise ValueError(f"prefix={prefix!r}: {key_problem(prefix)}")
        if part_bytes < _SMALLEST_PART:
            raise ValueError(f"part_bytes={part_bytes}: S3 wants at least {_SMALLEST_PART}")
        if not 1 <= page_size <= 1000:
            raise ValueError(f"page_size={page_size}: from 1 to 1000")
        if addressing_style not in ("auto", "path", "virtual"):
            raise ValueError(f"addressing_style={addressing_style!r}: 'auto', 'path' or 'virtual'")
        self.bucket = bucket
        self.prefix = prefix
        self.endpoint_url = endpoint_url
        self.region = region
        self.profile = profile
        self.anonymous = anonymous
        self.requester_pays = requester_pays
        self.addressing_style = addressing_style
        self.part_bytes = part_bytes
        self.page_size = page_size
        self.verify_md5 = verify_md5
        self._credentials = {"key": key, "secret": secret, "token": token}
        self._top = f"{prefix}/" if prefix else ""
        self._payer = {"RequestPayer": "requester"} if requester_pays else {}

    @property
    def uri(self) -> str:
        """``s3://``, bucket and prefix."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def identity(self) -> str:
        """The URI, at its endpoint."""
        return f"{self.uri} at {self.endpoint_url}" if self.endpoint_url is not None else self.uri

    async def _connect(self) -> Any:  # noqa: ANN401 - a class that botocore makes at run time
        from aiobotocore.session import AioSession
        from s3fs import S3FileSystem

        session = AioSession(profile=self.profile)
        session.register_component("data_loader", _service_models())
        config = {
            "max_pool_connections": self.concurrency,
            "connect_timeout": self.retry.connect_timeout,
            "read_timeout": self.retry.read_timeout,
            "retries": {"total_max_attempts": 1},  # there is one policy, and it is ours
            "s3": {"addressing_style": self.addressing_style},
        }
        filesystem = S3FileSystem(
            session=session,
            asynchronous=True,
            skip_instance_cache=True,
            anon=self.anonymous,
            endpoint_url=self.endpoint_url,
            client_kwargs={"region_name": self.region} if self.region is not None else {},
            config_kwargs=config,
            key=self._credentials["key"],
            secret=self._credentials["secret"],
            token=self._credentials["token"],
        )
        return await filesystem.set_session()

    @staticmethod
    async def _disconnect(client: Any) -> None:  # noqa: ANN401
        await client.close()

    async def _fetch(
        self,
        client: Any,  # noqa: ANN401
        key: str,
        start: int,
        length: int | None,
    ) -> tuple[ObjectInfo | None, bytes]:
        from botocore.exceptions import ClientError

        whole = start == 0 and length is None
        last = "" if length is None else start + length - 1
        ranged = {} if whole else {"Range": f"bytes={start}-{last}"}
        try:
            answer = await client.get_object(Bucket=self.bucket, Key=self._top + key, **ranged, **self._payer)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 416:  # it begins behind the end
                return None, b""
            raise
        async with answer["Body"] as body:
            data = await body.read()
        size = self._check_length(key, data, answer, start, length)
        if whole and self.verify_md5:
            self._check_md5(key, data, answer)
        return _info(key, size, answer), data

    def _check_length(self, key: str, data: bytes, answer: dict[str, Any], start: int, length: int | None) -> int:
        """Compare what came with what was announced and asked; return the size of the whole."""
        announced = answer["ContentLength"]
        if len(data) != announced:
            raise TruncatedError(self.uri_of(key), f"{len(data)} of {announced} bytes arrived")
        span = answer.get("ContentRange")
        if span is None:
            if start or (length is not None and announced > length):
                raise StorageError(self.uri_of(key), "the server does not answer range requests")
            return len(data)
        total = int(span.rpartition("/")[2])
        wanted = total - start if length is None else min(length, total - start)
        if not span.startswith(f"bytes {start}-") or announced != wanted:
            raise TruncatedError(self.uri_of(key), f"bytes {start} to {start + wanted - 1} were asked, {span} came")
        return total

    def _check_md5(self, key: str, data: bytes, answer: dict[str, Any]) -> None:
        etag = _MD5.fullmatch(answer.get("ETag", ""))
        # With other encryptions the etag of a single upload is no MD5.
        if etag is None or answer.get("ServerSideEncryption") not in (None, "AES256") or "SSECustomerKeyMD5" in answer:
            return
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != etag[1]:
            raise TruncatedError(self.uri_of(key), f"the bytes that arrived are not those of etag {etag[1]}")

    async def _head(self, client: Any, key: str) -> ObjectInfo:  # noqa: ANN401
        found = await client.head_object(Bucket=self.bucket, Key=self._top + key, **self._payer)
        return _info(key, found["ContentLength"], found)

    async def _page(self, client: Any, prefix: str, after: Any) -> Page:  # noqa: ANN401
        more = {"ContinuationToken": after} if after is not None else {}
        answer = await client.list_objects_v2(
            Bucket=self.bucket, Prefix=self._top + prefix, MaxKeys=self.page_size, **more, **self._payer
        )
        found: list[ObjectInfo] = []
        for item in answer.get("Contents", ()):
            key = item["Key"].removeprefix(self._top)
            if key == "" or key.endswith("/"):  # stands for a folder
                continue
            if key_problem(key) is not None:
                raise InvalidKeyError(self.uri_of(key), f"is in the bucket, but {key_problem(key)}")
            found.append(_info(key, item["Size"], item))
        return Page(found, answer["NextContinuationToken"] if answer.get("IsTruncated") else None)

    async def _put(self, link: Link[Any], key: str, data: bytes | Path) -> None:
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        if size > self.part_bytes:
            await self._put_in_parts(link, key, data, size)
            return
        body = await asyncio.to_thread(data.read_bytes) if isinstance(data, Path) else data
        place = {"Bucket": self.bucket, "Key": self._top + key, **self._payer}
        await self._attempts(link, self.uri_of(key), lambda client: client.put_object(Body=body, **place))

    async def _put_in_parts(self, link: Link[Any], key: str, data: bytes | Path, size: int) -> None:
        uri, place = self.uri_of(key), {"Bucket": self.bucket, "Key": self._top + key, **self._payer}
        part_bytes = max(self.part_bytes, -(-size // _MOST_PARTS))
        upload = await self._attempts(link, uri, lambda client: client.create_multipart_upload(**place))
        named = {**place, "UploadId": upload["UploadId"]}
        try:
            done: list[dict[str, Any]] = []
            starts = iter(range(0, size, part_bytes))
            for several in iter(lambda: [start for _, start in zip(range(4), starts)], []):  # noqa: B905
                done += await asyncio.gather(
                    *(self._put_part(link, uri, named, data, start, part_bytes) for start in several)
                )
            await self._complete(link, key, named, done)
        except BaseException:
            # Parts of an upload that is never completed cost their owner money, unseen.
            await asyncio.shield(self._attempts(link, uri, lambda client: client.abort_multipart_upload(**named)))
            raise

    async def _complete(self, link: Link[Any], key: str, named: dict[str, Any], done: list[dict[str, Any]]) -> None:
        """Make the parts an object; an answer that was lost on its way is recognised by the object that is there."""
        uri = self.uri_of(key)
        try:
            await self._attempts(
                link, uri, lambda client: client.complete_multipart_upload(MultipartUpload={"Parts": done}, **named)
            )
        except ObjectNotFoundError:
            found = await self._attempts(link, uri, lambda client: self._head(client, key))
            if not (found.etag or "").endswith(f"-{len(done)}"):
                raise

    async def _put_part(
        self, link: Link[Any], uri: str, named: dict[str, Any], data: bytes | Path, start: int, part_bytes: int
    ) -> dict[str, Any]:
        body = await asyncio.to_thread(_slice, data, start, part_bytes)
        number = start // part_bytes + 1
        answer = await self._attempts(
            link, uri, lambda client: client.upload_part(PartNumber=number, Body=body, **named)
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    async def _remove(self, client: Any, key: str) -> None:  # noqa: ANN401
        await client.delete_object(Bucket=self.bucket, Key=self._top + key, **self._payer)

    def _typed(self, error: Exception, uri: str) -> StorageError | None:
        from neurotrain.storage.s3_errors import typed

        return typed(error, uri)


@cache
def _service_models() -> Any:  # noqa: ANN401
    """Botocore's descriptions of services: reading them takes most of the time of making a client."""
    from botocore.loaders import create_loader

    return create_loader()


def _check_credentials(
    *, key: str | None, secret: str | None, token: str | None, profile: str | None, anonymous: bool
) -> None:
    """Refuse what would have no effect."""
    if (key is None) != (secret is None):
        raise ValueError("key and secret come together: one of them is missing")
    if token is not None and key is None:
        raise ValueError("token without key and secret has no effect")
    if profile is not None and key is not None:
        raise ValueError(f"profile={profile!r} has no effect beside key and secret")
    if anonymous and (key is not None or profile is not None):
        raise ValueError("anonymous=True signs nothing: leave key, secret, token and profile out")


def _info(key: str, size: int, found: dict[str, Any]) -> ObjectInfo:
    # Listings know milliseconds, single answers only seconds: one object has one time.
    modified = float(int(found["LastModified"].timestamp()))
    return ObjectInfo(key=key, size=size, etag=found["ETag"].strip('"'), modified=modified)


def _slice(data: bytes | Path, start: int, length: int) -> bytes:
    if not isinstance(data, Path):
        return data[start : start + length]
    with data.open("rb") as file:
        file.seek(start)
        return file.read(length)
