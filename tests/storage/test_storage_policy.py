"""Retries, secrets, URIs, counts, missing libraries: what needs no server."""

from __future__ import annotations

import logging
import pickle
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from backends import QUICK, hub_storage
from hub_server import TOKEN, HubServer
from servers import FaultProxy, Faults, FolderServer, MotoServer

from neurotrain.storage import (
    AccessDeniedError,
    CachedStorage,
    HttpStorage,
    HuggingFaceStorage,
    LocalStorage,
    MemoryStorage,
    ObjectNotFoundError,
    RetryPolicy,
    S3Storage,
    Statistics,
    Storage,
    StorageError,
    UrlStorage,
    open_storage,
)
from neurotrain.storage.keys import redact
from neurotrain.storage.statistics import Counter

SECRET = "53cr3t"


@pytest.mark.parametrize(
    "text",
    [
        f"https://ann:{SECRET}@host.org/a.png",
        f"s3://{SECRET}key:{SECRET}@bucket/x",
        f"https://host.org/a.png?X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}",
        f"HTTPS://host.org/a?{SECRET}",
        f"cannot connect to https://host.org/a#{SECRET}: refused",
        f"'https://host.org/a?sig={SECRET}', and https://b.org/?{SECRET} too",
        f"Authorization: Bearer {SECRET}",
        f"{{'Authorization': 'Bearer {SECRET}', 'a': 1}}",
        f"aws_secret_access_key={SECRET}",
        f"token={SECRET}",
        f"x-amz-security-token: {SECRET}",
        f"hf_{SECRET * 6}",
        f"AKIA{SECRET.upper() * 3} is not allowed",
    ],
)
def test_secrets_are_removed(text: str) -> None:
    shown = redact(text)
    assert SECRET not in shown
    assert SECRET.upper() not in shown
    assert redact(shown) == shown
    error = StorageError(text, text)
    assert SECRET not in f"{error!r} {error} {error.uri} {error.reason} {error.args}"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    "text", ["s3://bucket/a?b", "hf://datasets/a/b@main/c#d", "file:///home/a@b/c", "https://h.org/a@b"]
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def _storages_with_secrets(moto: MotoServer, web: FolderServer, hub: HubServer, proxy: FaultProxy) -> list[Storage]:
    place = {"allowed_hosts": ("127.0.0.1",), "retry": QUICK}
    bucket = moto.make_bucket("bucket-of-secrets")
    return [
        S3Storage(
            bucket=bucket,
            endpoint_url=proxy.url,
            region="us-east-1",
            key=SECRET,
            secret=SECRET,
            token=SECRET,
            retry=QUICK,
        ),
        HttpStorage(base_url=web.url, headers={"X-Key": SECRET}, **place),
        hub_storage(hub, token=f"hf_{SECRET * 6}")[0],
    ]


def test_secrets_never_reach_messages_or_logs(
    moto: MotoServer, web: FolderServer, hub: HubServer, moto_proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shown: list[str] = []
    for fault in ("403", "500", "truncate"):
        moto_proxy.use(Faults({fault: 1.0}))
        for storage in _storages_with_secrets(moto, web, hub, moto_proxy):
            shown += [repr(storage), storage.uri, storage.identity, str(vars(storage).get("retry"))]
            for operation in (storage.read, storage.stat):
                with pytest.raises(StorageError) as caught:
                    operation("none")
                shown += ["".join(traceback.format_exception(caught.value)), repr(caught.value.args)]
            storage.close()
    moto_proxy.use(Faults())
    urls = UrlStorage(allowed_hosts=("127.0.0.1",), retry=QUICK)
    for url in (
        f"{web.url}/none?X-Amz-Signature={SECRET}",
        f"http://ann:{SECRET}@127.0.0.1:{web.url.rpartition(':')[2]}/none",
        f"http://localhost:1/{'x'}?token={SECRET}",
        f"ftp://ann:{SECRET}@host/x",
    ):
        with pytest.raises(StorageError) as caught:
            urls.read(url)
        shown.append("".join(traceback.format_exception(caught.value)))
    urls.close()
    assert len(shown) > 30
    assert [text for text in [*shown, caplog.text] if SECRET in text.replace("redact(", "")] == []


def test_the_token_of_the_hub_stays_there(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    storage, files = hub_storage(hub, token=None)
    files["top/large"] = bytes(5000)
    hub.private.add(f"datasets/{storage.repo_id}")
    hub.asked.clear()
    assert storage.read("large") == bytes(5000)
    assert [(path.partition("/")[2][:4], token) for _, path, token in hub.asked] == [
        ("data", f"Bearer {TOKEN}"),
        ("cdn/", None),
    ]
    assert TOKEN.encode() not in pickle.dumps(storage)
    storage.close()
    refused = hub_storage(hub, repo_id=storage.repo_id, token="hf_another0another0another0")[0]
    with pytest.raises(AccessDeniedError, match="GatedRepo"):
        refused.read("large")
    with pytest.raises(AccessDeniedError, match="GatedRepo"):
        list(refused.list())
    with pytest.raises(AccessDeniedError):
        refused.write("x", b"1")
    refused.close()


def test_a_repository_or_revision_that_is_not_there(hub: HubServer) -> None:
    storage, files = hub_storage(hub)
    files["top/a"] = b"1"
    nowhere = HuggingFaceStorage(repo_id="no/body", endpoint=hub.url, retry=QUICK, token=TOKEN)
    with pytest.raises(AccessDeniedError, match="RepoNotFound"):
        list(nowhere.list())
    other = hub_storage(hub, repo_id=storage.repo_id, revision="v9")[0]
    for operation in (lambda: list(other.list()), lambda: other.read("a")):
        with pytest.raises(ObjectNotFoundError, match="RevisionNotFound"):
            operation()
    for each in (storage, nowhere, other):
        each.close()


def test_waits_grow_within_their_bounds_and_repeat_by_seed() -> None:
    policy = RetryPolicy(attempts=9, first_wait=1.0, longest_wait=20.0, seed=1)
    waits = list(policy.waits())
    assert waits == list(policy.waits())
    assert len(waits) == 8
    assert all(0 <= wait <= min(20.0, 2.0**attempt) for attempt, wait in enumerate(waits))
    assert len(set(waits)) == 8
    free = RetryPolicy(attempts=5000, seed=None)
    assert list(free.waits()) != list(free.waits())
    assert max(free.waits()) <= 10.0
    assert list(RetryPolicy(attempts=1).waits()) == []


@pytest.mark.parametrize(
    "option", [{"attempts": 0}, {"first_wait": -1.0}, {"longest_wait": -1.0}, {"read_timeout": 0.0}, {"deadline": -1.0}]
)
def test_bad_policies(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))}="):
        RetryPolicy(**option)  # type: ignore[arg-type]


