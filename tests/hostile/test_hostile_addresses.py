"""Tables of addresses that lead home: judged by where a connection goes, however it is written."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import FolderServer, start_http

from neurotrain.data.sources import SourceError, UrlTableSource
from neurotrain.storage import AddressRefusedError, InvalidKeyError, LocalStorage, RetryPolicy, UrlStorage

QUICK = RetryPolicy(attempts=2, first_wait=0.01, longest_wait=0.02, connect_timeout=2, read_timeout=2, deadline=5)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderServer]:
    """A server on loopback that no row may reach."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "secret.jpg").write_bytes(b"secret")
    with start_http(folder) as server:
        yield server


@pytest.fixture
def read(home: FolderServer, tmp_path: Path) -> Iterator[Callable[..., object]]:
    """Reads the one row of a table of addresses."""
    home.asked.clear()
    home.redirects.clear()
    opened: list[UrlStorage] = []

    def reader(url: str, hosts: tuple[str, ...] = ()) -> object:
        (tmp_path / "rows.csv").write_text(f'image\n"{url}"\n')
        web = UrlStorage(allowed_hosts=hosts, retry=QUICK)
        opened.append(web)
        source = UrlTableSource(
            name="hostile", web=web, table="rows.csv", tables=LocalStorage(root=tmp_path), cache_dir=tmp_path / "cache"
        )
        source.setup()
        return source.read(0)

    yield reader
    for web in opened:
        web.close()
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert kept == []


HOSTS = {
    "dotted": "127.0.0.1",
    "short": "127.1",
    "decimal": "2130706433",
    "octal": "0177.0.0.1",
    "octal in one": "017700000001",
    "hexadecimal": "0x7f000001",
    "mixed": "0x7f.0.1",
    "another of loopback": "127.255.255.254",
    "IPv6": "[::1]",
    "IPv6 mapped": "[::ffff:127.0.0.1]",
    "IPv6 mapped in hexadecimal": "[::ffff:7f00:1]",
    "IPv6 compatible": "[::127.0.0.1]",
    "NAT64": "[64:ff9b::7f00:1]",
    "6to4": "[2002:7f00:1::]",
    "nowhere": "0.0.0.0",
    "nowhere in IPv6": "[::]",
    "name": "localhost",
    "name in capitals": "LOCALHOST",
    "metadata": "169.254.169.254",
    "private": "10.0.0.1",
    "user before it": "93.184.215.14@127.0.0.1",
    "user and password before it": "example.org:80@127.0.0.1",
    "wide digits": "\uff11\uff12\uff17.0.0.1",
    "a circled digit": "\u2460\u2461\u2466.0.0.1",
}


@pytest.mark.parametrize("name", HOSTS)
def test_ways_of_writing(name: str, home: FolderServer, read: Callable[..., object]) -> None:
    port = home.url.rpartition(":")[2]
    with pytest.raises((AddressRefusedError, InvalidKeyError, SourceError)) as refused:
        read(f"http://{HOSTS[name]}:{port}/secret.jpg")
    assert home.asked == []
    assert "public address" in str(refused.value) or "web address" in str(refused.value) or "row" in str(refused.value)


@pytest.mark.parametrize("host", ["pictures.example.org", "localhost.", "127.0.0.1%2f.example.org"])
@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00::1"])
def test_names_that_lead_home(
    address: str, host: str, home: FolderServer, read: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def resolver(_: object, port: int | str | None, *__: object, **___: object) -> list[Any]:
        place = (address, int(port or 0), 0, 0) if family == socket.AF_INET6 else (address, int(port or 0))
        return [(family, socket.SOCK_STREAM, 6, "", place)]

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    with pytest.raises(AddressRefusedError, match="no public address"):
        read(f"http://{host}:{home.url.rpartition(':')[2]}/secret.jpg")
    assert home.asked == []


@pytest.mark.parametrize("target", ["http://127.1:{port}/secret.jpg", "//[::ffff:7f00:1]:{port}/secret.jpg",
                                    "file:///etc/passwd", "http://a@2130706433:{port}/secret.jpg"])  # fmt: skip
def test_redirects(target: str, home: FolderServer, read: Callable[..., object]) -> None:
    port = home.url.rpartition(":")[2]
    home.redirects["/away.jpg"] = target.format(port=port)
    with pytest.raises((AddressRefusedError, InvalidKeyError)):
        read(f"http://localhost:{port}/away.jpg", ("localhost",))
    assert {path for _, path, _ in home.asked} == {"/away.jpg"}


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "pipe:cat /etc/passwd", "/etc/passwd", "gopher://a/", "data:,x"]
)
def test_other_schemes(url: str, read: Callable[..., object]) -> None:
    with pytest.raises((AddressRefusedError, InvalidKeyError, SourceError, ValueError)):
        read(url)
