"""Completeness markers: what a checkpoint must be, written beside it once all of it is on the disk."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

from neurotrain.documents import parse_json

_DIGEST = "blake2b"


def marker(path: Path) -> Path:
    """Where the marker of a checkpoint lies: ``step-00000123.ckpt.whole`` beside ``step-00000123.ckpt``."""
    return path.with_name(f"{path.name}.whole")


def mark(path: Path) -> None:
    """Says that a checkpoint is whole; the last thing that is written of it.

    Args:
        path: a file, or a folder of files, that is on the disk under its final name.
    """
    text = json.dumps({"digest": _DIGEST, "files": _contents(path)}, indent=1)
    temporary = path.with_name(f".{marker(path).name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(marker(path))


def unmark(path: Path) -> None:
    """Takes a checkpoint's marker away, before the checkpoint itself is replaced or removed."""
    marker(path).unlink(missing_ok=True)


def damage(path: Path) -> str | None:
    """Compares a checkpoint with its marker, every byte of it.

    Args:
        path: of the checkpoint.

    Returns:
        What is wrong with it; None if it is whole.
    """
    try:
        told = parse_json(marker(path).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return "has no completeness marker: its writing was cut off"
    except (ValueError, KeyError, TypeError):
        return "has an unreadable completeness marker"
    return _difference(told, path)


def is_sound_archive(path: Path) -> bool:
    """Whether a file without a marker is a whole archive of ``torch.save``: its directory and every checksum fit."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
        return False


def _difference(told: Any, path: Path) -> str | None:  # noqa: ANN401 - of a file that may hold anything
    if not isinstance(told, dict):
        return "has an unreadable completeness marker"
    for name, wanted in told.items():
        file = path / name if name else path
        if not file.is_file():
            return f"lacks {name or 'its file'}"
        size = file.stat().st_size
        if size != wanted["bytes"]:
            return f"has {size:,} bytes{_of(name)} instead of {wanted['bytes']:,}"
        if _digest(file) != wanted["digest"]:
            return f"was altered{_of(name)}: its digest is not the one that was written"
    return None


def _of(name: str) -> str:
    return f" in {name}" if name else ""


def _contents(path: Path) -> dict[str, dict[str, int | str]]:
    """Size and digest of each file by its name in the folder; of a single file by the empty name."""
    if path.is_file():
        return {"": {"bytes": path.stat().st_size, "digest": _digest(path)}}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {
        file.relative_to(path).as_posix(): {"bytes": file.stat().st_size, "digest": _digest(file)} for file in files
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, _DIGEST).hexdigest()
