"""A cache's folder: what is in it now, and whether it is one at all."""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from neurotrain.data.cache.index import Index
from neurotrain.data.cache.manifest import load_manifest, manifests
from neurotrain.data.cache.shard import UNFINISHED, CacheFormatError, Located, ShardInfo, is_shard, read_header
from neurotrain.documents import parse_json

log = logging.getLogger(__name__)

MARKER = "cache.json"
FORMAT = 2
_SETTLED = 100_000_000
"""Nanoseconds after which a folder's time of change is final: a file system's clock ticks coarsely."""


class CacheFolder:
    """Files of a cache: ``cache.json`` says that it is one, ``shards/`` holds everything, manifests speed up opening.

    Args:
        path: of the folder.
        create: make it where absent; otherwise it must be a cache already.

    Raises:
        FileNotFoundError: if there is none and ``create`` is False.
        CacheFormatError: if the folder holds something else, or a format that this version does not know.
    """

    def __init__(self, path: Path | str, *, create: bool = False) -> None:
        self.path = Path(path)
        self.shards = self.path / "shards"
        self.refused: dict[str, str] = {}
        self._stamp: int | None = None
        if not (self.path / MARKER).exists():
            self._create(create=create)
        _check_marker(self.path / MARKER)
        self.shards.mkdir(exist_ok=True)

    @property
    def lock(self) -> Path:
        """File to be locked by whoever removes or rewrites shards, or keeps to a budget."""
        return self.path / "maintenance.lock"

    @property
    def claims(self) -> Path:
        """File whose bytes are locked by whoever works on a key."""
        return self.path / "claims.lock"

    def load(self) -> Index:
        """The entries that are there now."""
        for path in manifests(self.path):
            try:
                return self.update(load_manifest(path))
            except CacheFormatError as error:
                log.warning("%s: headers are read instead of the manifest: %s", self.path, error)
            except FileNotFoundError:  # another process has just written a newer one
                continue
        return self.update(Index())

    def update(self, index: Index) -> Index:
        """What is there now, given what was there before: headers of new files are read, no others."""
        started = time.time_ns()
        stamp = self.shards.stat().st_mtime_ns
        found = self.scan()
        gone = {shard.name for shard in index.shards if found.get(shard.name) != shard.nbytes}
        index = index.without(gone)
        self.refused = {name: reason for name, reason in self.refused.items() if name in found}
        added: list[tuple[ShardInfo, list[Located]]] = []
        for name in sorted(found.keys() - index.names - self.refused.keys()):
            try:
                added.append(read_header(self.shards, name))
            except FileNotFoundError:
                continue  # collected a moment ago
            except CacheFormatError as error:
                self.refused[name] = str(error)
                log.warning("%s: a file is left out, its entries count as missing: %s", self.path, error)
        self._stamp = stamp if started - stamp > _SETTLED else None
        return index.with_shards(added)

    def has_changed(self) -> bool:
        """Whether files may have come or gone since :meth:`update`; costs microseconds."""
        return self._stamp is None or self.shards.stat().st_mtime_ns != self._stamp

    def scan(self) -> dict[str, int]:
        """Name and size of every shard."""
        found: dict[str, int] = {}
        with os.scandir(self.shards) as entries:
            for entry in entries:
                if is_shard(entry.name) and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        found[entry.name] = entry.stat(follow_symlinks=False).st_size
        return found

    def remove_refused(self) -> int:
        """Delete files that cannot be read; the caller holds the lock. Returns their number."""
        for name in self.refused:
            (self.shards / name).unlink(missing_ok=True)
        return len(self.refused)

    def unfinished(self) -> list[Path]:
        """Files that someone writes, or that a killed process left."""
        return [
            path
            for folder in (self.path, self.shards)
            for path in folder.iterdir()
            if path.name.startswith(".") and path.name.endswith(UNFINISHED)
        ]

    def _create(self, *, create: bool) -> None:
        if not create:
            raise FileNotFoundError(f"{self.path} is not a cache: it has no {MARKER}")
        self.path.mkdir(parents=True, exist_ok=True)
        strangers = sorted(path.name for path in self.path.iterdir() if not path.name.startswith("."))
        if strangers and not (self.path / MARKER).exists():
            raise CacheFormatError(f"{self.path} is no cache and holds {strangers[0]!r}: give an empty folder")
        temporary = self.path / f".{MARKER}.{secrets.token_hex(8)}{UNFINISHED}"
        temporary.write_text(json.dumps({"format": FORMAT}), encoding="utf-8")
        temporary.rename(self.path / MARKER)


def _check_marker(path: Path) -> None:
    try:
        marker: Any = parse_json(path.read_bytes()[:4096])
        found = marker["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CacheFormatError(f"{path} is damaged; if the folder is a cache, write {{'format': {FORMAT}}}") from error
    if found != FORMAT:
        raise CacheFormatError(f"{path}: format {found!r}, this version reads {FORMAT}")
