"""CIFAR-10 and CIFAR-100 as the authors' archive for Python unpacks: pickled batches, read without running them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.labelled.arrays import LabelledArraySource, LabelledImages
from neurotrain.data.labelled.plain_pickle import read_plain_pickle
from neurotrain.data.sources.base import SampleFormatError
from neurotrain.storage.base import Storage

_EDGE = 32
_MAX_BYTES = 2**28  # the largest official file, CIFAR-100's train, has 155 MB


class CifarSource(LabelledArraySource):
    """The folder ``cifar-10-batches-py`` or ``cifar-100-python``.

    Args:
        name: of the source.
        storage: that folder.
        variant: ``cifar10``, or ``cifar100`` with its 100 ``fine`` or its 20 ``coarse`` classes.
        split: the five training batches (or ``train``), or the test batch (or ``test``).
        first: number of the first picture that counts.
        count: how many count; None: all that follow.
        max_bytes: size of a file; a larger one is refused before it is read.

    Raises:
        ValueError: if a number is out of range.

    Reference:
        Krizhevsky, 2009, "Learning Multiple Layers of Features from Tiny Images".
    """

    def __init__(
        self,
        *,
        name: str = "cifar",
        storage: Storage,
        variant: Literal["cifar10", "cifar100", "cifar100_coarse"] = "cifar10",
        split: Literal["train", "test"] = "train",
        first: int = 0,
        count: int | None = None,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        super().__init__(name=name, storage=storage, first=first, count=count)
        self._variant: Literal["cifar10", "cifar100", "cifar100_coarse"] = variant
        self._split: Literal["train", "test"] = split
        self._max_bytes = max_bytes
        self._classes: tuple[str, ...] = ()

    def class_names(self) -> tuple[str, ...]:
        """As ``batches.meta`` or ``meta`` has them."""
        self._ready()
        return self._classes

    def _load(self) -> LabelledImages:
        assert self.storage is not None
        ten = self._variant == "cifar10"
        labels = {"cifar10": "labels", "cifar100": "fine_labels", "cifar100_coarse": "coarse_labels"}[self._variant]
        files = (f"{self._split}",) if not ten else tuple(f"data_batch_{number}" for number in range(1, 6))
        files = ("test_batch",) if ten and self._split == "test" else files
        meta, uri = self._open("batches.meta" if ten else "meta")
        self._classes = tuple(_texts(meta, "label_names" if ten else labels.replace("labels", "label_names"), uri))
        pixels: list[NDArray[np.uint8]] = []
        numbers: list[int] = []
        ids: list[str] = []
        uris: list[str] = []
        for file in files:
            batch, uri = self._open(file)
            pictures = _pictures(batch, uri)
            found = _numbers(batch, labels, uri, below=len(self._classes))
            if len(found) != len(pictures):
                raise SampleFormatError(f"{uri}: {len(found)} {labels} for {len(pictures)} pictures")
            pixels.append(pictures)
            numbers += found
            ids += [f"{file}-{index:05d}" for index in range(len(found))]
            uris += [uri] * len(found)
        return LabelledImages(
            pixels=np.concatenate(pixels), labels=np.array(numbers, np.int64), ids=tuple(ids), uris=tuple(uris)
        )

    def _open(self, key: str) -> tuple[dict[str, Any], str]:
        assert self.storage is not None
        uri = f"{self.storage.uri}/{key}"
        size = self.storage.stat(key).size
        if size is not None and size > self._max_bytes:
            raise SampleFormatError(f"{uri}: {size} bytes, at most max_bytes={self._max_bytes} are read")
        return read_plain_pickle(self.storage.read(key), uri=uri), uri


def _pictures(batch: dict[str, Any], uri: str) -> NDArray[np.uint8]:
    """``(N, 32, 32, 3)``: the file has each picture as a row, its red plane first."""
    data = batch.get("data")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3 * _EDGE**2:
        raise SampleFormatError(f"{uri}: 'data' is no array of bytes (N, {3 * _EDGE**2})")
    return data.reshape(-1, 3, _EDGE, _EDGE).transpose(0, 2, 3, 1)


def _numbers(batch: dict[str, Any], key: str, uri: str, *, below: int) -> list[int]:
    found = batch.get(key)
    if not isinstance(found, list) or not all(isinstance(value, int) and 0 <= value < below for value in found):
        raise SampleFormatError(f"{uri}: {key!r} is no list of numbers from 0 to {below - 1}")
    return found


def _texts(meta: dict[str, Any], key: str, uri: str) -> list[str]:
    found = meta.get(key)
    if not isinstance(found, list) or not all(isinstance(value, str | bytes) for value in found):
        raise SampleFormatError(f"{uri}: {key!r} is no list of names")
    return [value.decode() if isinstance(value, bytes) else value for value in found]
