"""Tables of addresses: what is downloaded is whole, checked, and from where it may be."""

from __future__ import annotations

import hashlib
import json
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Faults, FolderServer, start_http, start_proxy

from neurotrain.data.sources import SampleFormatError, SourceError, UrlTableSource
from neurotrain.storage import (
    AddressRefusedError,
    LocalStorage,
    ObjectNotFoundError,
    RetryPolicy,
    TruncatedError,
    UrlStorage,
)

QUICK = RetryPolicy(attempts=3, first_wait=0.01, longest_wait=0.02, connect_timeout=2, read_timeout=2, deadline=10)
BODIES = {f"{number}.jpg": bytes([number]) * (1000 + number) for number in range(6)}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderServer]:
    with start_http(tmp_path_factory.mktemp("web")) as server:
        for name, body in BODIES.items():
            (server.folder / name).write_bytes(body)
        yield server


@pytest.fixture
def asked(web: FolderServer) -> list[tuple[str, str, dict[str, str]]]:
    web.asked.clear()
    web.redirects.clear()
    return web.asked


def make(
    tmp_path: Path, rows: list[dict[str, Any]], *, hosts: tuple[str, ...] = ("127.0.0.1",), **more: str
) -> UrlTableSource:
    tables = LocalStorage(root=tmp_path / "tables")
    names = list(rows[0])
    lines = ["\t".join(names), *("\t".join(str(row[name]) for name in names) for row in rows)]
    tables.write("rows.tsv", "\n".join(lines).encode())
    source = UrlTableSource(
        name="web",
        web=UrlStorage(allowed_hosts=hosts, retry=QUICK),
        table="rows.tsv",
        tables=tables,
        cache_dir=tmp_path / "cache",
        columns={"image": "url", **({"caption": "text"} if "text" in names else {})},
        **more,
    )
    source.setup()
    return source


def rows_of(url: str, count: int = 6) -> list[dict[str, Any]]:
    return [{"url": f"{url}/{n}.jpg", "text": f"photo {n}"} for n in range(count)]


def test_downloads_once_into_hashed_names(web: FolderServer, asked: list, tmp_path: Path) -> None:
    source = make(tmp_path, rows_of(web.url))
    report = source.download()
    assert (report.downloaded, report.present, report.failed) == (6, 0, ())
    assert report.bytes == sum(map(len, BODIES.values()))
    assert {path.rsplit("/", 1)[1] for _, path, _ in asked} == set(BODIES)
    asked.clear()
    assert (source.download().present, asked) == (6, [])
    name = hashlib.sha256(f"{web.url}/3.jpg".encode()).hexdigest()
    assert (tmp_path / "cache" / name[:2] / name).read_bytes() == BODIES["3.jpg"]
    sample = source.read(3)
    assert sample.fields == {"image": BODIES["3.jpg"], "caption": "photo 3"}
    assert sample.id == name[:16]
    assert sample.identity == {"image": f"sha256:{hashlib.sha256(BODIES['3.jpg']).hexdigest()}"}
    assert str(report) == f"6 downloaded ({report.bytes} bytes), 0 there, 0 failed"


def test_reads_without_a_download_before(web: FolderServer, asked: list, tmp_path: Path) -> None:
    source = pickle.loads(pickle.dumps(make(tmp_path, rows_of(web.url))))
    assert source.read(2).fields["image"] == BODIES["2.jpg"]
    assert source.read(2).fields["image"] == BODIES["2.jpg"]
    assert len([path for method, path, _ in asked if method == "GET"]) == 1


def test_one_bad_object_costs_itself(web: FolderServer, asked: list, tmp_path: Path) -> None:
    rows = [*rows_of(web.url, 2), {"url": f"{web.url}/none.jpg?token=secret", "text": "x"}]
    source = make(tmp_path, rows)
    report = source.download()
    assert report.downloaded == 2
    [(uri, reason)] = report.failed
    assert uri.endswith("/none.jpg?***")
    assert reason.startswith("404")
    with pytest.raises(ObjectNotFoundError) as caught:
        source.read(2)
    assert "secret" not in str(caught.value) + str(report) + str(source.table().column("uri").to_pylist())


