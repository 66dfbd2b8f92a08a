"""Prepared volumes on disk: memory-mapped arrays, one folder a case, named by content and settings."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neurotrain.data.datasets.problems import DatasetError
from neurotrain.data.volumes.base import VolumeDataset, VolumeRecord
from neurotrain.data.volumes.preparation import VERSION, Prepared, VolumePreparation

_FIELDS = ("image", "mask", "reference", "centres", "box", "size", "spacing")
_EDGE = 2**20


class VolumeCache:
    """Prepares a case once and opens it as memory-mapped arrays from then on.

    A case lies under ``<folder>/<id>-<key>``; the key is made of the content of its files, the settings of the
    preparation and the meaning of the labels, so other settings live beside, and a changed file is prepared anew. A
    folder is complete or not there, also when several processes prepare one case at once. Nothing is ever removed.

    Args:
        folder: made if absent.
        dataset: reads a case.
        preparation: of it.
    """

    def __init__(self, *, folder: Path, dataset: VolumeDataset, preparation: VolumePreparation) -> None:
        self._folder = Path(folder).expanduser()
        self._dataset = dataset
        self._preparation = preparation
        self._keys: dict[tuple[str, bool], str] = {}

    def key(self, record: VolumeRecord, *, labelled: bool) -> str:
        """Identity of a prepared case: 32 hexadecimal digits.

        Raises:
            OSError: if a file cannot be read.
        """
        known = self._keys.get((record.id, labelled))
        if known is None:
            total = hashlib.blake2b(digest_size=16)
            told = (VERSION, self._preparation, self._dataset.label_map if labelled else None)
            total.update(repr(told).encode())
            for path in record.files if labelled else record.images:
                total.update(self._content(path).encode())
            known = self._keys[record.id, labelled] = total.hexdigest()
        return known

    def open(self, record: VolumeRecord, *, labelled: bool) -> Prepared:
        """The prepared case, out of the folder if it is there.

        Args:
            record: of the data set.
            labelled: whether its labels are part of it.

        Returns:
            Tensors over copy-on-write maps of the files: what is not touched is not read.

        Raises:
            DatasetError: if a file of the case cannot be read, or the cache's are damaged.
        """
        name = re.sub(r"[^\w.-]+", "_", record.id)
        folder = self._folder / f"{name}-{self.key(record, labelled=labelled)}"
        if not folder.is_dir():
            volume = self._dataset.read(record, labelled=labelled)
            _write(folder, self._preparation(volume, self._dataset.label_map))
        return _read(folder)

    def _content(self, path: Path) -> str:
        """Digest of a file; remembered under its path, size and time of change, so that it is read once."""
        stat = path.stat()
        token = f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}"
        memory = self._folder / "digests" / hashlib.blake2b(token.encode(), digest_size=16).hexdigest()
        try:
            return memory.read_text("ascii")
        except OSError:
            found = _digest(path, stat.st_size)
        memory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=memory.parent, prefix=".", delete=False) as file:
            file.write(found)
        Path(file.name).replace(memory)
        return found


def _digest(path: Path, size: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{size}:".encode())
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b" and size > 2 * _EDGE:
            # The end of a gzip stream holds a check sum of all of its content.
            file.seek(0)
            digest.update(file.read(_EDGE))
            file.seek(size - _EDGE)
            digest.update(file.read(_EDGE))
        else:
            file.seek(0)
            while block := file.read(_EDGE):
                digest.update(block)
    return digest.hexdigest()


def _write(folder: Path, case: Prepared) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        for name in _FIELDS:
            value: Tensor | None = getattr(case, name)
            if value is not None:
                with (building / f"{name}.npy").open("wb") as file:
                    np.save(file, value.contiguous().numpy(), allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
        building.chmod(0o755)
        try:
            building.rename(folder)
        except OSError:
            # Another process was first: a rename never replaces a folder that holds files.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _read(folder: Path) -> Prepared:
    try:
        fields = {name: _mapped(folder / f"{name}.npy") for name in _FIELDS}
    except (OSError, ValueError) as error:
        raise DatasetError.single("unreadable", folder, f"is a damaged cache, remove it: {error}") from error
    absent = [name for name, value in fields.items() if value is None and name not in ("mask", "reference")]
    if absent:
        raise DatasetError.single("unreadable", folder, f"is a damaged cache, remove it: no {', '.join(absent)}")
    return Prepared(**fields)  # pyright: ignore[reportArgumentType]


def _mapped(path: Path) -> Tensor | None:
    if not path.exists():
        return None
    # Copy on write: torch wants arrays that may be written, and nothing that anybody writes reaches the file.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
