"""Files in the official layouts of MNIST and CIFAR, of a few generated pictures."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def digits(count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures whose class is the row of a bright stripe, so that a network can learn it."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(count) % 10).astype(np.uint8)
    pixels = generator.integers(0, 60, (count, 28, 28), dtype=np.uint8)
    for picture, label in zip(pixels, labels, strict=True):
        picture[2 * label + 4 : 2 * label + 6] = 255
    return pixels, labels


def write_mnist(folder: Path, *, count: int, prefix: str = "t10k", compressed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels, labels = digits(count)
    for name, array in ((f"{prefix}-images-idx3-ubyte", pixels), (f"{prefix}-labels-idx1-ubyte", labels)):
        data = idx_bytes(array)
        (folder / (f"{name}.gz" if compressed else name)).write_bytes(gzip.compress(data) if compressed else data)


def write_cifar10(folder: Path, *, count: int = 3) -> np.ndarray:
    """Five training batches and one for tests, keyed by bytes as Python 3 reads the originals; the first one's rows."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    first = np.empty(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        data = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        first = data if name == "data_batch_1" else first
        batch = {b"batch_label": b"x", b"labels": list(range(count)), b"data": data, b"filenames": [b"a.png"] * count}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {b"num_cases_per_batch": count, b"label_names": [b"airplane", b"automobile", b"bird"], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return first
