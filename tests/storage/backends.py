"""Storages that the tests build over servers of their own, importable by worker processes that start anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from hub_server import TOKEN, HubServer
from servers import CREDENTIALS, FolderServer, MotoServer

from neurotrain.storage import HttpStorage, HuggingFaceStorage, RetryPolicy, S3Storage, Storage

QUICK = RetryPolicy(
    attempts=5, first_wait=0.01, longest_wait=0.05, connect_timeout=30.0, read_timeout=30.0, deadline=90.0, seed=3
)


@dataclass(frozen=True)
class Backend:
    """A storage of one kind with a way to put objects there from outside.

    Attributes:
        name: of the kind.
        storage: an empty one.
        put: puts an object behind the storage's back.
        writable: whether the storage itself can.
    """

    name: str
    storage: Storage
    put: Callable[[str, bytes], object]
    writable: bool = True


def put_file(folder: Path, key: str, data: bytes) -> None:
    """Write a file and the folders above it."""
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def s3_storage(moto: MotoServer, url: str | None = None, *, bucket: str | None = None, **options: object) -> S3Storage:
    """An S3 storage in a bucket of its own, if none is named."""
    bucket = bucket or moto.make_bucket(f"bucket-{uuid4().hex}")
    arguments = {"prefix": "some/prefix", "page_size": 7, "retry": QUICK, **CREDENTIALS, **options}
    return S3Storage(bucket=bucket, endpoint_url=url or moto.url, **arguments)


def http_storage(
    web: FolderServer, url: str | None = None, *, folder: Path | None = None, **options: object
) -> tuple[HttpStorage, Path]:
    """An HTTP storage of a folder of its own, if none is named, and the folder."""
    name = folder.name if folder is not None else f"folder {uuid4().hex}"
    (web.folder / name).mkdir(exist_ok=True)
    arguments = {"allowed_hosts": ("127.0.0.1",), "retry": QUICK, **options}
    return HttpStorage(base_url=f"{url or web.url}/{name.replace(' ', '%20')}/", **arguments), web.folder / name


def hub_storage(
    hub: HubServer, url: str | None = None, *, repo_id: str | None = None, **options: object
) -> tuple[HuggingFaceStorage, dict[str, bytes]]:
    """A storage over a repository of its own, if none is named, and the repository's files."""
    repo_id = repo_id or f"someone/set-{uuid4().hex}"
    files = hub.files.setdefault(f"datasets/{repo_id}", {})
    arguments = {"allowed_hosts": ("localhost",), "retry": QUICK, "token": TOKEN, "prefix": "top", **options}
    return HuggingFaceStorage(repo_id=repo_id, endpoint=url or hub.url, **arguments), files