def test_storages_by_uri() -> None:
    assert open_storage("some/folder").uri.endswith("/some/folder")
    assert open_storage("file:///folder").uri == "file:///folder"
    s3 = open_storage("s3://bucket/a/b/", region="eu-central-1", anonymous=True)
    assert isinstance(s3, S3Storage)
    assert (s3.bucket, s3.prefix, s3.region) == ("bucket", "a/b", "eu-central-1")
    assert open_storage("https://example.org/x/").uri == "https://example.org/x"
    uris = {
        "hf://datasets/owner/name": ("dataset", "owner/name", "main", ""),
        "hf://datasets/owner/name@v1%2F2/data/train": ("dataset", "owner/name", "v1/2", "data/train"),
        "hf://owner/name@refs": ("model", "owner/name", "refs", ""),
        "hf://spaces/owner/name/x": ("space", "owner/name", "main", "x"),
    }
    for uri, expected in uris.items():
        hub = open_storage(uri)
        assert isinstance(hub, HuggingFaceStorage)
        assert (hub.repo_type, hub.repo_id, hub.revision, hub.prefix) == expected
        assert vars(open_storage(hub.uri)).keys() == vars(hub).keys()
        assert open_storage(hub.uri).uri == hub.uri


@pytest.mark.parametrize(
    ("uri", "options", "message"),
    [
        ("s4://bucket/x", {}, "nearest is 's3'"),
        ("htps://host/x", {}, "nearest is 'http"),
        ("s3://key:secret@bucket/x", {}, r"s3://\*\*\*@bucket/x.*credentials do not belong"),
        ("https://ann:pw@host/x", {}, "credentials do not belong"),
        ("s3://bucket", {"regio": "x"}, "nearest is 'region'"),
        ("s3://bucket", {"bucket": "other"}, "the URI says it already"),
        ("memory://a/b", {}, "one word"),
        ("hf://name", {}, "like 'owner/name'"),
        ("s3:///x", {}, "bucket=''"),
    ],
)
def test_bad_uris(uri: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        open_storage(uri, **options)
    assert "pw" not in str(caught.value)
    assert "key:secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("library", "extra", "make"),
    [
        ("s3fs", "s3", lambda: S3Storage(bucket="b")),
        ("aiohttp", "http", lambda: HttpStorage(base_url="https://example.org")),
        ("aiohttp", "http", lambda: UrlStorage()),
        ("huggingface_hub", "huggingface", lambda: HuggingFaceStorage(repo_id="a/b")),
    ],
)
def test_a_missing_library_is_one_clear_error(
    library: str, extra: str, make: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neurotrain.storage import extras

    found = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == library else found(name))
    with pytest.raises(ImportError, match=rf'needs {library}: pip install "neurotrain\[{extra}\]"'):
        make()  # type: ignore[operator]


def test_counts_of_threads_are_exact() -> None:
    counter = Counter()

    def work(_: int) -> None:
        for _ in range(2000):
            counter.mine().reads += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    assert counter.total().reads == 32_000
    assert pickle.loads(pickle.dumps(counter)).total() == Statistics()


def test_counts_of_layers_add_up(tmp_path: object) -> None:
    inner = MemoryStorage(name="counted")
    inner.write("a", b"123")
    cached = CachedStorage(storage=inner, folder=str(tmp_path), max_bytes=10_000)
    for _ in range(3):
        cached.read("a")
    total = cached.statistics()
    assert (total.reads, total.bytes_read, total.cache_hits, total.cache_misses) == (1, 3, 2, 1)


def test_a_local_read_is_counted_with_its_time(tmp_path: object) -> None:
    storage = LocalStorage(root=str(tmp_path))
    storage.write("a", b"123")
    storage.read("a")
    total = storage.statistics()
    assert (total.reads, total.writes, total.bytes_written) == (1, 1, 3)
    assert 0 < total.wait_seconds < 10