def test_checksums(web: FolderServer, asked: list, tmp_path: Path) -> None:
    sums = [hashlib.sha256(BODIES["0.jpg"]).hexdigest().upper(), "0" * 64, ""]
    rows = [{"url": f"{web.url}/{n}.jpg", "sum": one} for n, one in enumerate(sums)]
    source = make(tmp_path, rows, sha256="sum")
    report = source.download()
    assert report.downloaded == 2
    [(uri, reason)] = report.failed
    assert uri == f"{web.url}/1.jpg"
    actual = hashlib.sha256(BODIES["1.jpg"]).hexdigest()
    assert reason == f"sha256 is {actual}, the table says {'0' * 64}"
    with pytest.raises(SampleFormatError, match="sha256 is"):
        source.read(1)
    assert set(source.read(0).fields) == {"image"}
    md5 = [{"url": f"{web.url}/4.jpg", "sum": hashlib.md5(BODIES["4.jpg"]).hexdigest()}]
    assert make(tmp_path, md5, md5="sum").download().downloaded == 1
    with pytest.raises(SourceError, match="row 1: column 'sum' holds 'abc', expected 64 hexadecimal digits"):
        make(tmp_path, [{"url": "http://x/y", "sum": "abc"}], sha256="sum")
    with pytest.raises(SourceError, match=r"columns\.sha256='sums': no such column"):
        make(tmp_path, rows, sha256="sums")


def test_private_addresses_are_refused_unless_named(web: FolderServer, asked: list, tmp_path: Path) -> None:
    source = make(tmp_path, rows_of(web.url, 1), hosts=())
    assert "127.0.0.1" in source.download().failed[0][1]
    with pytest.raises(AddressRefusedError):
        source.read(0)
    assert asked == []


def test_redirects_are_judged_again(web: FolderServer, asked: list, tmp_path: Path) -> None:
    web.redirects["/there.jpg"] = f"{web.url}/5.jpg"
    web.redirects["/away.jpg"] = f"http://localhost:{web.server_address[1]}/5.jpg"
    rows = [{"url": f"{web.url}/{name}.jpg"} for name in ("there", "away")]
    source = make(tmp_path, rows)
    assert source.read(0).fields["image"] == BODIES["5.jpg"]
    with pytest.raises(AddressRefusedError, match="localhost"):
        source.read(1)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a.jpg", "file:///etc/passwd", "a.jpg"])
def test_only_the_web(tmp_path: Path, url: str) -> None:
    source = make(tmp_path, [{"url": url}])
    assert "not an http or https address" in source.download().failed[0][1]


def test_an_interrupted_download_goes_on_where_it_stopped(web: FolderServer, asked: list, tmp_path: Path) -> None:
    body = bytes(range(256)) * 6000
    (web.folder / "big.jpg").write_bytes(body)
    url = f"{web.url}/big.jpg"
    source = make(tmp_path, [{"url": url}])
    storage = source.storage
    name = hashlib.sha256(url.encode()).hexdigest()
    place = tmp_path / "cache" / name[:2] / f"{name}.new"
    place.parent.mkdir(parents=True)

    class Killed(BaseException):
        """What a killed process leaves."""

    original = type(storage).read
    calls: list[int] = []

    def dying(
        self: UrlStorage, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> bytes:
        calls.append(start)
        if start > 0:
            raise Killed
        return original(self, key, start=start, length=length, etag=etag)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UrlStorage, "read", dying)
        with pytest.raises(Killed):
            storage.download(url, place, part_bytes=2**20)
    assert calls == [0, 2**20]
    asked.clear()
    assert source.read(0).fields["image"] == body
    first = next(headers for method, _, headers in asked if method == "GET")
    assert first["Range"].startswith(f"bytes={2**20}-")


def test_truncation_and_faults(web: FolderServer, asked: list, tmp_path: Path) -> None:
    with start_proxy(web.url, Faults(rates={"503": 1.0}, most=1)) as proxy:
        assert make(tmp_path / "a", rows_of(proxy.url)).download().downloaded == 6
        assert len(proxy.injected) >= 6
        proxy.use(Faults(rates={"truncate": 1.0}))
        source = make(tmp_path / "b", rows_of(proxy.url, 1))
        assert source.download().downloaded == 0
        with pytest.raises(TruncatedError):
            source.read(0)
        proxy.use(Faults())
        assert source.read(0).fields["image"] == BODIES["0.jpg"]


def test_a_damaged_file_is_told_and_downloaded_anew(web: FolderServer, asked: list, tmp_path: Path) -> None:
    source = make(tmp_path, rows_of(web.url, 1))
    source.download()
    [path] = [file for file in (tmp_path / "cache").rglob("*") if file.is_file() and not file.suffix]
    path.write_bytes(b"half")
    with pytest.raises(SampleFormatError, match=r"has 4 of 1000 bytes: it has been damaged"):
        source.read(0)
    assert source.read(0).fields["image"] == BODIES["0.jpg"]


def test_threads_that_want_one_object_download_it_once(web: FolderServer, asked: list, tmp_path: Path) -> None:
    source = make(tmp_path, rows_of(web.url, 1))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(source.read(0))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({sample.fields["image"] for sample in found}) == 1
    assert len(found) == 6
    assert len([1 for method, _, _ in asked if method == "GET"]) == 1
    facts = json.loads(next((tmp_path / "cache").rglob("*.json")).read_text())
    assert facts["size"] == 1000
