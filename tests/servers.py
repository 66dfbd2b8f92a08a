"""Servers on loopback for tests: S3 by moto in its own process, HTTP from a folder, and a proxy that misbehaves."""

from __future__ import annotations

import hashlib
import http.client
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

CREDENTIALS = {"key": "testing", "secret": "testing-secret", "region": "us-east-1"}
"""Options of ``S3Storage`` that a moto server accepts (it accepts any)."""


@dataclass(frozen=True)
class MotoServer:
    """A running S3 server.

    Attributes:
        url: its endpoint.
    """

    url: str

    def make_bucket(self, name: str) -> str:
        """Create a bucket and return its name."""
        status, _ = ask(f"{self.url}/{name}", "PUT")
        assert status == 200, status
        return name


@contextmanager
def start_moto() -> Iterator[MotoServer]:
    """Run ``moto_server`` in a process of its own."""
    port = _free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield MotoServer(url=f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(timeout=20)


class QuietServer(ThreadingHTTPServer):
    """A threaded server that does not print clients' disconnections, and stops at once."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Clients leave when their deadline is over."""

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(server: QuietServer) -> Iterator[None]:
    """Run a server in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


class FolderServer(QuietServer):
    """Files of a folder with etags, ranges and pages of folders.

    Args:
        folder: what is served.

    Attributes:
        redirects: location by path, answered with 302.
        headers: further headers by path.
        ranges: whether range requests are understood.
        etags: whether etags are sent.
        head: whether HEAD is understood.
        asked: method, path and headers of every request.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _FolderHandler)
        self.folder = folder
        self.redirects: dict[str, str] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.ranges = True
        self.etags = True
        self.head = True
        self.asked: list[tuple[str, str, dict[str, str]]] = []


@contextmanager
def start_http(folder: Path) -> Iterator[FolderServer]:
    """Serve a folder over HTTP."""
    server = FolderServer(folder)
    with serving(server):
        yield server


class Handler(BaseHTTPRequestHandler):
    """Answers that keep the connection."""

    protocol_version = "HTTP/1.1"
    # An answer in two packets would wait for the first one's acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:  # noqa: ANN401
        """Print nothing."""

    def handle_expect_100(self) -> bool:
        """Say at once that the body may come."""
        accepted = super().handle_expect_100()
        self.wfile.flush()
        return accepted

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send one answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()


class _FolderHandler(Handler):
    server: FolderServer

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        if path in self.server.redirects:
            return self.answer(302, b"", {"Location": self.server.redirects[path]})
        if self.command == "HEAD" and not self.server.head:
            return self.answer(405, b"", {})
        file = (self.server.folder / unquote(path).lstrip("/")).resolve()
        if (
            not file.is_relative_to(self.server.folder.resolve())
            or not file.exists()
            or (file.is_file() and path.endswith("/"))
        ):
            return self.answer(404, b"no such file", {})
        if file.is_dir():
            names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in file.iterdir())
            links = "".join(f'<li><a href="{quote(name)}">{name}</a></li>' for name in names)
            kind = self.server.headers.get(path, {}).get("Content-Type", "text/html; charset=utf-8")
            page = f'<html><a href="?C=N;O=D">Name</a> <a href="../">up</a><ul>{links}</ul></html>'
            return self.answer(200, page.encode(), {"Content-Type": kind})
        return self._file(file, self.server.headers.get(path, {}))

    def _file(self, file: Path, more: Mapping[str, str]) -> None:
        body = file.read_bytes()
        headers = {
            "Content-Type": "application/octet-stream",
            "Last-Modified": formatdate(file.stat().st_mtime, usegmt=True),
        }
        if self.server.etags:
            headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        status, span = 200, self.headers.get("Range") if self.server.ranges else None
        if span is not None:
            first, _, last = span.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else len(body), len(body))
            if start >= len(body):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
            status, body = 206, body[start:stop]
        return self.answer(status, body, {**headers, **more})


