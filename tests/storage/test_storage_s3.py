"""What only S3 has: uploads in parts, where credentials come from, markers of folders, missing buckets."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from backends import QUICK, s3_storage
from servers import CREDENTIALS, MotoServer

from neurotrain.storage import (
    AccessDeniedError,
    InvalidKeyError,
    ObjectNotFoundError,
    S3Storage,
)


@pytest.mark.parametrize("from_file", [False, True])
def test_large_objects_go_in_parts(moto: MotoServer, tmp_path: Path, from_file: bool) -> None:
    storage = s3_storage(moto, part_bytes=5 << 20)
    data = bytes(range(251)) * 45_000
    (tmp_path / "large").write_bytes(data)
    info = storage.write("large", tmp_path / "large" if from_file else data)
    assert info.size == len(data)
    assert (info.etag or "").endswith("-3")
    assert storage.read("large") == data
    assert storage.read("large", start=(5 << 20) - 3, length=6) == data[(5 << 20) - 3 :][:6]
    storage.close()


def test_keys_are_relative_to_the_prefix(moto: MotoServer) -> None:
    storage = s3_storage(moto)
    storage.write("a/b", b"1")
    bucket = s3_storage(moto, bucket=storage.bucket, prefix="")
    assert [info.key for info in bucket.list()] == ["some/prefix/a/b"]
    bucket.write("some/prefix2/x", b"a neighbour whose name begins alike")
    assert [info.key for info in storage.list()] == ["a/b"]
    assert storage.uri_of("a/b") == f"s3://{storage.bucket}/some/prefix/a/b"
    assert storage.identity != storage.uri
    storage.close()
    bucket.close()


def test_markers_of_folders_are_no_objects_and_odd_keys_are_told(moto: MotoServer) -> None:
    storage = s3_storage(moto)

    def put(key: str) -> None:
        storage._do("", lambda client: client.put_object(Bucket=storage.bucket, Key=f"some/prefix/{key}", Body=b""))

    put("")
    put("folder/")
    storage.write("folder/x", b"1")
    assert [info.key for info in storage.list()] == ["folder/x"]
    put("folder/../y")
    with pytest.raises(InvalidKeyError, match="is in the bucket, but a key is a relative path"):
        list(storage.list())
    assert [info.key for info in storage.list("folder/x")] == ["folder/x"]
    storage.close()


def test_a_missing_bucket_is_not_an_empty_one(moto: MotoServer) -> None:
    storage = S3Storage(bucket="no-such-bucket", endpoint_url=moto.url, retry=QUICK, **CREDENTIALS)
    for operation in (lambda: list(storage.list()), lambda: storage.read("x"), lambda: storage.write("x", b"")):
        with pytest.raises(ObjectNotFoundError, match="no such bucket"):
            operation()
    storage.close()


def test_credentials_come_from_the_standard_chain(
    moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-environment")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-environment")
    (tmp_path / "credentials").write_text(
        "[lab]\naws_access_key_id = from-profile\naws_secret_access_key = secret-of-profile\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    bucket = moto.make_bucket("bucket-of-the-chain")
    place = {"bucket": bucket, "endpoint_url": moto.url, "region": "us-east-1", "retry": QUICK}
    expected = {
        S3Storage(**place): ("from-environment", "token-of-environment"),
        S3Storage(profile="lab", **place): ("from-profile", None),
        S3Storage(key="given", secret="s", token="t", **place): ("given", "t"),
    }
    for storage, (key, token) in expected.items():
        storage.write("x", b"1")
        used = storage._do("", _credentials_of)
        assert (used.access_key, used.token) == (key, token)
        assert b"secret-of" not in pickle.dumps(storage)
        storage.close()


async def _credentials_of(client: object) -> object:
    return client._request_signer._credentials  # type: ignore[attr-defined]


def test_no_credentials(moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = moto.make_bucket("bucket-for-all")
    place = {"bucket": bucket, "endpoint_url": moto.url, "region": "us-east-1", "retry": QUICK}
    storage = S3Storage(**place)
    with pytest.raises(AccessDeniedError, match="NoCredentials"):
        storage.read("x")
    assert storage.statistics().retries == 0
    storage.close()
    with pytest.raises(AccessDeniedError, match="ProfileNotFound"):
        S3Storage(profile="nobody", **place).read("x")
    owner, anonymous = S3Storage(key="k", secret="s", **place), S3Storage(anonymous=True, **place)
    owner.write("private", b"1")
    owner._do("", lambda client: client.put_object(Bucket=bucket, Key="public", Body=b"2", ACL="public-read"))
    assert anonymous.read("public") == b"2"
    with pytest.raises(AccessDeniedError, match="403"):
        anonymous.read("private")
    for each in (owner, anonymous):
        each.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "k"}, "key and secret come together"),
        ({"token": "t"}, "token without key"),
        ({"key": "k", "secret": "s", "profile": "p"}, "no effect beside key"),
        ({"anonymous": True, "profile": "p"}, "signs nothing"),
        ({"bucket": "a/b"}, "bucket='a/b'"),
        ({"prefix": "../x"}, "prefix='../x'"),
        ({"part_bytes": 1000}, "part_bytes=1000"),
        ({"page_size": 1001}, "page_size=1001"),
        ({"addressing_style": "dns"}, "addressing_style='dns'"),
        ({"concurrency": 0}, "concurrency=0"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        S3Storage(**{"bucket": "b", **options})  # type: ignore[arg-type]


def test_requests_are_bounded(moto: MotoServer) -> None:
    storage = s3_storage(moto, concurrency=2)
    under_way = most = 0
    fetch = storage._fetch

    async def counted(*arguments: object) -> object:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await fetch(*arguments)  # type: ignore[arg-type]
        finally:
            under_way -= 1

    names = [f"{number}" for number in range(8)]
    for name in names:
        storage.write(name, name.encode())
    storage._fetch = counted  # type: ignore[method-assign,assignment]
    assert list(storage.read_many(names)) == [name.encode() for name in names]
    assert most == 2
    storage.close()
