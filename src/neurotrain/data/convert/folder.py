"""A folder for each field, and a table for what is no file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from urllib.parse import quote, urlsplit

from neurotrain.data.convert.entries import Entry
from neurotrain.data.convert.writer import Writer

FOLDERS = {"image": "images", "mask": "masks"}
"""Field: its folder; any other has its own name."""


class FolderWriter(Writer):
    """``train/images/21.tif, train/masks/21.gif``, captions beside the images, all values in ``train/metadata.jsonl``.

    Args:
        folder: empty.
    """

    def __init__(self, *, folder: Path) -> None:
        super().__init__(folder=folder)
        self._lines: dict[str, list[str]] = {}

    def add(self, entry: Entry) -> None:
        """Write the files of a sample."""
        keys = file_keys(entry)
        for field, key in keys.items():
            self._write(f"{entry.split}/{key}", entry.files[field])
        caption = entry.values.get("caption")
        if isinstance(caption, str) and "image" in keys:
            beside = keys["image"].removesuffix(entry.endings["image"])
            self._write(f"{entry.split}/{beside}txt", caption.encode())
        named = {"file_name": keys["image"]} if "image" in keys else {}
        line = json.dumps({**named, "id": entry.id, **entry.values}, ensure_ascii=False, allow_nan=False)
        self._lines.setdefault(entry.split, []).append(line)

    def close(self) -> None:
        """Write the tables."""
        lines_of, self._lines = self._lines, {}
        for split, lines in lines_of.items():
            self._write(f"{split}/metadata.jsonl", "".join(f"{line}\n" for line in lines).encode())


class TableWriter(Writer):
    """Files as in a folder, and ``table.csv``, which names them by their address and tells the hash of each image.

    Args:
        folder: empty.
        base_url: under which a web server will offer the folder.

    Raises:
        ValueError: if it is no address of the web.
    """

    def __init__(self, *, folder: Path, base_url: str) -> None:
        super().__init__(folder=folder)
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"base_url={base_url!r}: expected an address like 'https://host.org/folder'")
        if parts.username is not None or parts.password is not None:
            raise ValueError(f"base_url=https://***@{parts.hostname}: it would put the credentials into the table")
        self._base = base_url.rstrip("/")
        self._rows: list[dict[str, str | int | float]] = []

    def add(self, entry: Entry) -> None:
        """Write the files of a sample."""
        row: dict[str, str | int | float] = {"id": entry.id, "split": entry.split}
        for field, below in file_keys(entry).items():
            key = f"{entry.split}/{below}"
            self._write(key, entry.files[field])
            row[field] = f"{self._base}/{quote(key)}"
        if "image" in entry.files:
            row["sha256"] = hashlib.sha256(entry.files["image"]).hexdigest()
        self._rows.append({**row, **entry.values})

    def close(self) -> None:
        """Write the table."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self._write("table.csv", text.getvalue().encode())


def file_keys(entry: Entry) -> dict[str, str]:
    """Where the files of a sample go below their split, by field."""
    keys: dict[str, str] = {}
    for field in entry.files:
        first, slash, rest = field.partition("/")
        keys[field] = f"{FOLDERS.get(first, first)}{slash}{rest}/{entry.name}.{entry.endings[field]}"
    return keys
