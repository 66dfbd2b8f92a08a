"""Tar shards as WebDataset reads them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from neurotrain.data.convert.entries import Entry
from neurotrain.data.convert.writer import Writer
from neurotrain.data.datasets.decoding import EXTENSIONS


class ShardWriter(Writer):
    """``train-000000.tar`` and so on; ``21.tif, 21.mask.gif, 21.cls, 21.txt``, and ``21.json`` with all values.

    Members carry neither time nor owner: the same samples make the same bytes.

    Args:
        folder: empty.
        shard_bytes: of files, above which the next shard begins.
    """

    def __init__(self, *, folder: Path, shard_bytes: int) -> None:
        super().__init__(folder=folder)
        self._shard_bytes = shard_bytes
        self._archive: tarfile.TarFile | None = None
        self._split, self._number, self._held = "", 0, 0

    def add(self, entry: Entry) -> None:
        """Write the members of a sample into the shard that is open, or the next one."""
        members = _members(entry)
        size = sum(len(content) for content in members.values())
        if self._archive is None or entry.split != self._split or self._held + size > self._shard_bytes:
            archive = self._next(entry.split)
        else:
            archive = self._archive
        self._held += size
        for extension, content in members.items():
            info = tarfile.TarInfo(f"{entry.name}.{extension}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

    def close(self) -> None:
        """Close the last shard."""
        if self._archive is not None:
            self._archive.close()
            self._archive = None

    def _next(self, split: str) -> tarfile.TarFile:
        self.close()
        self._number = self._number + 1 if split == self._split else 0
        self._split, self._held = split, 0
        path = self._folder / f"{split}-{self._number:06d}.tar"
        self._archive = tarfile.open(path, "x", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by close()
        return self._archive


def _members(entry: Entry) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for field, content in entry.files.items():
        ending = entry.endings[field]
        plain = field == "image" and f".{ending}" in EXTENSIONS
        members[ending if plain else f"{field.replace('/', '.')}.{ending}"] = content
    label, caption = entry.values.get("label"), entry.values.get("caption")
    if isinstance(label, int):
        members["cls"] = str(label).encode()
    if isinstance(caption, str):
        members["txt"] = caption.encode()
    values = {"id": entry.id, **entry.values}
    members["json"] = json.dumps(values, ensure_ascii=False, allow_nan=False).encode()
    return members
