"""A small Hugging Face hub on loopback: trees in pages, large files behind a redirect to another origin, commits."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from servers import Handler, QuietServer, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"


class HubServer(QuietServer):
    """Repositories in memory.

    Args:
        page: files that one page of a tree holds.

    Attributes:
        files: content by repository (``datasets/owner/name``) and path.
        large: files from this size on lie behind a redirect, as LFS files do.
        private: repositories that want the token.
        asked: method, path and authorization of every request.
    """

    def __init__(self, *, page: int = 5) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.page = page
        self.files: dict[str, dict[str, bytes]] = {}
        self.large = 1000
        self.private: set[str] = set()
        self.asked: list[tuple[str, str, str | None]] = []


@contextmanager
def start_hub() -> Iterator[HubServer]:
    """Run a small hub."""
    server = HubServer()
    with serving(server):
        yield server


def git_hash(data: bytes) -> str:
    """Git's name of a content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class _HubHandler(Handler):
    server: HubServer

    def do_HEAD(self) -> None:  # noqa: N802
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))
        path = urlsplit(self.path).path
        if path.startswith("/cdn/"):
            _, _, repo, file = path.split("/", 3)
            return self._content(self.server.files[unquote(repo)][unquote(file)], {})
        if path.startswith("/api/"):
            kind, owner, name, verb, revision, *rest = path.removeprefix("/api/").split("/")
            repo, file = f"{kind}/{owner}/{name}", unquote("/".join(rest))
            return self._guarded(repo, revision) or (verb == "tree" and self._tree(repo, file))
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        return self._guarded(repo, revision) or self._resolve(repo, unquote(file))

    def do_POST(self) -> None:  # noqa: N802
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))
        body = (
            self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else self._chunks()
        )
        kind, owner, name, verb, revision = urlsplit(self.path).path.removeprefix("/api/").split("/")
        repo = f"{kind}/{owner}/{name}"
        if self._guarded(repo, revision):
            return None
        if verb == "preupload":
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": modes})
        for line in body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                self.server.files[repo][item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "deletedFile":
                del self.server.files[repo][item["value"]["path"]]
        return self._json({"commitUrl": f"{self.server.url}/{repo}/commit/{COMMIT}", "commitOid": COMMIT})

    def _guarded(self, repo: str, revision: str) -> bool:
        """Refuse what is not there or wants a token."""
        if repo not in self.server.files:
            self._refuse(401, "RepoNotFound")
        elif repo in self.server.private and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(403, "GatedRepo")
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        else:
            return False
        return True

    def _tree(self, repo: str, folder: str) -> None:
        """One page of all files below a folder, with the folders among them, in no order that keys have."""
        top = f"{folder}/" if folder else ""
        files = {path: data for path, data in self.server.files[repo].items() if path.startswith(top)}
        if folder and not files:
            return self._refuse(404, "EntryNotFound")
        entries: list[dict[str, Any]] = [
            {"type": "file", "path": path, "size": len(data), "oid": git_hash(data), **self._lfs(data)}
            for path, data in sorted(files.items(), key=lambda item: (item[0].count("/"), item[0]))
        ]
        entries += [{"type": "directory", "path": path.rpartition("/")[0], "oid": COMMIT, "size": 0} for path in files]
        first = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        last = first + self.server.page
        place = f"http://{self.headers['Host']}/api/{repo}/tree/main/{quote(folder)}".rstrip("/")
        more = (
            {"Link": f'<{place}?recursive=True&expand=False&cursor={last}>; rel="next"'} if last < len(entries) else {}
        )
        return self._json(entries[first:last], more)

    def _lfs(self, data: bytes) -> dict[str, Any]:
        if len(data) < self.server.large:
            return {}
        return {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}

    def _resolve(self, repo: str, file: str) -> None:
        data = self.server.files[repo].get(file)
        if data is None:
            return self._refuse(404, "EntryNotFound")
        if len(data) < self.server.large:
            return self._content(data, {"ETag": f'"{git_hash(data)}"', "X-Repo-Commit": COMMIT})
        # The same server, or the proxy before it, by another name: another origin.
        cdn = f"http://localhost:{self.headers['Host'].rpartition(':')[2]}/cdn"
        headers = {
            "Location": f"{cdn}/{quote(repo, safe='')}/{quote(file)}?Signature=signed",
            "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Linked-Size": str(len(data)),
        }
        return self.answer(302, b"", headers)

    def _content(self, data: bytes, headers: dict[str, str]) -> None:
        span = self.headers.get("Range")
        if span is None:
            return self.answer(200, data, headers)
        first, _, last = span.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
        if start >= len(data):
            return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        return self.answer(206, data[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

    def _json(self, value: object, headers: dict[str, str] | None = None) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _refuse(self, status: int, code: str) -> None:
        self.answer(status, b"", {"X-Error-Code": code, "X-Error-Message": f"{code} at {self.path}"})

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        while size := int(self.rfile.readline().strip(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)
