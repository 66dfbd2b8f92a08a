"""The photos that every loader reads, in the layout that each needs, and ours: a source that decodes into the batch."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from neurotrain.data.engine import SampleName
from neurotrain.data.plan import SampleKey

SIZE = 128
NAMES = ("meadow", "street", "harbour")
WEIGHTS = (0.5, 0.3, 0.2)
_PARTS = (0.4, 0.4, 0.2)  # of the photos, so that weights and sizes differ
_SHARDS = 4
_SMALL = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Photos:
    """Generated JPEGs in three sources.

    Attributes:
        root: folder; each source is a folder ``jpeg/<name>``, and tar shards ``tar/<name>-<number>.tar``.
        paths: files of each source.
    """

    root: Path
    paths: tuple[tuple[str, ...], ...]

    @property
    def all(self) -> list[str]:
        """Files of all sources."""
        return [path for paths in self.paths for path in paths]

    def shards(self, name: str) -> list[str]:
        """Tar shards of a source."""
        return sorted(str(path) for path in (self.root / "tar").glob(f"{name}-*.tar"))


def photo(number: int) -> bytes:
    """A JPEG with smooth shading, edges and grain, about 5 kB, as photos of this size have."""
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 255, (9, 9, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).astype(np.int16)
    left, top = random.integers(0, SIZE // 2, 2)
    pixels[top : top + SIZE // 3, left : left + SIZE // 3] //= 2
    pixels = pixels + random.normal(0, 3, pixels.shape)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels.clip(0, 255).astype(np.uint8)), quality=90)


def make_photos(root: Path, count: int) -> Photos:
    """Write the photos as files and as tar shards.

    Args:
        root: empty folder.
        count: photos in all.
    """
    sizes = [int(count * part) for part in _PARTS]
    starts = np.cumsum([0, *sizes])
    (root / "tar").mkdir(parents=True)
    paths: list[tuple[str, ...]] = []
    for name, start, size in zip(NAMES, starts, sizes, strict=False):
        folder = root / "jpeg" / name
        folder.mkdir(parents=True)
        with ThreadPoolExecutor(2) as pool:
            encoded = list(pool.map(photo, range(int(start), int(start) + size)))
        found = [folder / f"{number:05d}.jpg" for number in range(size)]
        for path, data in zip(found, encoded, strict=True):
            path.write_bytes(data)
        for shard in range(_SHARDS):
            _write_tar(root / "tar" / f"{name}-{shard}.tar", found[shard::_SHARDS])
        paths.append(tuple(map(str, found)))
    return Photos(root=root, paths=tuple(paths))


def read_file(path: str) -> bytes:
    """Bytes of a file that is smaller than a pipe's buffer, in three system calls."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = os.read(descriptor, _SMALL)
    finally:
        os.close(descriptor)
    return data if len(data) < _SMALL else Path(path).read_bytes()


class PhotoSource:
    """Photos by key for our loader: libjpeg-turbo writes the pixels where the training loop will read them.

    Args:
        photos: to read.
        names: of the sources.
    """

    def __init__(self, photos: Photos, names: tuple[str, ...] = NAMES) -> None:
        self._paths = photos.paths
        self._names = names

    def load(self, key: SampleKey) -> dict[str, Any]:
        """Decode into memory of its own."""
        path = self._paths[key.source][key.index]
        return {"image": simplejpeg.decode_jpeg(read_file(path)), "id": path, "source": self._names[key.source]}

    def load_into(self, key: SampleKey, out: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Decode into the batch where the size is that of the batch before."""
        row = out.get("image")
        if row is None:
            return self.load(key)
        path = self._paths[key.source][key.index]
        data = read_file(path)
        try:
            image = simplejpeg.decode_jpeg(data, buffer=row)
        except ValueError:  # larger than the row, or no JPEG, which the next line tells
            image = simplejpeg.decode_jpeg(data)
        else:
            # A smaller one lies at the row's beginning, in a shape of its own.
            image = row if image.shape == row.shape else image.copy()
        return {"image": image, "id": path, "source": self._names[key.source]}

    def identify(self, key: SampleKey) -> SampleName:
        """The path is all that there is."""
        path = self._paths[key.source][key.index]
        return SampleName(id=path, uri=f"file://{path}", source=self._names[key.source])

    def count(self, source: int) -> int:
        """Photos of one source."""
        return len(self._paths[source])


def _write_tar(path: Path, files: list[Path]) -> None:
    with tarfile.open(path, "w") as tar:
        for file in files:
            data = file.read_bytes()
            member = tarfile.TarInfo(file.name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
