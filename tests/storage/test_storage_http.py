"""What only the web has: private addresses, redirects, servers that know little, secrets in headers and queries."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import QUICK, http_storage, put_file
from servers import FolderServer, start_http

from neurotrain.storage import (
    AccessDeniedError,
    AddressRefusedError,
    HttpStorage,
    InvalidKeyError,
    MemoryStorage,
    ObjectNotFoundError,
    StorageError,
    TruncatedError,
    UnsupportedOperationError,
    UrlStorage,
)
from neurotrain.storage.addresses import is_public


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FolderServer]:
    """A server of this test's own, whose behaviour it may change."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"0123456789")
    with start_http(folder) as server:
        yield server


def _port(server: FolderServer) -> int:
    return int(server.url.rpartition(":")[2])


PRIVATE = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0x7f.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "localhost",
    "0.0.0.0",
    "[::]",
]


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_are_refused_however_they_are_written(server: FolderServer, host: str) -> None:
    storage = UrlStorage(retry=QUICK)
    # Some forms are no addresses to the client; all others are refused for where they lead.
    refused = r"no public address; .* name it in allowed_hosts|not a web address"
    with pytest.raises((AddressRefusedError, InvalidKeyError), match=refused):
        storage.read(f"http://{host}:{_port(server)}/a.bin")
    assert server.asked == []
    assert storage.statistics().retries == 0
    storage.close()


def test_a_host_that_is_named_may_be_private(server: FolderServer) -> None:
    storage = UrlStorage(allowed_hosts=("localhost",), retry=QUICK)
    assert storage.read(f"http://LOCALHOST:{_port(server)}/a.bin") == b"0123456789"
    with pytest.raises(AddressRefusedError):  # the name is allowed, not every name of its address
        storage.read(f"http://0x7f000001:{_port(server)}/a.bin")
    storage.close()
    storage = UrlStorage(allowed_hosts=("127.0.0.1",), retry=QUICK)
    assert storage.read(f"http://127.0.0.1:{_port(server)}/a.bin") == b"0123456789"
    with pytest.raises(AddressRefusedError):
        storage.read(f"http://localhost:{_port(server)}/a.bin")
    storage.close()


@pytest.mark.parametrize(
    "target", ["http://localhost:{port}/a.bin", "http://0x7f.1:{port}/a.bin", "//[::1]:{port}/a.bin"]
)
def test_redirects_are_checked_again(server: FolderServer, target: str) -> None:
    server.redirects["/away"] = target.format(port=_port(server))
    storage = HttpStorage(base_url=server.url, allowed_hosts=("127.0.0.1",), retry=QUICK)
    with pytest.raises(AddressRefusedError):
        storage.read("away")
    assert [path for _, path, _ in server.asked] == ["/away"]
    storage.close()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1/", "data:,x"])
def test_redirects_to_other_schemes_are_refused(server: FolderServer, target: str) -> None:
    server.redirects["/away"] = target
    storage = HttpStorage(base_url=server.url, allowed_hosts=("127.0.0.1",), retry=QUICK)
    with pytest.raises(AddressRefusedError, match="only http and https"):
        storage.read("away")
    storage.close()


