"""Servers and backends that the storage tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from backends import Backend, http_storage, hub_storage, put_file, s3_storage
from hub_server import HubServer, start_hub
from servers import FaultProxy, FolderServer, MotoServer, start_http, start_moto, start_proxy

from neurotrain.storage import LocalStorage, MemoryStorage, Storage


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    with start_moto() as server:
        yield server


@pytest.fixture(scope="session")
def moto_proxy(moto: MotoServer) -> Iterator[FaultProxy]:
    with start_proxy(moto.url) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderServer]:
    with start_http(tmp_path_factory.mktemp("web")) as server:
        yield server


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    with start_hub() as server:
        yield server


@pytest.fixture(scope="session")
def web_proxy(web: FolderServer) -> Iterator[FaultProxy]:
    with start_proxy(web.url) as proxy:
        yield proxy


@pytest.fixture(params=["memory", "local", "s3", "http", "hf"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    storage: Storage
    if request.param == "memory":
        storage = MemoryStorage(name=uuid4().hex)
        yield Backend("memory", storage, storage.write)
    elif request.param == "local":
        storage = LocalStorage(root=tmp_path / "root")
        yield Backend("local", storage, storage.write)
    elif request.param == "s3":
        storage = s3_storage(request.getfixturevalue("moto"))
        yield Backend("s3", storage, storage.write)
    elif request.param == "hf":
        storage, files = hub_storage(request.getfixturevalue("hub"))
        yield Backend("hf", storage, lambda key, data: files.update({f"top/{key}": data}))
    else:
        storage, folder = http_storage(request.getfixturevalue("web"))
        yield Backend("http", storage, lambda key, data: put_file(folder, key, data), writable=False)
    storage.close()
