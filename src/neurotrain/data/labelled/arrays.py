"""Small labelled pictures that lie together in one array: what MNIST and CIFAR have in common as sources."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neurotrain.data.sources.base import RawSample, Source
from neurotrain.storage.base import ObjectNotFoundError, Storage


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Pictures with their classes.

    Attributes:
        pixels: uint8 ``(N, H, W)`` for grey or ``(N, H, W, 3)`` for RGB.
        labels: int64 ``(N,)``.
        ids: N names, each there once.
        uris: of the files that they are from, N of them.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    uris: tuple[str, ...]


class LabelledArraySource(Source):
    """Abstract: all pictures are read at setup and given out one by one, as PGM or PPM, which no picture loses by.

    Args:
        name: of the source.
        storage: holds the files.
        first: number of the first picture that counts.
        count: how many count; None: all that follow.
        order_seed: of the order in which pictures are numbered; None: the files' own.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self, *, name: str, storage: Storage, first: int, count: int | None, order_seed: int | None = None
    ) -> None:
        super().__init__(name=name)
        if first < 0 or (count is not None and count < 1):
            raise ValueError(f"first={first}, count={count}: need at least 0, and at least 1 or None")
        if order_seed is not None and order_seed < 0:
            raise ValueError(f"order_seed={order_seed}: need at least 0, or None for the files' order")
        self.storage = storage
        self._first, self._count, self._order_seed = first, count, order_seed
        self._images: LabelledImages | None = None
        self._fingerprint = ""

    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers."""

    @abstractmethod
    def _load(self) -> LabelledImages:
        """Read the files."""

    def setup(self) -> None:
        """Read the files once.

        Raises:
            StorageError: if a file cannot be read.
            SampleFormatError: if a file is not what it should be.
            ValueError: if there are fewer pictures than ``first`` and ``count`` ask for.
        """
        if self._images is not None:
            return
        images = self._load()
        total = len(images.labels)
        end = total if self._count is None else self._first + self._count
        if end > total or self._first >= total:
            raise ValueError(f"{self.name}: first={self._first}, count={self._count}: there are {total} pictures")
        part = self._order(total)[self._first : end]
        self._images = LabelledImages(
            pixels=np.ascontiguousarray(images.pixels[part]),
            labels=images.labels[part],
            ids=tuple(images.ids[number] for number in part),
            uris=tuple(images.uris[number] for number in part),
        )
        digest = hashlib.blake2b("\n".join(self._images.ids).encode(), digest_size=8)
        digest.update(self._images.pixels.tobytes())
        digest.update(self._images.labels.astype("<i8").tobytes())
        self._fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._ready().labels)

    def read(self, index: int) -> RawSample:
        """One picture with its class."""
        images = self._ready()
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no entry {index}, there are {len(self)}")
        return RawSample(
            id=images.ids[index],
            source=self.name,
            uri=f"{images.uris[index]}#{images.ids[index]}",
            fields={"image": portable_anymap(images.pixels[index]), "label": int(images.labels[index])},
            identity={"image": f"{self._fingerprint}:{index}"},
        )

    def table(self) -> pa.Table:
        """``id``, ``uri``, ``width``, ``height`` and ``label``."""
        images = self._ready()
        height, width = images.pixels.shape[1:3]
        size = len(self)
        columns = {
            "id": pa.array(images.ids, pa.string()),
            "uri": pa.array(images.uris, pa.string()),
            "width": pa.array(np.full(size, width, np.int32)),
            "height": pa.array(np.full(size, height, np.int32)),
            "label": pa.array(images.labels),
        }
        return pa.table(columns)

    def fingerprint(self) -> str:
        """Of ids, pixels and classes."""
        self._ready()
        return self._fingerprint

    def _order(self, total: int) -> NDArray[np.int64]:
        if self._order_seed is None:
            return np.arange(total)
        return np.random.default_rng(self._order_seed).random(total).argsort(kind="stable")

    def _ready(self) -> LabelledImages:
        if self._images is None:
            raise RuntimeError(f"source {self.name!r}: call setup() first")
        return self._images

    def _read(self, keys: tuple[str, ...]) -> tuple[bytes, str]:
        """Bytes and URI of the first of several keys that is there."""
        assert self.storage is not None
        for key in keys[:-1]:
            try:
                return self.storage.read(key), f"{self.storage.uri}/{key}"
            except ObjectNotFoundError:
                continue
        try:
            return self.storage.read(keys[-1]), f"{self.storage.uri}/{keys[-1]}"
        except ObjectNotFoundError as error:
            raise ObjectNotFoundError(self.storage.uri, f"{self.name}: has none of {', '.join(keys)}") from error


def portable_anymap(pixels: NDArray[np.uint8]) -> bytes:
    r"""Encode pixels as PGM or PPM: a short header, then the bytes as they are.

    Args:
        pixels: uint8 ``(H, W)`` or ``(H, W, 3)``.

    Example:
        >>> portable_anymap(np.array([[65, 66]], np.uint8))
        b'P5 2 1 255\nAB'
    """
    kind = "P5" if pixels.ndim == 2 else "P6"
    return f"{kind} {pixels.shape[1]} {pixels.shape[0]} 255\n".encode() + pixels.tobytes()
