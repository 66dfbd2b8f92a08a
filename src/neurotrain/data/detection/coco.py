"""COCO in its official layout: ``instances_*.json`` and a folder of images."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

import pyarrow as pa

from neurotrain.batch import Category
from neurotrain.data.datasets.coco import CocoImage, CocoObject, flaws, parse_instances, read_objects
from neurotrain.data.sources.base import RawSample, Source, SourceError
from neurotrain.storage.base import ObjectInfo, ObjectNotFoundError, Storage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Index:
    categories: tuple[Category, ...]
    images: tuple[CocoImage, ...]
    files: tuple[ObjectInfo, ...]
    fingerprint: str


class CocoSource(Source):
    """Images of COCO, or of what is annotated in its format, with their objects; those without objects are kept.

    An entry's id is the image's number as text. Fields are ``image``, ``objects`` (JSON, see
    :class:`~neurotrain.data.datasets.coco.CocoObject`), ``height`` and ``width`` as the annotations have them.

    Args:
        name: of the source.
        storage: holds the annotations and the images.
        annotations: key of the JSON file.
        images: key of the folder of the images; empty for the storage's root.
        first: number of the first image that counts, in the order of the images' numbers.
        count: how many count; None: all that follow.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> from neurotrain.storage import MemoryStorage
        >>> storage = MemoryStorage(name="coco-example")
        >>> _ = storage.write("val2017/9.jpg", b"...")
        >>> _ = storage.write("annotations/instances_val2017.json", b'''{"annotations": [], "categories":
        ...     [{"id": 3, "name": "car"}], "images": [{"id": 9, "file_name": "9.jpg", "height": 4, "width": 6}]}''')
        >>> source = CocoSource(
        ...     storage=storage, annotations="annotations/instances_val2017.json", images="val2017"
        ... )
        >>> source.setup()
        >>> source.read(0).id, source.read(0).fields["objects"], source.categories()
        ('9', '[]', (Category(id=3, name='car'),))

    Reference:
        Lin et al., 2014 (arXiv:1405.0312); https://cocodataset.org/#format-data.
    """

    def __init__(
        self,
        *,
        name: str = "coco",
        storage: Storage,
        annotations: str = "annotations/instances_train2017.json",
        images: str = "train2017",
        first: int = 0,
        count: int | None = None,
    ) -> None:
        super().__init__(name=name)
        if first < 0 or (count is not None and count < 1):
            raise ValueError(f"first={first}, count={count}: need at least 0, and at least 1 or None")
        self.storage = storage
        self._annotations, self._folder = annotations, images.strip("/")
        self._first, self._count = first, count
        self._index: _Index | None = None

    def setup(self) -> None:
        """Read the annotations and list the images, once.

        Raises:
            StorageError: if the annotations cannot be read.
            DatasetError: if they are not what they should be.
            SourceError: lists images whose file is absent.
            ValueError: if there are fewer images than ``first`` and ``count`` ask for.
        """
        if self._index is not None:
            return
        assert self.storage is not None
        uri = self.storage.uri_of(self._annotations)
        try:
            data = self.storage.read(self._annotations)
        except ObjectNotFoundError as error:
            raise ObjectNotFoundError(uri, f"{self.name}: no annotations here; annotations=KEY says where") from error
        found = parse_instances(data, uri=uri)
        end = len(found.images) if self._count is None else self._first + self._count
        if end > len(found.images) or self._first >= len(found.images):
            raise ValueError(
                f"{self.name}: first={self._first}, count={self._count}: {uri} has {len(found.images)} images"
            )
        images = found.images[self._first : end]
        files = self._files(images)
        digest = hashlib.blake2b(data, digest_size=8)
        for image, file in zip(images, files, strict=True):
            digest.update(f"{image.id}:{file.size}:{image.file_name}\n".encode())
        self._index = _Index(categories=found.categories, images=images, files=files, fingerprint=digest.hexdigest())
        self._warn()

    def categories(self) -> tuple[Category, ...]:
        """All of the file, whether or not they have objects; a label is a place in it."""
        return self._ready().categories

    def objects(self, index: int) -> list[CocoObject]:
        """Objects of one image."""
        return read_objects(self._ready().images[index].text)

    def flaws(self, index: int) -> list[str]:
        """What is wrong with the boxes of one image; see :func:`neurotrain.data.datasets.coco.flaws`."""
        image = self._ready().images[index]
        return flaws(self.objects(index), height=image.height, width=image.width)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._ready().images)

    def read(self, index: int) -> RawSample:
        """One image with its objects."""
        ready = self._ready()
        if not 0 <= index < len(ready.images):
            raise IndexError(f"{self.name}: no entry {index}, there are {len(ready.images)}")
        image, file = ready.images[index], ready.files[index]
        assert self.storage is not None
        return RawSample(
            id=str(image.id),
            source=self.name,
            uri=self.storage.uri_of(file.key),
            fields={
                "image": self.storage.read(file.key),
                "objects": image.text,
                "height": image.height,
                "width": image.width,
            },
            identity={} if file.etag is None else {"image": file.etag},
        )

    def table(self) -> pa.Table:
        """``id``, ``uri``, ``size``, ``width``, ``height``, and numbers of ``objects`` and ``crowds``."""
        ready = self._ready()
        assert self.storage is not None
        return pa.table(
            {
                "id": pa.array([str(image.id) for image in ready.images], pa.string()),
                "uri": pa.array([self.storage.uri_of(file.key) for file in ready.files], pa.string()),
                "size": pa.array([file.size for file in ready.files], pa.int64()),
                "width": pa.array([image.width for image in ready.images], pa.int32()),
                "height": pa.array([image.height for image in ready.images], pa.int32()),
                "objects": pa.array([image.objects for image in ready.images], pa.int32()),
                "crowds": pa.array([image.crowds for image in ready.images], pa.int32()),
            }
        )

    def fingerprint(self) -> str:
        """Of the annotations, and of the names and sizes of the images."""
        return self._ready().fingerprint

    def _files(self, images: tuple[CocoImage, ...]) -> tuple[ObjectInfo, ...]:
        assert self.storage is not None
        prefix = f"{self._folder}/" if self._folder else ""
        there = {info.key: info for info in self.storage.list(prefix)}
        keys = [f"{prefix}{image.file_name}" for image in images]
        missing = [f"{key}: missing" for key in keys if key not in there]
        if missing:
            raise SourceError(f"{self.name} ({self.storage.uri})", missing)
        return tuple(there[key] for key in keys)

    def _warn(self) -> None:
        """Say that boxes will be left out, which happens at each visit and would otherwise go unseen."""
        empty = sum(image.empty for image in self._ready().images)
        if empty:
            logger.warning(
                "%s: %d boxes have no area and are left out of training; `neurotrain data verify` lists them",
                self.name,
                empty,
            )

    def _ready(self) -> _Index:
        if self._index is None:
            raise RuntimeError(f"source {self.name!r}: call setup() first")
        return self._index
