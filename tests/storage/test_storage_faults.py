"""Servers that fail: reads succeed after retries or end by their deadline with an error that names the object."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from backends import QUICK, http_storage, hub_storage, put_file, s3_storage
from hub_server import HubServer
from servers import FaultProxy, Faults, FolderServer, MotoServer, start_proxy

from neurotrain.storage import (
    AccessDeniedError,
    DeadlineError,
    HttpStorage,
    ObjectNotFoundError,
    RetryPolicy,
    S3Storage,
    StorageError,
    TransientError,
    TruncatedError,
)
from neurotrain.storage.remote import RemoteStorage

PATIENT = replace(QUICK, attempts=8)
BRISK = replace(PATIENT, read_timeout=0.5)
"""For stalls, which cost their timeout each. A busy machine may take as long over a good answer."""
DATA = bytes(range(256)) * 40


@dataclass
class Faulty:
    """A storage behind a proxy that misbehaves.

    Attributes:
        proxy: in between.
        make: makes the storage with a policy.
        put: puts an object behind both.
    """

    proxy: FaultProxy
    make: Callable[[RetryPolicy], RemoteStorage[object]]
    put: Callable[[str, bytes], object]


@pytest.fixture(params=["s3", "http", "hf"])
def faulty(request: pytest.FixtureRequest) -> Iterator[Faulty]:
    made: list[RemoteStorage[object]] = []

    def remember(storage: RemoteStorage[object]) -> RemoteStorage[object]:
        made.append(storage)
        return storage

    if request.param == "s3":
        moto, proxy = request.getfixturevalue("moto"), request.getfixturevalue("moto_proxy")
        direct = s3_storage(moto)
        made.append(direct)
        bucket = direct.bucket
        yield Faulty(
            proxy,
            lambda retry: remember(s3_storage(moto, proxy.url, retry=retry, bucket=bucket)),
            direct.write,
        )
    elif request.param == "http":
        web, proxy = request.getfixturevalue("web"), request.getfixturevalue("web_proxy")
        _, folder = http_storage(web)
        yield Faulty(
            proxy,
            lambda retry: remember(http_storage(web, proxy.url, retry=retry, folder=folder)[0]),
            lambda key, data: put_file(folder, key, data),
        )
    else:
        hub: HubServer = request.getfixturevalue("hub")
        with start_proxy(hub.url) as proxy:
            example, files = hub_storage(hub)
            yield Faulty(
                proxy,
                lambda retry: remember(hub_storage(hub, proxy.url, retry=retry, repo_id=example.repo_id)[0]),
                lambda key, data: files.update({f"top/{key}": data}),
            )
    proxy.use(Faults())
    for storage in made:
        storage.close()


@pytest.mark.parametrize("fault", ["500", "503", "429", "truncate", "stall", "reset"])
def test_two_faults_of_each_kind_are_survived(faulty: Faulty, fault: str) -> None:
    faulty.put("a/b", DATA)
    faulty.proxy.use(Faults({fault: 1.0}, most=2))
    storage = faulty.make(BRISK if fault == "stall" else PATIENT)
    assert storage.read("a/b") == DATA
    assert storage.read("a/b", start=5, length=100) == DATA[5:105]
    injected = [found for _, found in faulty.proxy.injected]
    assert set(injected) == {fault}
    assert len(injected) in (4, 8)  # two for each read, and two where the hub redirects to
    retries = storage.statistics().retries
    if fault == "reset":  # the client itself asks once more where a connection that was kept is gone
        assert len(injected) / 2 <= retries <= len(injected)
    else:
        assert retries >= len(injected) if fault == "stall" else retries == len(injected)
    assert storage.statistics().errors == 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("500", TransientError),
        ("503", TransientError),
        ("truncate", TruncatedError),
        ("stall", DeadlineError),
        ("reset", TransientError),
        ("404", ObjectNotFoundError),
        ("403", AccessDeniedError),
    ],
)
def test_faults_without_end_become_a_typed_error(faulty: Faulty, fault: str, error: type[StorageError]) -> None:
    faulty.put("a/b", DATA)
    faulty.proxy.use(Faults({fault: 1.0}))
    storage = faulty.make(replace(PATIENT, attempts=3, read_timeout=0.2 if fault == "stall" else 30.0))
    began = time.monotonic()
    with pytest.raises(error) as caught:
        storage.read("a/b")
    assert time.monotonic() - began < 60
    assert type(caught.value) is error
    assert caught.value.uri == storage.uri_of("a/b")
    assert storage.uri_of("a/b") in str(caught.value)
    assert storage.statistics().retries == (0 if fault in ("404", "403") else 2)
    assert storage.statistics().errors == 1


def test_the_deadline_ends_everything(faulty: Faulty) -> None:
    faulty.put("a/b", DATA)
    faulty.proxy.use(Faults({"stall": 1.0}))
    storage = faulty.make(replace(PATIENT, attempts=100, read_timeout=30.0, deadline=0.4))
    for operation in (storage.read, lambda key: list(storage.list(key))):
        began = time.monotonic()
        with pytest.raises(DeadlineError, match=r"no answer within 0\.4 s"):
            operation("a/b")
        assert 0.3 < time.monotonic() - began < 30


def test_a_seeded_mixture_of_faults(faulty: Faulty) -> None:
    names = [f"many/{number:03d}" for number in range(24)]
    for name in names:
        faulty.put(name, name.encode() * 50)
    faults = Faults({"503": 0.15, "500": 0.1, "reset": 0.1, "truncate": 0.1, "stall": 0.02}, seed=5)
    faulty.proxy.use(faults)
    storage = faulty.make(replace(BRISK, attempts=12, read_timeout=1.0))
    assert [info.key for info in storage.list("many/")] == names
    assert list(storage.read_many(names)) == [name.encode() * 50 for name in names]
    assert [storage.stat(name).size for name in names[:5]] == [400] * 5
    injected = [fault for _, fault in faulty.proxy.injected]
    assert set(injected) >= {"503", "500", "reset", "truncate"}
    assert storage.statistics().retries >= len(injected) - injected.count("reset")


def test_bytes_that_were_exchanged_on_the_way_are_noticed(faulty: Faulty) -> None:
    faulty.put("a/b", DATA)
    storage = faulty.make(PATIENT)
    if isinstance(storage, HttpStorage):
        pytest.skip("a plain web server sends no checksum; see test_checksums_of_a_web_server")
    faulty.proxy.use(Faults({"corrupt": 1.0}, most=2, only="/a/b"))
    assert storage.read("a/b") == DATA
    assert storage.statistics().retries == 2
    faulty.proxy.use(Faults({"corrupt": 1.0}, only="/a/b"))
    with pytest.raises(TruncatedError):
        storage.read("a/b")


def test_writes_survive_faults(moto: MotoServer, moto_proxy: FaultProxy, tmp_path: Path) -> None:
    storage = s3_storage(moto, moto_proxy.url, retry=replace(PATIENT, attempts=10), part_bytes=5 << 20)
    data = bytes(range(251)) * 50_000
    (tmp_path / "large").write_bytes(data)
    moto_proxy.use(Faults({"503": 0.3, "reset": 0.2, "500": 0.1}, seed=2))
    info = storage.write("large", tmp_path / "large")
    storage.write("small", b"small")
    moto_proxy.use(Faults())
    assert info.size == len(data)
    assert storage.read("large") == data
    assert storage.read("small") == b"small"
    storage.close()


def test_an_upload_that_fails_leaves_nothing(moto: MotoServer, moto_proxy: FaultProxy) -> None:
    storage = s3_storage(moto, moto_proxy.url, retry=replace(PATIENT, attempts=2), part_bytes=5 << 20)
    moto_proxy.use(Faults({"503": 1.0}, only="partNumber=2"))
    with pytest.raises(TransientError, match="503"):
        storage.write("large", bytes(12 << 20))
    moto_proxy.use(Faults())
    assert not storage.exists("large")
    assert _uploads_under_way(storage) == 0
    storage.close()


def _uploads_under_way(storage: S3Storage) -> int:
    async def ask(client: object) -> int:
        answer = await client.list_multipart_uploads(Bucket=storage.bucket)  # type: ignore[attr-defined]
        return len(answer.get("Uploads", []))

    return storage._do("", ask)


def test_the_server_may_ask_to_wait(web: FolderServer, web_proxy: FaultProxy) -> None:
    storage, folder = http_storage(web, web_proxy.url, retry=replace(PATIENT, longest_wait=0.4))
    put_file(folder, "a", b"1")
    web_proxy.use(Faults({"503": 1.0}, most=1))
    web_proxy.retry_after = "60"
    began = time.monotonic()
    assert storage.read("a") == b"1"
    web_proxy.retry_after = None
    assert 0.4 <= time.monotonic() - began < 50  # as long as the policy allows at most
    storage.close()


@pytest.mark.parametrize("name", ["http", "s3"])
def test_nobody_listens(name: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    storage = (
        HttpStorage(base_url=url, allowed_hosts=("127.0.0.1",), retry=QUICK)
        if name == "http"
        else S3Storage(bucket="b", endpoint_url=url, anonymous=True, region="us-east-1", retry=QUICK)
    )
    with pytest.raises(TransientError) as caught:
        storage.read("x")
    assert caught.value.uri == storage.uri_of("x")
    assert storage.statistics().retries == QUICK.attempts - 1
    storage.close()


def test_a_server_that_never_accepts(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        quick = replace(QUICK, attempts=2, read_timeout=0.2)
        storage = HttpStorage(base_url=url, allowed_hosts=("127.0.0.1",), retry=quick)
        began = time.monotonic()
        with pytest.raises(DeadlineError):
            storage.read("x")
        assert time.monotonic() - began < 30
        storage.close()
