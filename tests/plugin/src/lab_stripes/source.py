"""A source of its own: pictures that are drawn when they are asked for."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
import pyarrow as pa

from neurotrain.data.sources import RawSample, Source


class StripesSource(Source):
    """Pictures of vertical stripes; the mask is where they are bright.

    Args:
        name: of the source.
        count: pictures.
        width: of a stripe, in pixels.
        size: of a picture, both ways.
    """

    def __init__(self, *, name: str, count: int = 8, width: int = 4, size: int = 32) -> None:
        super().__init__(name=name)
        if min(count, width, size) < 1:
            raise ValueError(f"count={count}, width={width}, size={size}: must be at least 1")
        self._count, self._width, self._size = count, width, size

    def setup(self) -> None:
        """Nothing to find."""

    def __len__(self) -> int:
        """Pictures."""
        return self._count

    def read(self, index: int) -> RawSample:
        """Draw one."""
        if not 0 <= index < self._count:
            raise IndexError(f"entry {index} of {self._count}")
        bright = (np.arange(self._size) // self._width + index) % 2 == 0
        mask = np.broadcast_to(bright, (self._size, self._size)).astype(np.uint8) * 255
        noise = np.random.default_rng(index).integers(0, 60, (self._size, self._size, 3), np.uint8)
        fields = {"image": _png(mask[..., None] // 2 + noise), "mask": _png(mask)}
        return RawSample(id=str(index), source=self.name, uri=f"stripes://{self.name}/{index}", fields=fields)

    def table(self) -> pa.Table:
        """Ids and sizes."""
        size = [self._size] * self._count
        return pa.table({"id": [str(index) for index in range(self._count)], "width": size, "height": size})

    def fingerprint(self) -> str:
        """Of all settings."""
        told = f"{self._count} {self._width} {self._size}"
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    stream = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    return stream.getvalue()