@dataclass
class Faults:
    """Which request meets which fault: a pure function of a seed, the request and how often it was made before.

    Attributes:
        rates: share of requests by fault: a status such as ``"503"``, ``"truncate"``, ``"corrupt"``, ``"stall"`` or
            ``"reset"``.
        seed: of the draw.
        most: faults that one request meets at most, however often it is made; None for no bound.
        only: a part of the path that requests must have to meet any.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    most: int | None = None
    only: str = ""

    def draw(self, request: str, earlier: int, met: int) -> str | None:
        """The fault for a request that was made ``earlier`` times and met faults ``met`` times."""
        if self.only not in request or (self.most is not None and met >= self.most):
            return None
        number = random.Random(f"{self.seed} {request} {earlier}").random()
        for fault, rate in self.rates.items():
            number -= rate
            if number < 0:
                return fault
        return None


class FaultProxy(QuietServer):
    """Hands requests to another server and spoils some of the answers.

    Args:
        upstream: address of the server behind.
        faults: which answers.

    Attributes:
        faults: may be exchanged at any time.
        injected: request and fault of each one that was spoiled.
        retry_after: sent with every status that is injected; None sends nothing.
    """

    def __init__(self, upstream: str, faults: Faults | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.upstream = upstream
        self.faults = faults or Faults()
        self.injected: list[tuple[str, str]] = []
        self.retry_after: str | None = None
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._made: dict[str, int] = {}
        self._met: dict[str, int] = {}

    def use(self, faults: Faults) -> None:
        """Exchange the faults and forget what was counted."""
        with self._lock:
            self.faults, self.injected, self._made, self._met = faults, [], {}, {}

    def draw(self, request: str) -> str | None:
        """The fault that this request meets now."""
        with self._lock:
            earlier, met = self._made.get(request, 0), self._met.get(request, 0)
            self._made[request] = earlier + 1
            fault = self.faults.draw(request, earlier, met)
            if fault is not None:
                self._met[request] = met + 1
                self.injected.append((request, fault))
            return fault

    def take_back(self, request: str) -> None:
        """Forget the last fault of a request: its answer has no bytes to spoil."""
        with self._lock:
            self._met[request] -= 1
            last = max(index for index, (name, _) in enumerate(self.injected) if name == request)
            del self.injected[last]

    def server_close(self) -> None:
        """Let stalled answers go."""
        self.ended.set()
        super().server_close()


@contextmanager
def start_proxy(upstream: str, faults: Faults | None = None) -> Iterator[FaultProxy]:
    """Run a proxy that misbehaves in front of a server."""
    proxy = FaultProxy(upstream, faults)
    with serving(proxy):
        yield proxy


class _ProxyHandler(Handler):
    server: FaultProxy

    def do_GET(self) -> None:
        """Every method."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        span = self.headers.get("Range", "")
        request = f"{self.command} {self.path} {span}".strip()
        fault = self.server.draw(request)
        if fault == "reset":
            return self._reset()
        if fault == "stall":
            self.server.ended.wait()
            return self._reset()
        if fault is not None and fault.isdecimal():
            asked = {"Retry-After": self.server.retry_after} if self.server.retry_after is not None else {}
            return self.answer(int(fault), b"", {"Content-Type": "text/plain", **asked})
        status, headers, answer = self._upstream(body)
        if fault is not None and (not answer or self.command == "HEAD"):
            self.server.take_back(request)
        elif fault == "truncate":
            self.close_connection = True
            headers["Content-Length"] = str(len(answer))
            return self.answer(status, answer[: len(answer) // 2], headers)
        elif fault == "corrupt":
            answer = bytes([answer[0] ^ 1]) + answer[1:]
        return self.answer(status, answer, headers)

    do_HEAD = do_GET  # noqa: N815
    do_PUT = do_GET  # noqa: N815
    do_POST = do_GET  # noqa: N815
    do_DELETE = do_GET  # noqa: N815

    def _upstream(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.server.upstream).netloc, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            content = answer.read()
            hop = {"connection", "transfer-encoding", "keep-alive", "date", "server"}
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in hop}
            if self.command != "HEAD":
                headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
            return answer.status, headers, content
        finally:
            connection.close()

    def _reset(self) -> None:
        """Close so that the other side sees a reset."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def ask(url: str, method: str = "GET") -> tuple[int, bytes]:
    """One plain request: status and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"no server on port {port}")
