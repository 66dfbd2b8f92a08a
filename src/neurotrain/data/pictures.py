"""Pictures without annotations, to be predicted, wherever they lie."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa

from neurotrain.data.datasets.decoding import EXTENSIONS
from neurotrain.data.fetched import MARKS, glob_expression
from neurotrain.data.prediction import find_images
from neurotrain.data.sources.base import RawSample, Source, SourceError
from neurotrain.storage import LocalStorage, Storage, open_storage


class _Picture(NamedTuple):
    id: str
    uri: str
    storage: Storage
    key: str
    size: int | None


class PictureSource(Source):
    """Images of a folder, of a glob, or one image; an entry's id is the file's name without its ending.

    Args:
        location: a path or a URI (``photos``, ``photos/**/*.jpg``, ``s3://bucket/photos/*.jpg``, ``https://host/a.png``).
            A folder is looked at without its subfolders; hidden files and those without an image's ending are left out.
            See :func:`neurotrain.data.prediction.find_images` for paths, and
            :func:`neurotrain.storage.open_storage` for URIs.
        name: of the source.

    Example:
        >>> from neurotrain.storage import MemoryStorage
        >>> storage = MemoryStorage(name="pictures-example")
        >>> for key in ("b.png", "a.jpg", "notes.txt", "older/c.png"):
        ...     _ = storage.write(key, b"...")
        >>> source = PictureSource(location="memory://pictures-example")
        >>> source.setup()
        >>> source.table()["id"].to_pylist()
        ['a', 'b']
    """

    def __init__(self, *, location: str, name: str = "pictures") -> None:
        super().__init__(name=name)
        self._location = location
        self._pictures: tuple[_Picture, ...] | None = None

    def setup(self) -> None:
        """Find the images, once.

        Raises:
            DatasetError: if nothing is found at a path; or lists files of one id and files that are no image.
            SourceError: if nothing is found at a URI; or lists files of one id.
            StorageError: if a URI cannot be listed.
            ValueError: if the location is empty, no valid glob, or a URI of an unknown scheme.
        """
        if self._pictures is None:
            found = _stored(self._location) if "://" in self._location else _local(self._location)
            self._pictures = tuple(sorted(found, key=lambda picture: picture.id))

    def __len__(self) -> int:
        """Number of images."""
        return len(self._ready())

    def read(self, index: int) -> RawSample:
        """One image."""
        picture = self._ready()[index]
        fields = {"image": picture.storage.read(picture.key)}
        return RawSample(id=picture.id, source=self.name, uri=picture.uri, fields=fields)

    def table(self) -> pa.Table:
        """``id`` and ``uri``."""
        pictures = self._ready()
        return pa.table(
            {
                "id": pa.array([picture.id for picture in pictures], pa.string()),
                "uri": pa.array([picture.uri for picture in pictures], pa.string()),
            }
        )

    def fingerprint(self) -> str:
        """Of the names and sizes of the files."""
        told = "\n".join(f"{picture.id}:{picture.size}" for picture in self._ready())
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()

    def _ready(self) -> tuple[_Picture, ...]:
        if self._pictures is None:
            raise RuntimeError(f"source {self.name!r}: call setup() first")
        return self._pictures


def _local(location: str) -> list[_Picture]:
    found: list[_Picture] = []
    for record in find_images(location):
        file = Path(record.image).absolute()
        storage = LocalStorage(root=file.parent)
        found.append(_Picture(record.id, str(record.image), storage, file.name, file.stat().st_size))
    return found


def _stored(location: str) -> list[_Picture]:
    """Pictures at a URI.

    Raises:
        SourceError: if there is none, or two have one id.
    """
    scheme, _, rest = location.partition("://")
    parts = rest.rstrip("/").split("/")
    marked = next((place for place, part in enumerate(parts) if MARKS & set(part)), len(parts))
    if marked == len(parts) and len(parts) > 1 and _is_image(parts[-1]):
        storage = open_storage(f"{scheme}://{'/'.join(parts[:-1])}")  # which not every server lets list
        return [_Picture(PurePosixPath(parts[-1]).stem, location, storage, parts[-1], storage.stat(parts[-1]).size)]
    storage = open_storage(f"{scheme}://{'/'.join(parts[:marked])}")
    pattern = re.compile(glob_expression("/".join(parts[marked:]) or "*"))
    found: dict[str, _Picture] = {}
    problems: list[str] = []
    for info in storage.list():
        if not pattern.fullmatch(info.key) or not _is_image(PurePosixPath(info.key).name):
            continue
        picture = _Picture(PurePosixPath(info.key).stem, storage.uri_of(info.key), storage, info.key, info.size)
        if picture.id in found:
            problems.append(
                f"{picture.uri}: would be predicted as {picture.id!r}, and so would {found[picture.id].uri}"
            )
        found.setdefault(picture.id, picture)
    if not found:
        problems.append("there is no image")
    if problems:
        raise SourceError(f"source={location}", problems)
    return [*found.values()]


def _is_image(name: str) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in EXTENSIONS