def test_a_name_is_judged_when_it_is_connected_to(server: FolderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that was public when somebody looked, and is private at the next look, gains nothing."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, port: int, *rest: object, **more: object) -> list[object]:
        if host != "rebinding.example":
            return real(host, port, *rest, **more)  # type: ignore[arg-type,return-value]
        asked.append(host)
        address = "203.0.113.9" if len(asked) == 2 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    storage = UrlStorage(retry=QUICK)
    with pytest.raises(AddressRefusedError, match=r"rebinding\.example is at 127\.0\.0\.1"):
        storage.read(f"http://rebinding.example:{_port(server)}/a.bin")
    assert len(asked) == 1
    assert server.asked == []
    storage.close()


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("::127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
        ("ff02::1", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_own_headers_stay_at_home(server: FolderServer) -> None:
    server.redirects["/away"] = f"http://localhost:{_port(server)}/a.bin"
    server.redirects["/near"] = "/a.bin"
    storage = HttpStorage(
        base_url=server.url,
        headers={"Authorization": "Bearer very-secret"},
        allowed_hosts=("127.0.0.1", "localhost"),
        retry=QUICK,
    )
    assert storage.read("near") == storage.read("away") == b"0123456789"
    sent = [headers.get("Authorization") for _, _, headers in server.asked]
    assert sent == ["Bearer very-secret", "Bearer very-secret", "Bearer very-secret", None]
    assert "very-secret" not in repr(storage)
    storage.close()


def test_redirects_without_end(server: FolderServer) -> None:
    server.redirects["/a"] = "/b"
    server.redirects["/b"] = "/a"
    storage = HttpStorage(base_url=server.url, allowed_hosts=("127.0.0.1",), retry=QUICK)
    with pytest.raises(StorageError, match="more than 10 redirects"):
        storage.read("a")
    storage.close()


def test_servers_that_know_little(server: FolderServer) -> None:
    server.head = server.ranges = False
    storage = HttpStorage(base_url=server.url, allowed_hosts=("127.0.0.1",), retry=QUICK)
    assert storage.stat("a.bin").size == 10
    assert storage.read("a.bin", start=3, length=4) == b"3456"
    assert storage.read("a.bin", start=30, length=4) == b""
    with pytest.raises(ObjectNotFoundError):
        storage.stat("none")
    storage.close()


def test_checksums_of_a_web_server(server: FolderServer) -> None:
    data = b"0123456789"
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    sha = base64.b64encode(hashlib.sha256(data).digest()).decode()
    storage = HttpStorage(base_url=server.url, allowed_hosts=("127.0.0.1",), retry=QUICK)
    for headers in ({"Content-MD5": md5}, {"Content-Digest": f"sha-256=:{sha}:"}, {"Content-Digest": "unknown=:x:"}):
        server.headers["/a.bin"] = headers
        assert storage.read("a.bin") == data
    for headers in ({"Content-MD5": md5[::-1]}, {"Content-Digest": f"x=:y:, sha-256=:{sha[::-1]}:"}):
        server.headers["/a.bin"] = headers
        with pytest.raises(TruncatedError, match="have another"):
            storage.read("a.bin")
    storage.close()


def test_packed_answers_are_refused(server: FolderServer) -> None:
    server.headers["/a.bin"] = {"Content-Encoding": "gzip"}
    storage = HttpStorage(base_url=server.url, allowed_hosts=("127.0.0.1",), retry=QUICK)
    with pytest.raises(StorageError, match="sent as gzip, though identity was asked"):
        storage.read("a.bin")
    assert all(headers["Accept-Encoding"] == "identity" for _, _, headers in server.asked)
    storage.close()


def test_parts_that_are_not_those_asked_for(server: FolderServer) -> None:
    storage = HttpStorage(base_url=server.url, allowed_hosts=("127.0.0.1",), retry=QUICK)
    for span in ("bytes 2-5/10", "bytes 3-6/7x", "bytes 3-5/10"):
        server.headers["/a.bin"] = {"Content-Range": span}
        with pytest.raises(TruncatedError):
            storage.read("a.bin", start=3, length=4)
    storage.close()


def test_without_an_etag_time_and_size_are_one(server: FolderServer) -> None:
    server.headers["/a.bin"] = {"ETag": 'W/"weak"'}
    storage = HttpStorage(base_url=server.url, allowed_hosts=("127.0.0.1",), retry=QUICK)
    assert storage.stat("a.bin").etag == "weak"
    server.etags = False
    server.headers.clear()
    etag = storage.stat("a.bin").etag
    assert etag is not None
    assert etag.endswith(" GMT 10")
    assert storage.read("a.bin", etag=etag) == b"0123456789"
    storage.close()


def test_a_folder_without_a_page_is_not_an_empty_one(server: FolderServer) -> None:
    server.headers["/"] = {"Content-Type": "application/json"}
    storage = HttpStorage(base_url=server.url, allowed_hosts=("127.0.0.1",), retry=QUICK)
    with pytest.raises(UnsupportedOperationError, match="no page"):
        list(storage.list())
    storage.close()


def test_addresses_as_keys(web: FolderServer) -> None:
    _, folder = http_storage(web)
    put_file(folder, "ä b.bin", b"1")
    put_file(folder, "plain.bin", b"2")
    base = f"{web.url}/{folder.name.replace(' ', '%20')}"
    storage = UrlStorage(allowed_hosts=("127.0.0.1",), retry=QUICK)
    urls = [f"{base}/plain.bin?signature=s%2Bcr%3Det", f"{base}/ä b.bin", f"{base}/none?token=t0k3n", "ftp://x/y", "x"]
    results = list(storage.read_many(urls))
    assert results[:2] == [b"2", b"1"]
    assert [type(result) for result in results[2:]] == [ObjectNotFoundError, InvalidKeyError, InvalidKeyError]
    # A signature is valid only as it was written.
    assert any(path.endswith("plain.bin?signature=s%2Bcr%3Det") for _, path, _ in web.asked)
    assert "t0k3n" not in str(results[2])
    with pytest.raises(UnsupportedOperationError, match="nobody can list"):
        list(storage.list())
    with pytest.raises(UnsupportedOperationError):
        storage.write(urls[0], b"")
    storage.close()


@pytest.mark.parametrize(
    "url", ["ftp://example.org", "example.org/x", "https://", "https://ann:pw@example.org/", "https://example.org/?a=b"]
)
def test_bad_addresses_of_folders_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url=") as caught:
        HttpStorage(base_url=url)
    assert "pw" not in str(caught.value)


def test_an_untrusted_certificate_is_not_tried_again(tmp_path: Path) -> None:
    # A server that does not speak TLS at all is the nearest that needs no certificate.
    with start_http(tmp_path) as server:
        storage = HttpStorage(base_url=server.url.replace("http:", "https:"), allowed_hosts=("127.0.0.1",), retry=QUICK)
        with pytest.raises(StorageError) as caught:
            storage.read("x")
        assert not isinstance(caught.value, (ObjectNotFoundError, AccessDeniedError))
        storage.close()


def test_memory_names() -> None:
    with pytest.raises(ValueError, match="one word"):
        MemoryStorage(name="a/b")
