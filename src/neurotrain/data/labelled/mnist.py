"""MNIST, and what is laid out like it: four idx files, compressed or not."""

from __future__ import annotations

from typing import Literal

import numpy as np

from neurotrain.data.labelled.arrays import LabelledArraySource, LabelledImages
from neurotrain.data.labelled.idx import read_idx
from neurotrain.data.sources.base import SampleFormatError
from neurotrain.storage.base import Storage

_PREFIX = {"train": "train", "test": "t10k"}
_DIGITS = tuple("0123456789")
_MAX_BYTES = 2**28  # the largest official file, EMNIST's 814,255 pictures of 28 x 28, is 640 MB: raise max_bytes for it


class MnistSource(LabelledArraySource):
    """``{train,t10k}-images-idx3-ubyte`` and ``{train,t10k}-labels-idx1-ubyte``, each with or without ``.gz``.

    Fashion-MNIST, KMNIST and EMNIST lie in the same layout: give them their ``classes``.

    Args:
        name: of the source.
        storage: holds the four files.
        split: which pair of files.
        first: number of the first picture that counts.
        count: how many count; None: all that follow. ``first=0 count=8000`` and ``first=8000`` divide the official
            test digits where nothing else is at hand.
        order_seed: of the order in which pictures are numbered; None: the files' own. In the official test digits the
            first half is of other writers than the second, and easier: parts that are to be alike need a seed.
        classes: their names, in the order of their numbers; None: the ten digits.
        max_bytes: pixels that a file's header may promise.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> from neurotrain.storage import MemoryStorage
        >>> storage = MemoryStorage(name="mnist-example")
        >>> header = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1])
        >>> _ = storage.write("t10k-images-idx3-ubyte", header + bytes([5, 6]))
        >>> _ = storage.write("t10k-labels-idx1-ubyte", bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
        >>> source = MnistSource(storage=storage, split="test", first=1)
        >>> source.setup()
        >>> source.read(0).id, source.read(0).fields["label"]
        ('test-00001', 9)

    Reference:
        LeCun et al., 1998, "Gradient-based learning applied to document recognition".
    """

    def __init__(
        self,
        *,
        name: str = "mnist",
        storage: Storage,
        split: Literal["train", "test"] = "train",
        first: int = 0,
        count: int | None = None,
        order_seed: int | None = None,
        classes: tuple[str, ...] | None = None,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        super().__init__(name=name, storage=storage, first=first, count=count, order_seed=order_seed)
        self._split: Literal["train", "test"] = split
        self._classes = _DIGITS if classes is None else tuple(classes)
        self._max_bytes = max_bytes

    def class_names(self) -> tuple[str, ...]:
        """The digits, or the given names."""
        return self._classes

    def _load(self) -> LabelledImages:
        stem = _PREFIX[self._split]
        images, images_uri = self._read((f"{stem}-images-idx3-ubyte", f"{stem}-images-idx3-ubyte.gz"))
        labels, labels_uri = self._read((f"{stem}-labels-idx1-ubyte", f"{stem}-labels-idx1-ubyte.gz"))
        pixels = read_idx(images, uri=images_uri, dimensions=3, max_bytes=self._max_bytes)
        numbers = read_idx(labels, uri=labels_uri, dimensions=1, max_bytes=self._max_bytes)
        if len(pixels) != len(numbers):
            raise SampleFormatError(f"{labels_uri}: {len(numbers)} labels for {len(pixels)} pictures of {images_uri}")
        if len(numbers) and int(numbers.max()) >= len(self._classes):
            raise SampleFormatError(f"{labels_uri}: label {int(numbers.max())}, there are {len(self._classes)} classes")
        return LabelledImages(
            pixels=pixels,
            labels=numbers.astype(np.int64),
            ids=tuple(f"{self._split}-{index:05d}" for index in range(len(numbers))),
            uris=(images_uri,) * len(numbers),
        )
